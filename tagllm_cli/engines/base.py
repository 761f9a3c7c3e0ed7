"""The `Engine` protocol, and what all engines share: usage counters, the check of a response, log-probabilities.

An engine takes an image and all requests about it together: they share the image as their prefix, which is computed
once. Only `InProcessEngine.start` imports vLLM and torch.
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
from tagllm_cli.records import DecodedImage, Failure, Request, Response

# Hybrid models would otherwise spend the tokens of an answer on reasoning; other templates ignore this.
_CHAT_TEMPLATE_KWARGS: Mapping[str, Any] = {"enable_thinking": False}

_TOO_LONG = re.compile(r"max\w*.{0,20}(context|model|length|len)|context (length|window)|too long", re.IGNORECASE)
_LEAST_LOGPROB = -9999.0  # for minus infinity, which JSON lacks; vLLM's server does the same

# What `failure_kind` returns: the request was refused, and nothing was asked.
REFUSED_KINDS = ("too_long", "rejected")

_NO_LOGPROBS = Failure("no_logprobs", "the answer has no log-probabilities, from which yes or no is decided")
# Finish reasons that leave no answer, with the failure's kind and message.
_NO_ANSWER: Mapping[str, tuple[str, str]] = {
    "content_filter": ("filtered", "the content filter stopped the answer"),
    "tool_calls": ("tool_call", "the model called a tool instead of answering; serve it without tools"),
    "function_call": ("tool_call", "the model called a function instead of answering; serve it without tools"),
    "error": ("engine_error", "the engine ended the request with an error"),
    "abort": ("engine_error", "the engine aborted the request"),
}


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and answered requests since `start`; `cached_tokens` of `prompt_tokens` came from the prefix cache."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0

    @property
    def computed_tokens(self) -> int:
        """Tokens that were not in the cache."""
        return self.prompt_tokens - self.cached_tokens + self.output_tokens

    def plus(self, response: Response) -> Usage:
        """Return the counters with one more response; of a failed one, only the tokens that it took are counted."""
        return self.add(
            Usage(response.prompt_tokens, response.cached_tokens, response.output_tokens, int(response.failure is None))
        )

    def add(self, other: Usage) -> Usage:
        """Return the sums of both."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.requests + other.requests,
        )


class Engine(Protocol):
    """Requests in, responses out. One event loop uses it, from `start` to `close`."""

    @property
    def version(self) -> str:
        """Engine and version for the run record: `vllm 0.32.0`, `endpoint`, `replay`; final after `start`."""
        ...

    @property
    def capacity(self) -> int:
        """Number of requests to keep in flight; known after `start`."""
        ...

    @property
    def gpus(self) -> int | None:
        """How many GPUs compute, known after `start`; a machine without any counts as one, None: nobody knows."""
        ...

    @property
    def trouble(self) -> str | None:
        """What keeps requests from being answered at the moment, in one line; None: nothing. Also during `start`."""
        ...

    async def start(self) -> None:
        """Load the model or reach the servers. Raises ModelError or EndpointError."""
        ...

    def ask(
        self, decoded_image: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        """Yield each request with its response as it arrives, in any order; `Response.failure` tells a failed one.

        A response without an answer (see `check_response`) is a failed one. Close the generator
        (`contextlib.aclosing`) to cancel what is still in flight.

        Raises:
            EngineDiedError, EndpointError: nothing more can be asked.
            ValueError: a request is about an image, and `decoded_image` is None.
        """
        ...

    def usage(self) -> Usage:
        """Return tokens and answered requests since `start`."""
        ...

    async def close(self) -> None:
        """Release everything; safe to call twice, and after a failed `start`."""
        ...


class ForwardingEngine:
    """An engine that leaves everything to another one; a subclass changes what it has to."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def version(self) -> str:
        """The version of the other engine."""
        return self._engine.version

    @property
    def capacity(self) -> int:
        """The capacity of the other engine."""
        return self._engine.capacity

    @property
    def gpus(self) -> int | None:
        """The GPUs of the other engine."""
        return self._engine.gpus

    @property
    def trouble(self) -> str | None:
        """The trouble of the other engine."""
        return self._engine.trouble

    async def start(self) -> None:
        """Start the other engine."""
        await self._engine.start()

    def ask(
        self, decoded_image: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        """Return what the other engine yields."""
        return self._engine.ask(decoded_image, requests)

    def usage(self) -> Usage:
        """Return the counters of the other engine."""
        return self._engine.usage()

    async def close(self) -> None:
        """Close the other engine."""
        await self._engine.close()


def template_kwargs(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables for a chat template: reasoning is off unless `given` says otherwise."""
    return {**_CHAT_TEMPLATE_KWARGS, **given}


async def ask_all(engine: Engine, decoded_image: DecodedImage | None, requests: Sequence[Request]) -> list[Response]:
    """Return one response per request, in the order of the requests. Raises what `Engine.ask` raises."""
    async with aclosing(engine.ask(decoded_image, requests)) as answered:
        responses = {request: response async for request, response in answered}
    return [responses[request] for request in requests]


async def as_answered(
    asked: Iterable[tuple[Request, Coroutine[Any, Any, Response]]],
) -> AsyncGenerator[tuple[Request, Response]]:
    """Run one coroutine per request concurrently and yield (request, response) as each ends.

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
    """Raise ValueError if a request is about an image and there is none: a model would answer without looking."""
    if decoded_image is None and any(request.with_image for request in requests):
        raise ValueError("a request about an image was asked without one")


def check_response(request: Request, response: Response) -> Response:
    """Return the response, or a failure of the right kind where it holds no answer to the request.

    A request for log-probabilities is answered by them, whatever the text; any other by a text that is not blank.

    >>> check_response(Request("", "Which labels?"), Response(" ", "stop")).failure.kind
    'empty_answer'
    """
    if response.failure is not None:
        return response
    if response.finish in _NO_ANSWER:
        return Response(failure=Failure(*_NO_ANSWER[response.finish]))
    if request.top_logprobs:
        if not response.first_logprobs or any(map(math.isnan, response.first_logprobs.values())):
            return Response(failure=_NO_LOGPROBS)
    elif not response.text.strip():
        return Response(failure=Failure("empty_answer", f"the answer is empty (finish reason {response.finish})"))
    return response


def merge_logprobs(entries: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return log-probabilities by token text; tokens of the same text are summed as probabilities, NaN stays NaN.

    >>> merged = merge_logprobs([("yes", math.log(0.5)), ("yes", math.log(0.25)), ("no", -math.inf)])
    >>> round(math.exp(merged["yes"]), 3), merged["no"]
    (0.75, -9999.0)
    """
    merged: dict[str, float] = {}
    for text, value in entries:
        value = max(value, _LEAST_LOGPROB)
        known = merged.get(text)
        if known is not None and not math.isnan(value):
            high, low = max(known, value), min(known, value)
            value = high + math.log1p(math.exp(low - high))
        merged[text] = value
    return merged


def failure_kind(message: str) -> str:
    """Return the kind of a refused request: `too_long` where the message is about the context, else `rejected`.

    >>> failure_kind("This model's maximum context length is 8192 tokens."), failure_kind("bad image")
    ('too_long', 'rejected')
    """
    return "too_long" if _TOO_LONG.search(message) else "rejected"
