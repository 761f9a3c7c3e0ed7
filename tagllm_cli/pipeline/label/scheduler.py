"""The scheduler: images that lack responses are opened beside the engine, and responses are recorded as they arrive.

    pending_images -> read ahead (threads) -> admit (bounded in requests and bytes) -> decode (threads) -> ask -> record

Images are read and admitted in source order; those of a shard that nobody has read yet become known on the way. At
most `engine.capacity` requests are in flight, and at most `Settings.max_bytes` of images, so memory does not depend on
how many images there are. All requests of one image go out together. The engine starts when the first decoded image
turns out to lack a response, and not at all when none does.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace

from tagllm_cli.engines.base import Engine, Usage
from tagllm_cli.engines.local.memory import free_memory
from tagllm_cli.errors import GOES_ON, StoppedRunError, TableError, TagllmError
from tagllm_cli.labeling.stage import Stage
from tagllm_cli.pipeline.label.asking import ask_until_complete
from tagllm_cli.pipeline.label.circuit_breaker import CircuitBreaker
from tagllm_cli.pipeline.label.concurrency import RequestLimiter, first, signals
from tagllm_cli.pipeline.label.lazy_engine import LazyEngine
from tagllm_cli.pipeline.label.pending import PendingImage, RequestKeys, missing_requests
from tagllm_cli.pipeline.label.read_ahead import ReadAhead
from tagllm_cli.pipeline.label.reads import ReadImage, Reads, ShardRead
from tagllm_cli.pipeline.label.recorder import Recorder
from tagllm_cli.pipeline.label.sanity_check import Sample, SanityCheck
from tagllm_cli.pipeline.label.stats import RunStats
from tagllm_cli.pipeline.label.storage_watch import StorageWatch
from tagllm_cli.pipeline.progress import RunProgress
from tagllm_cli.records import DecodedImage, Failure, ImageInfo, Item, Request, Response
from tagllm_cli.sources.base import ReadFailure, Source
from tagllm_cli.sources.decode import decode
from tagllm_cli.store.evidence import Evidence

# After the first signal, answers that are already under way get this long to arrive: `docker stop` kills after 10 s,
# and the table must be written by then.
DRAIN_SECONDS = 3.0
TROUBLE_SECONDS = 1.0
DECODE_THREADS = min(16, max(2, os.cpu_count() or 1))
MOST_BYTES = 1 << 30
_BYTES_PER_PIXEL = 3
_GO_ON_ANYWAY = f"{GOES_ON} --no-preflight lets a run go on all the same."

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run treats images.

    `context` is the plan's; `max_pixels` bounds width x height. `expects_same_bytes`: an image whose fingerprint is not
    the recorded one is a failure instead of a new image. `checks`: end the run when answers make no sense or nearly all
    requests fail. `max_bytes` of images are held at a time; None: 1 GiB, or a quarter of the free memory if that is
    less. `by_hash`: no version on record is trusted.
    """

    context: bytes
    max_pixels: int
    expects_same_bytes: bool = False
    checks: bool = True
    max_bytes: int | None = None
    by_hash: bool = False


