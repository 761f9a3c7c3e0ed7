"""What the streaming loop waits for: room, the first of several things, a signal that ends the run."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


class Room:
    """Admission by requests in flight: one image always fits, however many requests it has."""

    def __init__(self, limit: int = 0) -> None:
        self._limit = limit
        self._inside = 0
        self._left = asyncio.Event()

    async def enter(self, requests: int) -> None:
        """Wait until there is room."""
        while self._inside and self._inside + requests > self._limit:
            self._left.clear()
            await self._left.wait()
        self._inside += requests

    def leave(self, requests: int) -> None:
        """Make room for others."""
        self._inside -= requests
        self._left.set()

    def widen(self, limit: int) -> None:
        """Set another limit, for those who wait already too."""
        self._limit = limit
        self._left.set()


@contextmanager
def signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM call `stop`; a second one acts as it would without us."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle() -> None:
        stop()
        release()

    def release() -> None:
        for number, handler in before.items():
            if loop.remove_signal_handler(number):
                signal.signal(number, handler)

    for number in before:
        loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        release()


async def first(*awaitables: Awaitable[object]) -> None:
    """Wait until one of them is done; cancel the bare coroutines among the others."""
    futures = [asyncio.ensure_future(each) for each in awaitables]
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    for future, each in zip(futures, awaitables, strict=True):
        if future is not each and not future.done():
            future.cancel()
