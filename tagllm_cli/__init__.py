"""tagllm labels image datasets with a multimodal LLM served by vLLM."""

from importlib import metadata

__version__ = metadata.version("tagllm")
