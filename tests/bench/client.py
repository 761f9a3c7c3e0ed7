"""What a request to a server costs this process, and whether several servers are kept busy."""

from __future__ import annotations

import argparse
import asyncio
import io
import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import PIL.Image

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.http.engine import EndpointEngine, EndpointSettings
from tagllm_cli.records import DecodedImage, Request
from tests.support.canned_server import canned_server

SIDE = 64
QUESTIONS = [Request("You label images.", f"Is {name} visible?", max_tokens=1, top_logprobs=20) for name in "abcd"]
REQUESTS = 12_000
SERVERS, DELAY_S, SLOTS = 4, 0.3, 64

Say = Callable[[str, str, str, bool], None]


class Found(NamedTuple):
    """Requests per second, milliseconds of processor time per request, and the mean share of slots in use."""

    per_second: float
    cpu_ms: float
    busy: float


def client(chosen: argparse.Namespace, say: Say) -> None:
    """(6) requests per second of one core, and processor time of each; (7) share of slots in use of slow servers."""
    with canned_server() as url:
        found = asyncio.run(_drive([url], REQUESTS))
    # Of this process's time: the server beside it, and other programs, take theirs.
    per_core = 1000 / found.cpu_ms
    what = f"(6) client: requests/s per core ({SIDE}x{SIDE} pixels; {found.per_second:,.0f}/s beside the server)"
    say(what, f"{per_core:,.0f}", ">= 1,000", per_core >= 1000)
    say("(6) client: ms of processor time per request", f"{found.cpu_ms:.2f}", "<= 1", found.cpu_ms <= 1)
    with ExitStack() as stack:
        urls = [stack.enter_context(canned_server(DELAY_S, "vllm")) for _ in range(SERVERS)]
        found = asyncio.run(_drive(urls, REQUESTS))
    what = f"(7) {SERVERS} servers of {DELAY_S:g} s per answer: share of slots in use"
    say(what, f"{found.busy:.2f}", ">= 0.9", found.busy >= 0.9)


async def _drive(urls: list[str], requests: int) -> Found:
    engine = EndpointEngine(EndpointSettings(tuple(urls), concurrency=SLOTS))
    await engine.start()
    try:
        files = [_picture(seed) for seed in range(100)]
        numbers = iter(range(requests // len(QUESTIONS)))

        async def images() -> None:
            for number in numbers:
                pixels, data = files[number % len(files)]
                responses = await ask_all(engine, DecodedImage(pixels, f"image-{number}", data), QUESTIONS)
                assert all(response.failure is None for response in responses)

        busy: list[float] = []
        watching = asyncio.create_task(_watch(engine, busy))
        cpu, began = _cpu_seconds(), time.monotonic()
        await asyncio.gather(*(images() for _ in range(engine.capacity // len(QUESTIONS))))
        cpu, seconds = _cpu_seconds() - cpu, time.monotonic() - began
        watching.cancel()
        middle = busy[len(busy) // 10 : -max(1, len(busy) // 10)]  # neither the start nor the end
        return Found(requests / seconds, 1000 * cpu / requests, float(np.mean(middle or [0.0])))
    finally:
        await engine.close()


async def _watch(engine: EndpointEngine, busy: list[float]) -> None:
    """Note the share of the slots that are in use, again and again."""
    servers = engine._pool.servers
    while True:
        await asyncio.sleep(0.02)
        busy.append(sum(server.slots.used for server in servers) / (SLOTS * len(servers)))


def _picture(seed: int) -> tuple[PIL.Image.Image, bytes]:
    pixels = PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG")
    return pixels, buffer.getvalue()


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