class Scheduler:
    """One run of one stage over the pending images of an evidence file. Use `run()` once."""

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
        self._settings, self._progress = settings, progress
        self._keys = RequestKeys(settings.context)
        self._stop = asyncio.Event()
        self._error: Exception | None = None
        self._engine = LazyEngine(engine, self._stop, progress.starting, self._engine_ready)
        self._recorder = Recorder(evidence, self._fail)
        self._reads = Reads(stage, evidence, self._keys, self._recorder, source, by_hash=settings.by_hash)
        self._storage = StorageWatch(source)
        self._check, self._breaker = SanityCheck(stage), CircuitBreaker()
        self._limiter = RequestLimiter(max_bytes=settings.max_bytes or _default_max_bytes())
        self._threads = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")
        self._in_progress: dict[bytes, asyncio.Event] = {}  # by fingerprint
        self._may_ask = asyncio.Event()
        self._may_ask.set()
        self.stats = RunStats()

    @property
    def usage(self) -> Usage:
        """What the engine counted, zeros while it was never started."""
        return self._engine.usage

    async def run(self, *, listed_only: bool = False) -> RunStats:
        """Ask what is missing until nothing is, until a signal, or until an error that ends the run (`stats.error`).

        Raises TagllmError only where nothing was recorded, so that nothing has changed: the engine cannot start, say.
        """
        with signals(self._stop.set):
            watching = asyncio.create_task(self._watch())
            try:
                await self._admit(listed_only)
            finally:
                watching.cancel()
                await self._finish()
        if self._error is not None:
            if not isinstance(self._error, TagllmError) or not self._recorder.has_committed:
                raise self._error
            self.stats.error = StoppedRunError.after(self._error)
            logger.info("run stopped: %s", self._error.message)  # told to the user as the summary's error
        else:
            self.stats.interrupted = self._stop.is_set()
            self.stats.warning = self._check.finish()
        logger.info("run ended: %s", self.stats)
        return self.stats

    async def _watch(self) -> None:
        """Tell again and again what keeps the engine from answering."""
        while True:
            await asyncio.sleep(TROUBLE_SECONDS)
            self._progress.trouble(self._engine.trouble)

    async def _admit(self, listed_only: bool) -> None:
        """Start a task for every image that lacks responses, within the limits, and wait for all of them."""
        tasks: set[asyncio.Task[None]] = set()
        images = 0
        ahead = ReadAhead(self._source, self._reads.work(listed_only=listed_only))
        try:
            while (read := await self._next(ahead)) is not None:
                if isinstance(read, ShardRead):
                    self._reads.end(read)
                    self.stats.shards += read.images is None
                    continue
                image = read.pending or self._reads.found(read)
                self._storage.add(read.image, read.data)
                if image is None:
                    continue
                if not self._engine.is_ready:  # until then images are opened, as many at once as there are threads
                    self._limiter.set_limit(DECODE_THREADS * image.missing)
                held = self._expected_bytes(read.data)
                await first(self._limiter.acquire(image.missing, held), self._stop.wait())
                if self._stop.is_set():
                    break
                images += 1
                task = asyncio.create_task(self._work(image, read.data, held))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            self._breaker.expect(images)
        except Exception as error:
            self._fail(error)
        finally:
            ahead.close()
        await self._drain(tasks)

    async def _next(self, ahead: ReadAhead) -> ReadImage | ShardRead | None:
        """Return what was read next, None at the end and after a signal."""
        reading = asyncio.ensure_future(ahead.next())
        await first(reading, self._stop.wait())
        if self._stop.is_set():
            reading.cancel()
            return None
        return reading.result()

    def _engine_ready(self, engine: Engine) -> None:
        self._limiter.set_limit(engine.capacity)
        self._recorder.engine(engine.version)
        self.stats.engine = engine.version

    def _expected_bytes(self, data: bytes | ReadFailure) -> int:
        """Return how many bytes of pixels and file to hold for an image until it is decoded: most are smaller."""
        pixels = self._settings.max_pixels * _BYTES_PER_PIXEL
        return pixels + max(pixels, len(data) if isinstance(data, bytes) else 0)

    async def _work(self, image: PendingImage, data: bytes | ReadFailure, held: int) -> None:
        """Process one image within what was acquired for it: its requests, and `held` bytes until it is decoded."""
        try:
            run_in_thread = asyncio.get_running_loop().run_in_executor
            info, decoded_image = await run_in_thread(self._threads, self._decode, data)
            del data  # a file that is still needed is a part of the decoded image
            actual = _bytes_of(decoded_image)
            self._limiter.release(0, held - actual)
            held = actual
            await self._process(image, info, decoded_image)
        except Exception as error:
            self._fail(error)
        finally:
            self._limiter.release(image.missing, held)

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
            # A disk that is full has rolled back what was under way already.
            nothing_recorded = isinstance(self._error, TagllmError) and not self._recorder.has_recorded
            if nothing_recorded or isinstance(self._error, TableError):
                self._recorder.rollback()
            else:
                self._recorder.commit()
        except TagllmError as error:
            self._recorder.rollback()
            self._error = self._error or error
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self.stats.seconds = await self._engine.close()

    def _decode(self, data: bytes | ReadFailure) -> tuple[ImageInfo, DecodedImage | None]:
        if isinstance(data, ReadFailure):
            return ImageInfo(b"", failure=Failure(data.kind, data.message)), None
        return decode(data, self._settings.max_pixels)

    async def _process(self, image: PendingImage, info: ImageInfo, decoded_image: DecodedImage | None) -> None:
        id_, before = image.item.image.id, image.item.info
        self.stats.opened += 1
        expected = before.fingerprint if before is not None and self._settings.expects_same_bytes else info.fingerprint
        if info.failure is None and info.fingerprint != expected:
            changed = Failure("changed", "the image is not the one that the candidates are about")
            info = ImageInfo(info.fingerprint, failure=changed)
        if info != before:
            self._recorder.info(id_, info)
        if info.failure is not None or decoded_image is None:
            self.stats.failed_images += 1
            self.stats.failures.add("images", info.failure or Failure("not_decoded", "there are no pixels"))
            logger.debug("image failed: %s: %s", id_, info.failure)
        elif await self._ask(replace(image.item, info=info), image.requests, decoded_image):
            self._recorder.completed(id_, image.requests_hash)
        self.stats.images += 1
        self._progress.update(self.stats, self.usage)

    async def _ask(self, item: Item, requests: Sequence[Request], decoded_image: DecodedImage) -> bool:
        """Ask what is missing about an image; return whether it is complete now."""
        fingerprint = item.info.fingerprint if item.info is not None else b""
        # A second copy of the same bytes waits for the first, and then finds its responses on record.
        while (other := self._in_progress.get(fingerprint)) is not None:
            await other.wait()
        self._in_progress[fingerprint] = done = asyncio.Event()
        try:
            missing = missing_requests(item, requests, self._evidence, self._keys)
            return not missing or await self._ask_and_record(decoded_image, missing, fingerprint)
        finally:
            del self._in_progress[fingerprint]
            done.set()

    async def _ask_and_record(
        self, decoded_image: DecodedImage, requests: Sequence[Request], fingerprint: bytes
    ) -> bool:
        """Ask, record each response as it arrives, and return whether all are answers."""
        keys = dict(zip(requests, self._keys.keys(requests, fingerprint), strict=True))
        engine = await self._engine.started()
        await self._may_ask.wait()
        responses: list[tuple[Request, Response]] = []
        async with aclosing(ask_until_complete(engine, decoded_image, requests)) as answered:
            async for request, response in answered:
                self._recorder.response(keys[request], response)
                responses.append((request, response))
                self._count(fingerprint, response.failure)
        if self._settings.checks and (sample := self._check.add(responses)):
            await self._judge(sample)
        return all(response.failure is None for _, response in responses)

    async def _judge(self, sample: Sample) -> None:
        """Check the first answers in a thread: others arrive and signals are heeded, nothing more is asked."""
        self._may_ask.clear()
        try:
            complaint = await asyncio.to_thread(self._check.judge, sample)
        finally:
            self._may_ask.set()
        if complaint:
            raise StoppedRunError(f"the first answers look wrong: {complaint}", _GO_ON_ANYWAY)

    def _count(self, fingerprint: bytes, failure: Failure | None) -> None:
        """Count a response that is recorded; raises StoppedRunError where nearly all requests fail."""
        self.stats.asked += 1
        self._breaker.add(fingerprint, failure)
        if failure is None:
            return
        self.stats.failed_requests += 1
        self.stats.failures.add("requests", failure)
        logger.debug("request failed: image %s: %s", fingerprint.hex(), failure)
        if self._settings.checks and (reason := self._breaker.verdict()):
            raise StoppedRunError(reason, f"Correct that first. {_GO_ON_ANYWAY}")


def _bytes_of(image: DecodedImage | None) -> int:
    if image is None:
        return 0
    return image.pixels.width * image.pixels.height * _BYTES_PER_PIXEL + len(image.encoded or b"")


def _default_max_bytes() -> int:
    return min(MOST_BYTES, free_memory() // 4) or MOST_BYTES  # 0: this system does not tell
