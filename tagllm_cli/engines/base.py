"""One protocol, three ways to get an answer: in-process vLLM, OpenAI-compatible endpoints, recorded answers.

An engine takes a picture and everything that is asked about it, together: the requests share the image as their prefix.
Nothing heavy is imported here; vLLM and torch are loaded by `InProcessEngine.start` alone.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from tagllm_cli.errors import EngineDiedError as EngineDiedError  # what `ask` raises
from tagllm_cli.records import DecodedImage, Request, Response

# Hybrid models would otherwise spend an answer's tokens on thinking aloud; other templates ignore this.
CHAT_TEMPLATE_KWARGS: Mapping[str, Any] = {"enable_thinking": False}

_TOO_LONG = re.compile(r"max\w*.{0,20}(context|model|length|len)|context (length|window)|too long", re.IGNORECASE)
_LEAST_LOGPROB = -9999.0  # for minus infinity, which JSON cannot say; vLLM's server does the same


@dataclass(frozen=True, slots=True)
class Usage:
    """What an engine has done since `start`: tokens and answered requests.

    `cached_tokens` is the part of `prompt_tokens` that came from the engine's prefix cache.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0

    def plus(self, response: Response) -> Usage:
        """Return these counters with one more reply; a failed one brings no tokens and is not counted."""
        if response.failure is not None:
            return self
        return Usage(
            self.prompt_tokens + response.prompt_tokens,
            self.cached_tokens + response.cached_tokens,
            self.output_tokens + response.output_tokens,
            self.requests + 1,
        )


class Engine(Protocol):
    """What the runner needs from an engine. One event loop uses it, from `start` to `close`."""

    @property
    def version(self) -> str:
        """Which engine this is, for the run report: `vllm 0.32.0`, `endpoint`, `replay`."""
        ...

    @property
    def capacity(self) -> int:
        """How many requests it wants in flight; known after `start`."""
        ...

    async def start(self) -> None:
        """Load the model or reach the servers; raises ModelError or EndpointError."""
        ...

    def ask(
        self, decoded_image: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        """Yield each request with its response as it arrives; a request that fails alone has a `Response.failure`.

        Close the generator (`contextlib.aclosing`) to cancel what is still in flight.

        Raises:
            EngineDiedError, EndpointError: nothing more can be asked.
            ValueError: a request wants an image and `picture` is None.
        """
        ...

    def usage(self) -> Usage:
        """Return tokens and requests since `start`."""
        ...

    async def close(self) -> None:
        """End everything that was started; safe to call twice, and after a failed `start`."""
        ...


async def ask_all(engine: Engine, decoded_image: DecodedImage | None, requests: Sequence[Request]) -> list[Response]:
    """Return one response per request, in order, when all have arrived. Raises what `Engine.ask` raises."""
    async with aclosing(engine.ask(decoded_image, requests)) as answered:
        responses = {request: response async for request, response in answered}
    return [responses[request] for request in requests]


async def as_answered(
    asked: Iterable[tuple[Request, Coroutine[Any, Any, Response]]],
) -> AsyncGenerator[tuple[Request, Response]]:
    """Run one coroutine per request at once and yield (request, response) as each ends.

    When one raises, those that have ended are yielded first, then the error is raised and the others are cancelled.
    """
    tasks = {asyncio.ensure_future(answer): request for request, answer in asked}
    waiting = set(tasks)
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: task.exception() is not None):
                yield tasks[task], task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def check_decoded_image(decoded_image: DecodedImage | None, requests: Sequence[Request]) -> None:
    """Raise ValueError if a request is about an image and there is none: the model would answer all the same."""
    if decoded_image is None and any(request.with_image for request in requests):
        raise ValueError("a request about an image was asked without one")


def merge_logprobs(entries: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return log-probabilities by token text; different tokens of the same text are summed, as probabilities.

    >>> merged = merge_logprobs([("yes", math.log(0.5)), ("yes", math.log(0.25)), ("no", -math.inf)])
    >>> round(math.exp(merged["yes"]), 3), merged["no"]
    (0.75, -9999.0)
    """
    merged: dict[str, float] = {}
    for text, value in entries:
        value = max(value, _LEAST_LOGPROB)
        known = merged.get(text)
        if known is not None:
            high, low = max(known, value), min(known, value)
            value = high + math.log1p(math.exp(low - high))
        merged[text] = value
    return merged


def failure_kind(message: str) -> str:
    """Return the kind of one request's failure: `too_long` when the message is about the context, else `rejected`.

    >>> failure_kind("This model's maximum context length is 8192 tokens."), failure_kind("bad image")
    ('too_long', 'rejected')
    """
    return "too_long" if _TOO_LONG.search(message) else "rejected"
