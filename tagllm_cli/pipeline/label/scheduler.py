"""The run loop: it owns the evidence and keeps a worker supplied.

pending -> [worker: read, decode, ask] -> record as it arrives -> commit -> progress

The scheduler says what is to be read and asked, records what comes back, and ends the run where answers make no sense
or nearly all requests fail.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from tagllm_cli.engines.base import Engine, Usage
from tagllm_cli.errors import GOES_ON, StoppedRunError, TableError, TagllmError
from tagllm_cli.labeling.stage import Stage
from tagllm_cli.pipeline.label.budget import Budget
from tagllm_cli.pipeline.label.circuit_breaker import CircuitBreaker
from tagllm_cli.pipeline.label.concurrency import signals
from tagllm_cli.pipeline.label.pending import PendingImage, RequestKeys
from tagllm_cli.pipeline.label.ray.cluster import Cluster
from tagllm_cli.pipeline.label.ray.pool import RayWorkers
from tagllm_cli.pipeline.label.reads import ReadImage, Reads, ShardRead
from tagllm_cli.pipeline.label.recorder import COMMIT_RESPONSES, Recorder
from tagllm_cli.pipeline.label.sanity_check import SanityCheck
from tagllm_cli.pipeline.label.stats import RunStats
from tagllm_cli.pipeline.label.storage_watch import StorageWatch
from tagllm_cli.pipeline.label.worker import Settings, Worker
from tagllm_cli.pipeline.progress import RunProgress
from tagllm_cli.records import ImageInfo, Request, Response
from tagllm_cli.sources.base import Source
from tagllm_cli.store.evidence import Evidence

TROUBLE_SECONDS = 1.0
# After the budget is used up, what is under way gets this long to come to its end.
LEAVE_SECONDS = 60.0
_GO_ON_ANYWAY = f"{GOES_ON} --no-preflight lets a run go on all the same."

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class StageRun:
    """One stage during a run: where its answers go, and what was counted. `keys` are under its plan's context."""

    stage: Stage
    evidence: Evidence
    keys: RequestKeys
    stats: RunStats = field(default_factory=RunStats)
    usage: Usage = field(default_factory=Usage)


