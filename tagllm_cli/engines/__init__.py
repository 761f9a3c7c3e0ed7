"""Requests in, responses out: vLLM in process, OpenAI-compatible servers, recorded responses."""
