"""Asking until answers are complete: an answer that was cut off is asked for again with a larger max_tokens."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from tagllm_cli.engines.base import REFUSED_KINDS, Engine, Usage
from tagllm_cli.records import DecodedImage, Failure, Request, Response

# Of one attempt after the other, as multiples of the request's `max_tokens`.
MAX_TOKENS_FACTORS = (1, 2, 4)
TRUNCATED = "truncated"


async def ask_until_complete(
    engine: Engine, image: DecodedImage | None, requests: Sequence[Request]
) -> AsyncGenerator[tuple[Request, Response]]:
    """Yield each of `requests` with its response, as `Engine.ask` does; a truncated answer is asked again, twice.

    Decoding is greedy, so the longer answer extends the shorter one: it belongs to the request as it was given. What is
    cut off even with four times the tokens is a failure of kind `truncated`, with the text that there is. The tokens
    are those of all attempts.
    Raises what `Engine.ask` raises.
    """
    waiting = list(requests)
    earlier: dict[Request, Usage] = {}
    for factor in MAX_TOKENS_FACTORS:
        asked = {replace(request, max_tokens=factor * request.max_tokens): request for request in waiting}
        waiting = []
        async with aclosing(engine.ask(image, list(asked))) as responses:
            async for attempt, response in responses:
                request = asked[attempt]
                response = _with_tokens(response, earlier.get(request))
                if not is_truncated(request, response):
                    yield request, _within(request, factor, response)
                elif factor == MAX_TOKENS_FACTORS[-1]:
                    message = f"the answer was cut off after {attempt.max_tokens:,} tokens"
                    yield request, replace(response, failure=Failure(TRUNCATED, message))
                else:
                    waiting.append(request)
                    earlier[request] = Usage().plus(response)
        if not waiting:
            return


def is_truncated(request: Request, response: Response) -> bool:
    """Return whether the model had more to say than `max_tokens`; one token is all that a yes/no request asks for."""
    return response.failure is None and response.finish == "length" and not request.top_logprobs


def _with_tokens(response: Response, earlier: Usage | None) -> Response:
    """Add the tokens of earlier attempts: they were computed, too."""
    if earlier is None:
        return response
    return replace(
        response,
        prompt_tokens=response.prompt_tokens + earlier.prompt_tokens,
        cached_tokens=response.cached_tokens + earlier.cached_tokens,
        output_tokens=response.output_tokens + earlier.output_tokens,
    )


def _within(request: Request, factor: int, response: Response) -> Response:
    """Say of a request that is refused only with a larger max_tokens that its answer was cut off."""
    if factor == 1 or response.failure is None or response.failure.kind not in REFUSED_KINDS:
        return response
    cut = f"the answer was cut off after {request.max_tokens * factor // 2:,} tokens, and more were refused"
    return replace(response, failure=Failure(TRUNCATED, f"{cut}: {response.failure.message}"))
