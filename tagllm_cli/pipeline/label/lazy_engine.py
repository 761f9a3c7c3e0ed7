"""The life of a run's engine: started by the first image that needs it, ended with the run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from tagllm_cli.engines.base import Engine
from tagllm_cli.pipeline.label.concurrency import first

logger = logging.getLogger(__name__)


class LazyEngine:
    """An engine that may never have to start.

    Args:
        make: returns the engine, not started.
        stop: once set, a start under way is given up and no other one begins.
        starting: called before the engine starts.
        ready: called with the engine once it was started.
    """

    def __init__(
        self,
        make: Callable[[], Engine],
        stop: asyncio.Event,
        starting: Callable[[], None],
        ready: Callable[[Engine], None],
    ) -> None:
        self._make, self._stop, self._starting, self._ready = make, stop, starting, ready
        self._lock = asyncio.Lock()
        self._engine: Engine | None = None
        self._being_started: Engine | None = None
        self._since = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether the engine was started."""
        return self._engine is not None

    @property
    def trouble(self) -> str | None:
        """What keeps the engine from answering, also while it starts."""
        engine = self._engine or self._being_started
        return None if engine is None else engine.trouble

    async def started(self) -> Engine:
        """Return the engine, ready to be asked. Raises TagllmError where it cannot start."""
        async with self._lock:
            if self._engine is None:
                if self._stop.is_set():
                    raise asyncio.CancelledError
                self._engine = await self._start()
                self._since = time.monotonic()
                logger.info("engine ready: %s, up to %d requests", self._engine.version, self._engine.capacity)
                self._ready(self._engine)
            return self._engine

    async def _start(self) -> Engine:
        logger.info("engine starting")
        self._starting()
        self._being_started = engine = self._make()
        starting = asyncio.ensure_future(engine.start())
        try:
            await first(starting, self._stop.wait())
            starting.cancel()
            await starting
        except BaseException:
            await engine.close()
            raise
        return engine

    @property
    def seconds(self) -> float:
        """For how long the engine has been ready."""
        return 0.0 if self._engine is None else time.monotonic() - self._since

    async def close(self) -> float:
        """End the engine, if it was started; return for how many seconds it was ready."""
        seconds = self.seconds
        if self._engine is not None:
            await self._engine.close()
        return seconds
