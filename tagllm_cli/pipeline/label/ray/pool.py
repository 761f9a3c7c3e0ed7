"""The driver's side: stands where a `Worker` does, and lets many on a Ray cluster do the work.

    work -> blocks -> workers (Ray actors) -> batches of what happened -> the scheduler's own host methods

What the host is told is what a worker here would have told it, so the evidence is the same. Each worker has blocks for
twice what its engine takes at a time. A worker that dies is replaced by a new one, on another machine if need be.

Ray's actors and streaming generators, not Ray Data: a dataset wants all images before it starts, repeats a block that
dies for ever, and delivers what a repeated generator yields by its number, so that answers in another order are lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import tagllm_cli
from tagllm_cli.engines.base import Engine
from tagllm_cli.engines.local.process import in_daemon_thread
from tagllm_cli.errors import EngineDiedError
from tagllm_cli.labeling.stage import Stage
from tagllm_cli.pipeline.label.concurrency import first
from tagllm_cli.pipeline.label.ray.blocks import MOST_DEATHS, Blocks
from tagllm_cli.pipeline.label.ray.cluster import Cluster, WorkerDied
from tagllm_cli.pipeline.label.ray.replay import Replay
from tagllm_cli.pipeline.label.ray.serving import Engines, Serving
from tagllm_cli.pipeline.label.ray.wire import Setup
from tagllm_cli.pipeline.label.reads import Work
from tagllm_cli.pipeline.label.worker import DRAIN_SECONDS, Host, Settings
from tagllm_cli.records import Failure
from tagllm_cli.sources.base import ReadFailure, Source, read_or_failure

# Deaths of workers while nothing was finished: the machines or the model are the reason, not the images.
MOST_DEATHS_IN_A_ROW = 12  # and one more per worker
MOST_DEATHS_AT_START = 3  # of one worker and its successors
RESTART_SECONDS = 0.5
CLOSE_SECONDS = 10.0

logger = logging.getLogger(__name__)


class RayWorkers:
    """All workers of a run as one. `stop`, `leave`, `error` and `has_left` are those of `Worker`."""

    def __init__(
        self,
        cluster: Cluster,
        stages: Sequence[Stage],
        source: Source,
        engine: Callable[[], Engine],
        settings: Settings,
        host: Host,
        starting: Callable[[], None] = lambda: None,
    ) -> None:
        self._cluster, self._stages, self._source, self._host = cluster, stages, source, host
        self._setup = Setup(tagllm_cli.__version__, stages, source.describe(), engine, settings, None)
        self._starting = starting
        self.stop = asyncio.Event()
        self.error: Exception | None = None
        self.has_left = False
        self.engine = Engines()
        self._blocks = Blocks(host.admitted)
        self._shared: object = None  # the setup, as workers get it
        self._replay = Replay(host, stages, self.engine, self._blocks.ended)
        self._deaths = self._finished = 0  # deaths since an image was finished

    def fail(self, error: Exception) -> None:
        """End the work because of an error."""
        if not self.stop.is_set():
            self.error = error
            self.stop.set()

    def leave(self) -> None:
        """Begin with no other block."""
        self._blocks.is_closed = True
        self._blocks.look_again()

    async def run(self, work: Iterator[Work]) -> None:
        """Take everything that `work` yields to its end, or until `stop`."""
        self._blocks.begin(work)
        self._starting()
        probing = asyncio.ensure_future(self._find_probe())
        await first(probing, self.stop.wait())
        if not probing.done():
            probing.cancel()
            return
        if (error := probing.exception()) is not None:
            self.fail(error if isinstance(error, Exception) else RuntimeError(str(error)))
            return
        serving = [asyncio.create_task(self._keep()) for _ in range(self._cluster.workers)]
        try:
            await first(self._blocks.wait(), self.stop.wait())
            running = [each for each in self.engine.serving if each.node]
            if self.stop.is_set() and self.error is None:
                for each in running:
                    each.remote.stop()
            if (tasks := [each.task for each in running if each.task is not None]) and self.error is None:
                await asyncio.wait(tasks, timeout=DRAIN_SECONDS + 1 if self.stop.is_set() else CLOSE_SECONDS)
        finally:
            self.has_left |= not (self._blocks.is_done and self._replay.is_whole)
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

    async def close(self) -> float:
        """End the workers and the connection; return for how many seconds an engine was ready."""
        seconds = self.engine.seconds
        await asyncio.to_thread(self._cluster.close)
        return seconds

    async def _keep(self) -> None:
        """Have one worker, and a new one when it dies, until all is done."""
        deaths = 0  # before the engine was ready
        while not self.stop.is_set():
            serving = Serving(self._cluster.worker(self._shared), task=asyncio.current_task())
            self.engine.serving.append(serving)
            try:
                await self._listen(serving)
                return
            except WorkerDied as death:
                deaths = 0 if serving.capacity else deaths + 1
                self._bury(serving, death, deaths)
            except Exception as error:
                self.fail(error)
                return
            finally:
                self.engine.serving.remove(serving)
                serving.remote.kill()
            await asyncio.sleep(RESTART_SECONDS)

    async def _find_probe(self) -> None:
        """Choose an image that can be read here: a worker that cannot read it does not see the images."""
        image = await self._blocks.first()
        setup = self._setup
        if image is not None:
            data = await in_daemon_thread(lambda: read_or_failure(self._source, image))
            setup = setup if isinstance(data, ReadFailure) else replace(setup, probe=image)
        self._shared = self._cluster.share(setup)

    async def _feed(self, serving: Serving) -> None:
        """Keep a worker supplied until there is nothing more."""
        piece = None
        try:
            while piece := await self._blocks.next(serving.has_room, serving.is_free):
                allowance = None
                if piece.requests is not None:
                    allowance = await self._host.may_ask(0, piece.requests)
                    if not allowance and piece.requests:
                        break
                serving.remote.take(self._replay.block(piece, allowance))
                serving.pieces[piece.number] = piece
                piece = None
            serving.remote.leave()
        except Exception as error:
            self.fail(error)
        finally:
            if piece is not None:
                self._blocks.give_back(piece)

    async def _listen(self, serving: Serving) -> None:
        """Tell the host what happens at a worker, until it has ended."""
        feeding = None
        try:
            async for batch in serving.remote.batches():
                serving.node = batch.node
                serving.questions += batch.questions
                for event in batch.events:
                    await self._replay.tell(serving, event)
                feeding = feeding or asyncio.create_task(self._feed(serving))
                self._blocks.look_again()
        finally:
            if feeding is not None:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
        if serving.pieces and not self.stop.is_set():
            raise WorkerDied("it ended early")

    def _bury(self, serving: Serving, death: WorkerDied, deaths_at_start: int) -> None:
        """Have the images of a dead worker tried again; raises nothing, but may end the run."""
        if self.stop.is_set():
            return
        logger.warning("a worker on %s died: %s", serving.node or "Ray", death)
        for piece in serving.pieces.values():
            self._replay.forget(piece)
        if self._replay.finished > self._finished:
            self._finished, self._deaths = self._replay.finished, 0
        self._deaths += 1
        if deaths_at_start >= MOST_DEATHS_AT_START:
            self.fail(EngineDiedError(f"a worker on Ray dies whenever it starts: {death}", _LOGS))
        elif self._deaths >= MOST_DEATHS_IN_A_ROW + self._cluster.workers:
            self.fail(EngineDiedError(f"{self._deaths} workers on Ray died one after the other: {death}", _LOGS))
        else:
            self._try_again(serving)

    def _try_again(self, serving: Serving) -> None:
        failure = Failure("worker_died", f"{MOST_DEATHS} workers died while they labeled it")
        try:
            for image in self._blocks.died(list(serving.pieces.values()), blames=bool(serving.capacity)):
                self._replay.given_up(image, failure)
                self._deaths = 0
        except Exception as error:
            self.fail(error)


_LOGS = "The logs of Ray tell more: its dashboard, or /tmp/ray/session_latest/logs on the machine."
