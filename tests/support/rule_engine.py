"""Synthetic engine for tests: responses are a pure function of image and request; pauses and failures are set."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from tagllm_cli.engines.base import Usage, check_decoded_image, check_response
from tagllm_cli.records import DecodedImage, Failure, Request, Response


def _bits(*parts: str) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), "little")


def answer(picture: DecodedImage | None, request: Request) -> Response:
    """Answer a list question with some of its names, and a yes/no question with some probability."""
    uuid = picture.uuid if picture else ""
    listed = re.search(r"Categories: (.*)$", f"{request.system}\n{request.text}", re.MULTILINE)
    if listed:
        names = [name for name in listed.group(1).split(", ") if _bits(uuid, name) % 4 == 0]
        return Response(", ".join(names) or "none", prompt_tokens=60, output_tokens=5)
    yes = (_bits(uuid, request.text) % 1000) / 1000
    logprobs = {
        "yes": math.log(max(yes * 0.98, 1e-9)),
        "no": math.log(max((1 - yes) * 0.98, 1e-9)),
        "maybe": math.log(0.02),
    }
    return Response("yes" if yes > 0.5 else "no", first_logprobs=logprobs, prompt_tokens=60, output_tokens=1)


@dataclass
class RuleEngine:
    """Responses come one by one, `pause` seconds apart, `delay` seconds after `ask`; `fault` makes one a failure.

    Every response is a turn of the event loop of its own, also without a pause. `asked` has a pair of image uuid and
    request text for each request that was reached.
    """

    delay: float = 0.0
    pause: float = 0.0
    capacity: int = 64
    version: str = "rules"
    gpus: int | None = None
    trouble: str | None = None
    answer: Callable[[DecodedImage | None, Request], Response] = answer
    fault: Callable[[DecodedImage | None, Request], Failure | None] = lambda picture, request: None
    asked: list[tuple[str, str]] = field(default_factory=list)
    started: int = 0
    closed: int = 0
    _usage: Usage = field(default_factory=Usage)

    async def start(self) -> None:
        self.started += 1

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        check_decoded_image(picture, requests)
        if self.delay:
            await asyncio.sleep(self.delay)
        for request in requests:
            await asyncio.sleep(self.pause)
            self.asked.append((picture.uuid if picture else "", request.text))
            failure = self.fault(picture, request)
            response = Response(failure=failure) if failure else check_response(request, self.answer(picture, request))
            self._usage = self._usage.plus(response)
            yield request, response

    def usage(self) -> Usage:
        return self._usage

    async def close(self) -> None:
        self.closed += 1