class Scheduler:
    """One run over the pending images of the first stage's evidence; the others are asked about what it proposes.

    Use `run()` once. `checks`: end the run when answers make no sense or nearly all requests fail. `by_hash`: no
    version on record is trusted. `cluster`: where the workers are, None: one in this process; it is closed at the end.
    """

    def __init__(
        self,
        stages: Sequence[StageRun],
        source: Source,
        engine: Callable[[], Engine],
        settings: Settings,
        progress: RunProgress,
        budget: Budget,
        *,
        cluster: Cluster | None = None,
        checks: bool = True,
        by_hash: bool = False,
    ) -> None:
        self._stages, self._progress, self._budget, self._are_checked = stages, progress, budget, checks
        self._left_at = 0.0  # when the budget was found to be used up
        self._is_refused = False
        make = Worker if cluster is None else partial(RayWorkers, cluster)
        self._worker: Worker | RayWorkers = make(
            [each.stage for each in stages], source, engine, settings, self, starting=progress.starting
        )
        self._recorders = [Recorder(each.evidence, self._worker.fail) for each in stages]
        first = stages[0]
        self._reads = Reads(first.stage, first.evidence, first.keys, self._recorders[0], source, by_hash=by_hash)
        self._storage = StorageWatch(source)
        self._checks, self._breaker = [SanityCheck(each.stage) for each in stages], CircuitBreaker()
        self._may_ask = asyncio.Event()
        self._may_ask.set()
        self.stats = first.stats

    async def run(self, *, listed_only: bool = False) -> None:
        """Ask what is missing until nothing is, until a signal, or until an error that ends the run (`stats.error`).

        Raises TagllmError only where nothing was recorded, so that nothing has changed: the engine cannot start, say.
        """
        worker, stats = self._worker, self.stats
        with signals(worker.stop.set):
            watching = asyncio.create_task(self._watch())
            try:
                await worker.run(self._reads.work(listed_only=listed_only))
            finally:
                watching.cancel()
                await self._finish()
        if worker.error is not None:
            if not isinstance(worker.error, TagllmError) or not any(each.has_committed for each in self._recorders):
                raise worker.error
            stats.error = StoppedRunError.after(worker.error)
            logger.info("run stopped: %s", worker.error.message)  # told to the user as the summary's error
        else:
            stats.interrupted = worker.stop.is_set()
            if not stats.interrupted and (worker.has_left or self._is_refused):
                stats.error = self._budget.error(was_ready=bool(self.stats.engine))
            for each, check in zip(self._stages, self._checks, strict=True):
                each.stats.warning = check.finish()
        logger.info("run ended: %s", stats)

    async def _watch(self) -> None:
        """Tell again and again what keeps the engine from answering, and look at the budget."""
        while True:
            if self._left_at and time.monotonic() - self._left_at > LEAVE_SECONDS:
                self._worker.fail(self._budget.error(was_ready=bool(self.stats.engine)))
            elif not self._budget.look(self.usage, self.stats.gpus):
                self._leave()
            await asyncio.sleep(TROUBLE_SECONDS)
            self._progress.trouble(self._worker.engine.trouble)

    def _leave(self) -> None:
        self._left_at = self._left_at or time.monotonic()
        self._worker.leave()

    async def _finish(self) -> None:
        worker, recorders = self._worker, self._recorders
        try:
            # A disk that is full has rolled back what was under way already.
            nothing_recorded = isinstance(worker.error, TagllmError) and not any(
                each.has_recorded for each in recorders
            )
            for recorder in recorders:
                if nothing_recorded or isinstance(worker.error, TableError):
                    recorder.rollback()
                else:
                    recorder.commit()
        except TagllmError as error:
            for recorder in recorders:
                recorder.rollback()
            worker.error = worker.error or error
        finally:
            seconds = await worker.close()
            self._budget.end_pass(self.usage)
            _share(seconds, self._stages)

    # -- the worker's host ----------------------------------------------------------------------------------------

    def read(self, read: ReadImage) -> PendingImage | None:
        """Record an image that was not known before, and look at the storage."""
        image = read.pending or self._reads.found(read)
        self._storage.add(read.image, read.data)
        return image

    def ended(self, shard: ShardRead) -> None:
        """Record that the images of a shard are known."""
        self._reads.end(shard)
        self.stats.shards += shard.images is None

    def admitted(self, images: int) -> None:
        """Take note of how many images there are in all."""
        self._breaker.expect(images)

    def started(self, version: str, gpus: int | None) -> None:
        """Record which engine answers."""
        for each, recorder in zip(self._stages, self._recorders, strict=True):
            recorder.engine(version)
            each.stats.engine, each.stats.gpus = version, gpus

    def opened(self, image: PendingImage, info: ImageInfo) -> None:
        """Record what opening an image found out."""
        id_ = image.item.image.id
        self.stats.opened += 1
        if info != image.item.info:
            self._recorders[0].info(id_, info)
        if info.failure is not None:
            self.stats.failed_images += 1
            self.stats.failures.add("images", info.failure)
            logger.debug("image failed: %s: %s", id_, info.failure)

    def recorded(self, step: int, fingerprint: bytes, requests: Sequence[Request]) -> Sequence[Response | None]:
        """Look the answers up."""
        run = self._stages[step]
        keys = run.keys.keys(requests, fingerprint)
        answers = run.evidence.answers(keys)
        return [answers.get(key) for key in keys]

    async def may_ask(self, step: int, requests: int) -> int:
        """Wait while the first answers are being judged, and look at the budget."""
        await self._may_ask.wait()
        granted = self._budget.grant(requests)
        if granted < requests:
            self._is_refused = True
            self._leave()
        return granted

    def answered(self, step: int, fingerprint: bytes, request: Request, response: Response) -> None:
        """Record and count a response; raises StoppedRunError where nearly all requests fail."""
        run, failure = self._stages[step], response.failure
        (key,) = run.keys.keys([request], fingerprint)
        self._recorders[step].response(key, response)
        if sum(each.uncommitted_responses for each in self._recorders) >= COMMIT_RESPONSES:
            for each in self._recorders:  # both stages' together: no more is lost than in one
                each.commit_now()
        run.stats.asked += 1
        run.usage = run.usage.plus(response)
        self._breaker.add(fingerprint, failure)
        if failure is None:
            return
        run.stats.failed_requests += 1
        run.stats.failures.add("requests", failure)
        logger.debug("request failed: image %s: %s", fingerprint.hex(), failure)
        if self._are_checked and (reason := self._breaker.verdict()):
            raise StoppedRunError(reason, f"Correct that first. {_GO_ON_ANYWAY}")

    async def asked(self, step: int, responses: Sequence[tuple[Request, Response]]) -> None:
        """Check the first answers in a thread: others arrive and signals are heeded, nothing more is asked."""
        if step:
            self._stages[step].stats.images += 1
        check = self._checks[step]
        if not self._are_checked or (sample := check.add(responses)) is None:
            return
        self._may_ask.clear()
        try:
            complaint = await asyncio.to_thread(check.judge, sample)
        finally:
            self._may_ask.set()
        if complaint:
            raise StoppedRunError(f"the first answers look wrong: {complaint}", _GO_ON_ANYWAY)

    def finished(self, image: PendingImage, *, is_complete: bool) -> None:
        """Record that nothing is missing about an image any more."""
        if is_complete:
            self._recorders[0].completed(image.item.image.id, image.requests_hash)
        self.stats.images += 1
        self._progress.update(self._total_stats(), self.usage)

    def _total_stats(self) -> RunStats:
        first, *others = (each.stats for each in self._stages)
        if not others:
            return first
        return replace(
            first,
            asked=first.asked + sum(each.asked for each in others),
            failed_requests=first.failed_requests + sum(each.failed_requests for each in others),
        )

    @property
    def usage(self) -> Usage:
        """Tokens and requests of all stages so far."""
        total, *others = (each.usage for each in self._stages)
        for other in others:
            total = total.add(other)
        return total


def _share(seconds: float, stages: Sequence[StageRun]) -> None:
    """Share the engine's time among the stages, by the tokens that it computed for each."""
    computed = [each.usage.computed_tokens for each in stages]
    for each, tokens in zip(stages, computed, strict=True):
        each.stats.seconds += seconds * tokens / sum(computed) if sum(computed) else seconds * (each is stages[0])
