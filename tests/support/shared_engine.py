"""One engine for several jobs: started with the first request, kept up between jobs.

Every job runs its own event loop, and vLLM belongs to the loop that started it: the engine runs in a thread with a loop
that lasts, and each job gets a handle to it. `forget` can empty the engine's caches before each job, so that each job
computes its own tokens.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from tagllm_cli.engines.base import Engine, Usage, ask_all
from tagllm_cli.records import DecodedImage, Request, Response

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, None]]


async def _nothing() -> None:
    pass


class SharedEngine:
    """Runs `engine` in a thread until `close`.

    Args:
        engine: not started.
        warm_up: run once, after the start.
        forget: run before every job.
    """

    def __init__(self, engine: Engine, warm_up: Work = _nothing, forget: Work = _nothing) -> None:
        self.engine = engine
        self._warm_up, self._forget = warm_up, forget
        self._is_up = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="shared-engine", daemon=True)
        self._thread.start()

    def handle(self) -> Engine:
        """Return the engine for one job: starting and closing it does not affect the shared one."""
        return EngineHandle(self)

    async def prepare(self) -> None:
        """Start the engine if it is not up, and let it forget."""
        if not self._is_up:
            await self.call(self.engine.start())
            await self.call(self._warm_up())
            self._is_up = True
        await self.call(self._forget())

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the engine's loop; cancelling this cancels that."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the engine's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """End the engine and its thread."""
        self.run(self.engine.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class EngineHandle:
    """The shared engine as one job sees it, with its own usage."""

    def __init__(self, host: SharedEngine) -> None:
        self._host = host
        self._usage = Usage()

    @property
    def version(self) -> str:
        """The shared engine's version."""
        return self._host.engine.version

    @property
    def capacity(self) -> int:
        """Requests that the shared engine wants in flight."""
        return self._host.engine.capacity

    @property
    def gpus(self) -> int | None:
        """The shared engine's GPUs."""
        return self._host.engine.gpus

    @property
    def trouble(self) -> str | None:
        """The shared engine's trouble."""
        return self._host.engine.trouble

    async def start(self) -> None:
        """Start the shared engine if necessary and empty its caches."""
        await self._host.prepare()

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        """Ask the shared engine."""
        responses = await self._host.call(ask_all(self._host.engine, picture, requests))
        for request, response in zip(requests, responses, strict=True):
            self._usage = self._usage.plus(response)
            yield request, response

    def usage(self) -> Usage:
        """Return tokens and requests of this job alone."""
        return self._usage

    async def close(self) -> None:
        """Keep the shared engine running."""
