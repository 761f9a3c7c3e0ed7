"""A synthetic engine for tests: answers are a pure function of picture and question, speed and faults are set."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tagllm_cli.engines.base import Counters
from tagllm_cli.records import Failure, Picture, Reply, Request


def _bits(*parts: str) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), "little")


def answer(picture: Picture | None, request: Request) -> Reply:
    """Answer a list question with some of its names, and a yes/no question with some probability."""
    uuid = picture.uuid if picture else ""
    listed = re.search(r"Categories: (.*)$", request.text)
    if listed:
        names = [name for name in listed.group(1).split(", ") if _bits(uuid, name) % 4 == 0]
        return Reply(", ".join(names) or "none", prompt_tokens=60, output_tokens=5)
    yes = (_bits(uuid, request.text) % 1000) / 1000
    logprobs = {
        "yes": math.log(max(yes * 0.98, 1e-9)),
        "no": math.log(max((1 - yes) * 0.98, 1e-9)),
        "maybe": math.log(0.02),
    }
    return Reply("yes" if yes > 0.5 else "no", first_logprobs=logprobs, prompt_tokens=60, output_tokens=1)


@dataclass
class RuleEngine:
    """`delay` is seconds per image; `fault` may turn an answer into a failure."""

    delay: float = 0.0
    capacity: int = 64
    version: str = "rules"
    answer: Callable[[Picture | None, Request], Reply] = answer
    fault: Callable[[Picture | None, Request], Failure | None] = lambda picture, request: None
    asked: list[tuple[str, str]] = field(default_factory=list)
    started: int = 0
    closed: int = 0
    _counters: Counters = field(default_factory=Counters)

    async def start(self) -> None:
        self.started += 1

    async def ask(self, picture: Picture | None, requests: Sequence[Request]) -> list[Reply]:
        if self.delay:
            await asyncio.sleep(self.delay)
        replies = []
        for request in requests:
            self.asked.append((picture.uuid if picture else "", request.text))
            failure = self.fault(picture, request)
            reply = Reply(failure=failure) if failure else self.answer(picture, request)
            self._counters = self._counters.plus(reply)
            replies.append(reply)
        return replies

    def counters(self) -> Counters:
        return self._counters

    async def close(self) -> None:
        self.closed += 1
