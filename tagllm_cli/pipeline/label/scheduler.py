"""The streaming loop: evidence says what is missing, images are opened beside the engine, answers go to the evidence.

    subjects -> admit (bounded by requests in flight) -> open, decode (threads) -> engine.ask -> evidence

Images are admitted in source order and at most `engine.capacity` requests are under way, so memory depends on what is
in flight and never on how many images there are. All requests of one image go out together. The engine is started when
the first decoded image turns out to lack an answer, and not at all when none does.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from tagllm_cli.engines.base import Engine, Usage
from tagllm_cli.errors import ModelError, TagllmError
from tagllm_cli.labeling.answers.sanity_check import SAMPLE_IMAGES
from tagllm_cli.labeling.stage import Stage
from tagllm_cli.pipeline.label.concurrency import Room, first, signals
from tagllm_cli.pipeline.label.pending import Questions, Work, missing, unsettled
from tagllm_cli.pipeline.progress import RunProgress
from tagllm_cli.records import DecodedImage, Failure, Image, ImageInfo, Item, Request, Response
from tagllm_cli.sources.decode import decode
from tagllm_cli.sources.registry import ReadFailure
from tagllm_cli.store.evidence import Evidence

# After the first signal, answers that are already under way get this long to arrive.
DRAIN_SECONDS = 10.0
DECODE_THREADS = min(16, max(2, os.cpu_count() or 1))
COMMIT_SECONDS = 1.0
SAMPLE_REQUESTS = 100  # of an image in the preflight, evenly spaced: `binary` may ask about 10,000 labels


class Source(Protocol):
    """Where image bytes come from; `read` raises ReadFailure."""

    def read(self, image: Image) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run treats images.

    `context` is the plan's; `max_pixels` bounds width x height. `expects_same_bytes`: an image whose fingerprint is not
    the recorded one is a failure instead of a new image.
    """

    context: bytes
    max_pixels: int
    expects_same_bytes: bool = False
    preflight: bool = True


@dataclass(slots=True)
class RunStats:
    """What the run did so far: counts of images and requests, and seconds since the engine was ready."""

    images: int = 0
    opened: int = 0
    failed_images: int = 0
    asked: int = 0
    failed_requests: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    warning: str | None = None
    sample: list[tuple[Request, Response]] = field(default_factory=list)


