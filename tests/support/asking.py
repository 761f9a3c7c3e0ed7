"""Requests to servers on loopback through an endpoint engine, with short timeouts and pauses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import PIL.Image

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.http.engine import EndpointEngine, EndpointSettings
from tagllm_cli.records import DecodedImage, Request, Response
from tests.support.faulty_proxy import FaultyProxy, completion

CAT = Request("You label images.", "Is a cat visible?", max_tokens=1, top_logprobs=20)
LIST = Request("You label images.", "Which of: cat, dog?", max_tokens=64)


def picture(shade: int = 0, encoded: bytes | None = None) -> DecodedImage:
    image = PIL.Image.new("RGB", (8, 6), (shade, 10, 20))
    return DecodedImage(image, f"picture-{shade}", encoded, "image/jpeg" if encoded else "image/png")


def settings(*servers: FaultyProxy | str, **options: Any) -> EndpointSettings:
    """Settings with short pauses: a thousandth of a second instead of half a second."""
    urls = tuple(server if isinstance(server, str) else server.url for server in servers)
    return EndpointSettings(
        urls, **{"backoff_s": 0.001, "pause_s": 0.02, "give_up_s": 5.0, "timeout_s": 5.0, "hedge_s": 0.2, **options}
    )


def run(chosen: EndpointSettings, work: Callable[[EndpointEngine], Any]) -> Any:
    """Start an engine, await `work(engine)`, close it."""

    async def body() -> Any:
        engine = EndpointEngine(chosen, jitter=lambda: 0.0)
        try:
            await engine.start()
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(body())


def ask(chosen: EndpointSettings, requests: Sequence[Request] = (LIST,), shade: int = 0) -> list[Response]:
    responses: list[Response] = run(chosen, lambda engine: ask_all(engine, picture(shade), requests))
    return responses


async def one_by_one(engine: EndpointEngine, requests: Sequence[Request]) -> list[Response]:
    """Ask each request when the one before is answered."""
    return [(await ask_all(engine, picture(), [request]))[0] for request in requests]


def echo(question: Any) -> dict[str, Any]:
    """Respond with the question's own text, and log-probabilities where they are asked for."""
    content = question["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    return completion(f"echo {text}", {"yes": -0.1, "no": -2.5} if question.get("logprobs") else None)
