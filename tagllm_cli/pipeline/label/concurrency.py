"""Async helpers of the scheduler: admission by requests and bytes, waiting for the first of several, signals."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


class RequestLimiter:
    """Admission by requests in flight and by bytes of images held for them.

    One image is always admitted, whatever it takes. `requests` and `max_bytes` are the limits, `held_bytes` is what is
    admitted now.
    """

    def __init__(self, requests: int = 0, max_bytes: float = float("inf")) -> None:
        self._max_requests, self._max_bytes = requests, max_bytes
        self._requests = 0
        self.held_bytes = 0
        self._changed = asyncio.Event()

    async def acquire(self, requests: int, bytes_: int) -> None:
        """Wait until this many more requests and bytes are within the limits, and take them."""
        while self._requests and (
            self._requests + requests > self._max_requests or self.held_bytes + bytes_ > self._max_bytes
        ):
            self._changed.clear()
            await self._changed.wait()
        self._requests += requests
        self.held_bytes += bytes_

    def release(self, requests: int, bytes_: int) -> None:
        """Give back what was acquired, or a part of it; negative bytes take more without waiting."""
        self._requests -= requests
        self.held_bytes -= bytes_
        self._changed.set()

    def set_limit(self, requests: int) -> None:
        """Set another limit on requests, also for those that wait already."""
        self._max_requests = requests
        self._changed.set()


@contextmanager
def signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM call `stop`; a second one has its effect from before.

    A signal that is ignored stays so (`nohup`, `&` in a script). Only the main thread receives signals: in any other
    one (a notebook's, a worker's) nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

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