class Runner:
    """One run of one stage over the evidence's unsettled images. Use `run()` once."""

    def __init__(
        self,
        stage: Stage,
        evidence: Evidence,
        source: Source,
        engine: Callable[[], Engine],
        settings: Settings,
        progress: RunProgress,
    ) -> None:
        self._stage, self._evidence, self._source = stage, evidence, source
        self._make_engine, self._settings, self._progress = engine, settings, progress
        self._questions = Questions(settings.context)
        self._pool = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")
        self._engine: Engine | None = None
        self._ready, self._sampled = 0.0, 0
        self._refused = False
        self._starting = asyncio.Lock()
        self._room = Room()
        self._busy: dict[bytes, asyncio.Event] = {}
        self._stop = asyncio.Event()
        self._error: BaseException | None = None
        self._commit_due: asyncio.TimerHandle | None = None
        self.stats = RunStats()

    async def run(self, *, listed_only: bool = False) -> RunStats:
        """Ask what is missing until nothing is, or until a signal; answers are durable within about a second.

        Raises TagllmError when the engine cannot start (then nothing at all is committed), when it dies, and when the
        preflight finds that answers make no sense.
        """
        with signals(self._stop.set):
            try:
                await self._feed(listed_only)
            finally:
                await self._finish()
        if self._error is not None:
            raise self._error
        self.stats.interrupted = self._stop.is_set()
        if self.stats.sample:
            self.stats.warning = self._stage.complaint(self.stats.sample)
        return self.stats

    @property
    def usage(self) -> Usage:
        """What the engine counted, zeros while it was never started."""
        return Usage() if self._engine is None else self._engine.usage()

    async def _feed(self, listed_only: bool) -> None:
        tasks: set[asyncio.Task[None]] = set()
        works = unsettled(self._stage, self._evidence, self._questions, listed_only=listed_only)
        for number, work in enumerate(works):
            if number % 1000 == 0:
                await asyncio.sleep(0)  # a long stretch with nothing to ask must not deafen us to signals
            if self._stop.is_set():
                break
            lacking = missing(work, self._evidence, self._questions)
            if not lacking:
                self._evidence.set_completed(work.item.image.id, work.mark)
                continue
            if self._engine is None:  # until then images are looked at, as many at once as there are threads
                self._room.widen(DECODE_THREADS * len(lacking))
            await first(self._room.enter(len(lacking)), self._stop.wait())
            if self._stop.is_set():
                break
            task = asyncio.create_task(self._guard(self._do(work), len(lacking)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await self._drain(tasks)

    async def _guard(self, work: Awaitable[None], requests: int) -> None:
        try:
            await work
        except Exception as error:
            self._fail(error)
        finally:
            self._room.leave(requests)

    def _fail(self, error: Exception) -> None:
        # After a signal the engine may be dying of the same signal: what it says then is not about the image.
        if not self._stop.is_set():
            self._error = error
            self._stop.set()

    async def _drain(self, tasks: set[asyncio.Task[None]]) -> None:
        # Gathered now: `wait` would look at the set a turn later, when those that have ended may have left it empty.
        finishing = asyncio.gather(*tasks, return_exceptions=True)
        await first(finishing, self._stop.wait())
        if self._stop.is_set() and not finishing.done():
            await asyncio.wait([finishing], timeout=0 if self._error else DRAIN_SECONDS)
        for task in tasks:
            task.cancel()
        await finishing

    async def _finish(self) -> None:
        try:
            if self._commit_due is not None:
                self._commit_due.cancel()
            if self._refused:
                self._evidence.rollback()
            else:
                self._evidence.commit()
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
            if self._engine is not None:
                self.stats.seconds = time.monotonic() - self._ready
                await self._engine.close()

    async def _do(self, work: Work) -> None:
        image, before = work.item.image, work.item.info
        info, decoded_image = await asyncio.get_running_loop().run_in_executor(self._pool, self._open, image)
        self.stats.opened += 1
        expected = before.fingerprint if before is not None and self._settings.expects_same_bytes else info.fingerprint
        if info.failure is None and info.fingerprint != expected:
            why = Failure("changed", "the image is not the one that the candidates are about")
            info = ImageInfo(info.fingerprint, failure=why)
        if info != before:
            self._evidence.set_info(image.id, info)
        if info.failure is not None or decoded_image is None:
            self.stats.failed_images += 1
        else:
            await self._ask(Work(Item(image, info, work.item.proposed), work.requests, work.mark), decoded_image)
        self.stats.images += 1
        self._commit_soon()
        self._progress.update(self.stats, self.usage)

    def _open(self, image: Image) -> tuple[ImageInfo, DecodedImage | None]:
        try:
            data = self._source.read(image)
        except ReadFailure as failure:
            return ImageInfo(b"", failure=Failure(failure.kind, failure.message)), None
        return decode(data, self._settings.max_pixels)

    async def _ask(self, work: Work, decoded_image: DecodedImage) -> None:
        fingerprint = work.item.info.fingerprint if work.item.info is not None else b""
        # A second copy of the same bytes waits for the first, and then finds its answers on record.
        while (other := self._busy.get(fingerprint)) is not None:
            await other.wait()
        self._busy[fingerprint] = done = asyncio.Event()
        try:
            lacking = missing(work, self._evidence, self._questions)
            failed = await self._ask_and_record(decoded_image, lacking, fingerprint) if lacking else 0
        finally:
            del self._busy[fingerprint]
            done.set()
        if not failed:
            self._evidence.set_completed(work.item.image.id, work.mark)

    async def _started(self) -> Engine:
        """Return the engine, loaded for the first picture with a question. Raises TagllmError where it cannot be."""
        async with self._starting:
            if self._engine is None:
                if self._stop.is_set():
                    raise asyncio.CancelledError
                try:
                    self._engine = await self._start()
                except TagllmError:
                    self._refused = not self._stop.is_set()
                    raise
                self._evidence.set_run_engine(self._engine.version)
                self._ready = time.monotonic()
                self._room.widen(self._engine.capacity)
            return self._engine

    async def _start(self) -> Engine:
        self._progress.starting()
        engine = self._make_engine()
        starting = asyncio.ensure_future(engine.start())
        try:
            await first(starting, self._stop.wait())
            starting.cancel()
            await starting
        except BaseException:
            await engine.close()
            raise
        return engine

    async def _ask_and_record(
        self, decoded_image: DecodedImage, requests: Sequence[Request], fingerprint: bytes
    ) -> int:
        """Ask, record each response as it arrives, and return how many requests failed."""
        keys = dict(zip(requests, self._questions.keys(requests, fingerprint), strict=True))
        answers: list[tuple[Request, Response]] = []
        failed = 0
        async with aclosing((await self._started()).ask(decoded_image, requests)) as answered:
            async for request, response in answered:
                self._evidence.record(keys[request], response)
                self._commit_soon()
                self.stats.asked += 1
                failed += response.failure is not None
                answers.append((request, response))
        self.stats.failed_requests += failed
        if self._settings.preflight and self._sampled < SAMPLE_IMAGES:
            self._preflight(answers[:: -(-len(answers) // SAMPLE_REQUESTS)])
        return failed

    def _preflight(self, answers: Iterable[tuple[Request, Response]]) -> None:
        """Add one image's answers to the sample, and judge it when it is complete."""
        self.stats.sample += answers
        self._sampled += 1
        if self._sampled < SAMPLE_IMAGES:
            return
        sample, self.stats.sample = self.stats.sample, []
        complaint = self._stage.complaint(sample)
        if complaint is not None:
            raise ModelError(
                f"preflight: {complaint}", "`--no-preflight` goes on all the same; the answers so far are kept."
            )

    def _commit_soon(self) -> None:
        if self._commit_due is None:
            self._commit_due = asyncio.get_running_loop().call_later(COMMIT_SECONDS, self._commit)

    def _commit(self) -> None:
        self._commit_due = None
        try:
            self._evidence.commit()
        except TagllmError as error:
            self._fail(error)
