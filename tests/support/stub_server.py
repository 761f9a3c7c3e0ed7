"""A chat-completions server on loopback without a model: it responds by the rule of `tests/support/rule_engine.py`.

    with stub_server("Qwen/Qwen2.5-VL-7B-Instruct") as server:
        ...  # server.url, server.questions

A response depends on the bytes of the image and on the question only. A failed one becomes HTTP 400.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from typing import Any

import PIL.Image

from tagllm_cli.records import DecodedImage, Request, Response
from tests.support import rule_engine as rules
from tests.support.faulty_proxy import Fault, FaultyProxy, completion, refuse

Answer = Callable[[DecodedImage | None, Request], Response]
Faulty = Callable[[int, str], Fault | None]


def stub_server(
    model: str = "stub", answer: Answer = rules.answer, fault: Faulty = lambda number, path: None
) -> FaultyProxy:
    """A server, a context manager, that serves one model under this name; `answer` is the model's response.

    `fault` is that of `FaultyProxy`.
    """
    return FaultyProxy(fault, answer=lambda question: respond(question, answer), models=(model,))


def picture_of(url: str) -> DecodedImage:
    """The image of a data URL; its `uuid` is a hash of what was sent."""
    pixels = PIL.Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    return DecodedImage(pixels, hashlib.blake2b(url.encode(), digest_size=16).hexdigest())


def respond(question: Any, answer: Answer = rules.answer) -> dict[str, Any] | Fault:
    """The completion for a question's JSON."""
    content = question["messages"][-1]["content"]
    parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    shown = [picture_of(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]
    system = next((each["content"] for each in question["messages"] if each["role"] == "system"), "")
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    top_logprobs = question.get("top_logprobs", 0) if question.get("logprobs") else 0
    request = Request(system, text, bool(shown), question["max_tokens"], top_logprobs)
    response = answer(shown[0] if shown else None, request)
    if response.failure is not None:
        return refuse(400, response.failure.message)
    logprobs = dict(response.first_logprobs) if top_logprobs else None
    return completion(response.text, logprobs, finish=response.finish)
