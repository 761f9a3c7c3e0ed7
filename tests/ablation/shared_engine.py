"""One engine for all the jobs of the ablation: it starts with the first question and stays up between them.

Every job runs an event loop of its own, and vLLM belongs to the loop that started it: so the engine lives in a thread
with a loop that lasts, and what a job holds is a guest. Before each job the engine forgets what earlier ones left in
its caches, so that each pays for its own tokens and pictures.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import PIL.Image

from tagllm_cli.engines.base import Engine, Usage, ask_all
from tagllm_cli.engines.local.engine import EngineSettings, InProcessEngine
from tagllm_cli.records import DecodedImage, Request, Response

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, None]]

_WARM_UP = tuple(Request("", f"Is the number {number} visible?", max_tokens=8, top_logprobs=20) for number in range(64))


class SharedEngine:
    """Keeps `engine` in a thread. Call `close` at the end.

    `warm_up` is run once, after the start; `forget`, which empties the engine's caches, before every job.
    """

    def __init__(self, engine: Engine, warm_up: Work, forget: Work) -> None:
        self.engine = engine
        self._warm_up, self._forget = warm_up, forget
        self._is_up = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="shared-engine", daemon=True)
        self._thread.start()

    def guest(self) -> Engine:
        """Return an engine for one job."""
        return Guest(self)

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

    def close(self) -> None:
        """End the engine and its thread."""
        asyncio.run_coroutine_threadsafe(self.engine.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Guest:
    """The shared engine as one job sees it: started and closed without effect, with counters of its own."""

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

    async def start(self) -> None:
        """See that the engine is up and remembers nothing."""
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
        """Leave the engine to the next guest."""


def vllm_engine(model: Path, log_file: Path) -> SharedEngine:
    """Return in-process vLLM on a model folder as every user gets it by default, not started."""
    engine = InProcessEngine(EngineSettings(str(model), log_file=log_file))

    async def warm_up() -> None:
        # The first batches compile and fill pools: no cell is to pay for that.
        await ask_all(engine, DecodedImage(PIL.Image.new("RGB", (224, 224)), "warm-up"), _WARM_UP)

    async def forget() -> None:
        llm: Any = engine._llm  # no user needs a cold cache, so the engine offers none
        if not await llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept its prefix cache: requests of the last job are still running")
        await llm.reset_mm_cache()
        await llm.reset_encoder_cache()

    return SharedEngine(engine, warm_up, forget)
