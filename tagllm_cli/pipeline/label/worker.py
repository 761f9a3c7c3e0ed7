"""A worker takes images through everything that is asked about them: read, decode, ask one stage, ask the next one.

It knows no evidence: its `Host` says what is on record and takes what was found out. The host of a run on one machine
is the scheduler itself; a worker elsewhere has one that sends everything to the scheduler.

Many images are in flight at a time: those whose requests fill the engine, and some being read and decoded ahead of
them. At most `engine.capacity` requests are in flight, and at most `Settings.max_bytes` of images, so memory does not
depend on how many images there are. All requests of one image about one stage go out together. The engine starts when
the first decoded image turns out to lack a response, and not at all when none does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from tagllm_cli.engines.base import Engine
from tagllm_cli.engines.local.memory import free_memory
from tagllm_cli.labeling.rows import proposals
from tagllm_cli.labeling.stage import Stage
from tagllm_cli.pipeline.label.asking import ask_until_complete
from tagllm_cli.pipeline.label.concurrency import RequestLimiter, first
from tagllm_cli.pipeline.label.lazy_engine import LazyEngine
from tagllm_cli.pipeline.label.pending import PendingImage
from tagllm_cli.pipeline.label.read_ahead import ReadAhead
from tagllm_cli.pipeline.label.reads import ReadImage, ShardRead, Work
from tagllm_cli.records import DecodedImage, Failure, ImageInfo, Item, Request, Response
from tagllm_cli.sources.base import ReadFailure, Source
from tagllm_cli.sources.decode import decode

# After the first signal, answers that are already under way get this long to arrive: `docker stop` kills after 10 s,
# and the table must be written by then.
DRAIN_SECONDS = 3.0
DECODE_THREADS = min(16, max(2, os.cpu_count() or 1))
MOST_BYTES = 1 << 30
_BYTES_PER_PIXEL = 3


@dataclass(frozen=True, slots=True)
class Settings:
    """How a worker treats images.

    `max_pixels` bounds width x height. `expects_same_bytes`: an image whose fingerprint is not the recorded one is a
    failure instead of a new image. `max_bytes` of images are held at a time; None: 1 GiB, or a quarter of the free
    memory if that is less.
    """

    max_pixels: int
    expects_same_bytes: bool = False
    max_bytes: int | None = None


class Host(Protocol):
    """What a worker asks for and tells, in its event loop. What any method raises ends the run.

    `step` numbers the stages that are asked about an image, from 0.
    """

    def read(self, read: ReadImage) -> PendingImage | None:
        """An image was read; return it if anything about it is to be asked, once more if it was pending before."""
        ...

    def ended(self, shard: ShardRead) -> None:
        """A shard was read to its end."""
        ...

    def admitted(self, images: int) -> None:
        """So many images were begun, and no other one comes."""
        ...

    def started(self, version: str, gpus: int | None) -> None:
        """An engine of this version, on so many GPUs, is ready; there may be several."""
        ...

    def opened(self, image: PendingImage, info: ImageInfo) -> None:
        """An image was opened."""
        ...

    def recorded(self, step: int, fingerprint: bytes, requests: Sequence[Request]) -> Sequence[Response | None]:
        """Return the answer that is on record for each request about the image of this fingerprint, or None."""
        ...

    async def may_ask(self, step: int, requests: int) -> int:
        """Return how many of so many requests may be asked now; the others are left to another run. May wait."""
        ...

    def answered(self, step: int, fingerprint: bytes, request: Request, response: Response) -> None:
        """A request about the image of this fingerprint was answered, or has failed."""
        ...

    async def asked(self, step: int, responses: Sequence[tuple[Request, Response]]) -> None:
        """All that one image lacked of a stage was asked."""
        ...

    def finished(self, image: PendingImage, *, is_complete: bool) -> None:
        """All is done about an image; `is_complete`: all requests of the first stage have answers."""
        ...


class Worker:
    """Takes images through one stage, or through several, each of which asks about what the one before proposed.

    `stop` may be set at any time: answers that are under way are waited for a moment, and nothing more is asked.
    `leave` lets all images that are in flight come to their end, and takes no more (`has_left`: there were more).
    `error` is what ended the work.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        source: Source,
        engine: Callable[[], Engine],
        settings: Settings,
        host: Host,
        starting: Callable[[], None] = lambda: None,
    ) -> None:
        self._stages, self._source, self._settings, self._host = stages, source, settings, host
        self.stop, self._leave = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        self.has_left = False
        self.engine = LazyEngine(engine, self.stop, starting, self._engine_ready)
        self._limiter = RequestLimiter(max_bytes=settings.max_bytes or _default_max_bytes())
        self._threads = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")
        self._in_progress: dict[bytes, asyncio.Event] = {}  # by fingerprint

    def fail(self, error: Exception) -> None:
        """End the work because of an error."""
        # After a signal the engine may be dying of the same signal: what it says then is not about the image.
        if not self.stop.is_set():
            self.error = error
            self.stop.set()

    def leave(self) -> None:
        """Begin with no other image."""
        self._leave.set()

    async def run(self, work: Iterator[Work]) -> None:
        """Take everything that `work` yields to its end, or until `stop`."""
        tasks: set[asyncio.Task[None]] = set()
        images = 0
        ahead = ReadAhead(self._source, work)
        try:
            while (read := await self._next(ahead)) is not None:
                if isinstance(read, ShardRead):
                    self._host.ended(read)
                    continue
                image = self._host.read(read)
                if image is None:
                    continue
                if not self.engine.is_ready:  # until then images are opened, as many at once as there are threads
                    self._limiter.set_limit(DECODE_THREADS * image.missing)
                held = self._expected_bytes(read.data)
                admission = self._limiter.acquire(image.missing, held)
                await first(admission, self.stop.wait(), self._leave.wait())
                if self.stop.is_set():
                    break
                if self._leave.is_set():
                    self.has_left = True
                    break
                images += 1
                task = asyncio.create_task(self._work(image, read.data, held))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            self._host.admitted(images)
        except Exception as error:
            self.fail(error)
        finally:
            ahead.close()
        await self._drain(tasks)

    async def close(self) -> float:
        """End the engine and the threads; return for how many seconds the engine was ready."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        return await self.engine.close()

    async def _next(self, ahead: ReadAhead) -> ReadImage | ShardRead | None:
        """Return what was read next, None at the end, after a signal, and where no more is to be taken."""
        reading = asyncio.ensure_future(ahead.next())
        await first(reading, self.stop.wait(), self._leave.wait())
        # What is read already and is no image leaves nothing undone: the end of a shard, the end of all.
        if self._leave.is_set() and (not reading.done() or isinstance(reading.result(), ReadImage)):
            self.has_left = True
        if self.stop.is_set() or self.has_left:
            reading.cancel()
            return None
        return reading.result()

    async def _drain(self, tasks: set[asyncio.Task[None]]) -> None:
        # Gathered now: `wait` would look at the set a turn later, when those that have ended may have left it empty.
        finishing = asyncio.gather(*tasks, return_exceptions=True)
        await first(finishing, self.stop.wait())
        if self.stop.is_set() and not finishing.done():
            await asyncio.wait([finishing], timeout=0 if self.error else DRAIN_SECONDS)
        for task in tasks:
            task.cancel()
        await finishing

    def _engine_ready(self, engine: Engine) -> None:
        self._limiter.set_limit(engine.capacity)
        self._host.started(engine.version, engine.gpus)

    def _expected_bytes(self, data: bytes | ReadFailure) -> int:
        """Return how many bytes of pixels and file to hold for an image until it is decoded: most are smaller."""
        pixels = self._settings.max_pixels * _BYTES_PER_PIXEL
        return pixels + max(pixels, len(data) if isinstance(data, bytes) else 0)

    async def _work(self, image: PendingImage, data: bytes | ReadFailure, held: int) -> None:
        """Process one image within what was acquired for it: its requests, and `held` bytes until it is decoded."""
        slots = _Slots(self._limiter, image.missing, held)
        try:
            run_in_thread = asyncio.get_running_loop().run_in_executor
            info, decoded_image = await run_in_thread(self._threads, self._decode, data)
            del data  # a file that is still needed is a part of the decoded image
            slots.hold(bytes_=_bytes_of(decoded_image))
            info = self._checked(image.item.info, info)
            self._host.opened(image, info)
            is_complete = False
            if info.failure is None and decoded_image is not None:
                async with self._alone(info.fingerprint):
                    is_complete = await self._ask(image, info, decoded_image, slots)
            self._host.finished(image, is_complete=is_complete)
        except Exception as error:
            self.fail(error)
        finally:
            slots.hold(requests=0, bytes_=0)

    def _decode(self, data: bytes | ReadFailure) -> tuple[ImageInfo, DecodedImage | None]:
        if isinstance(data, ReadFailure):
            return ImageInfo(b"", failure=Failure(data.kind, data.message)), None
        return decode(data, self._settings.max_pixels)

    def _checked(self, before: ImageInfo | None, info: ImageInfo) -> ImageInfo:
        expected = before.fingerprint if before is not None and self._settings.expects_same_bytes else info.fingerprint
        if info.failure is None and info.fingerprint != expected:
            changed = Failure("changed", "the image is not the one that the candidates are about")
            return ImageInfo(info.fingerprint, failure=changed)
        return info

    @asynccontextmanager
    async def _alone(self, fingerprint: bytes) -> AsyncIterator[None]:
        """Let a second copy of the same bytes wait for the first: it then finds its responses on record."""
        while (other := self._in_progress.get(fingerprint)) is not None:
            await other.wait()
        self._in_progress[fingerprint] = done = asyncio.Event()
        try:
            yield
        finally:
            del self._in_progress[fingerprint]
            done.set()

    async def _ask(self, image: PendingImage, info: ImageInfo, decoded_image: DecodedImage, slots: _Slots) -> bool:
        """Ask what is missing about an image, stage after stage; return whether the first one is complete now."""
        item, requests = replace(image.item, info=info), image.requests
        is_complete = True
        for step, stage in enumerate(self._stages):
            if step:
                requests = stage.requests(item)
            responses = await self._ask_stage(step, item, requests, decoded_image, slots)
            answered = all(response is not None and response.failure is None for response in responses)
            is_complete &= answered or step > 0
            if step + 1 < len(self._stages):
                item = replace(item, proposed=proposals(stage.row(item, responses)))
        return is_complete

    async def _ask_stage(
        self, step: int, item: Item, requests: Sequence[Request], decoded_image: DecodedImage, slots: _Slots
    ) -> Sequence[Response | None]:
        """Ask what is missing of one stage, telling the host each response as it arrives; return all there are."""
        fingerprint = item.info.fingerprint if item.info is not None else b""
        known = dict(zip(requests, self._host.recorded(step, fingerprint, requests), strict=True))
        missing = [request for request, response in known.items() if response is None]
        if missing:
            slots.hold(requests=len(missing))
            engine = await self.engine.started()
            missing = missing[: await self._host.may_ask(step, len(missing))]
            asked: list[tuple[Request, Response]] = []
            if not missing:
                return list(known.values())
            async with aclosing(ask_until_complete(engine, decoded_image, missing)) as answers:
                async for request, response in answers:
                    self._host.answered(step, fingerprint, request, response)
                    asked.append((request, response))
            known.update(asked)
            await self._host.asked(step, asked)
        return list(known.values())


class _Slots:
    """What one image holds of the limits: requests in flight, and bytes."""

    def __init__(self, limiter: RequestLimiter, requests: int, bytes_: int) -> None:
        self._limiter, self._requests, self._bytes = limiter, requests, bytes_

    def hold(self, requests: int | None = None, bytes_: int | None = None) -> None:
        """Hold so much from now on; more than before is taken without waiting."""
        requests = self._requests if requests is None else requests
        bytes_ = self._bytes if bytes_ is None else bytes_
        self._limiter.release(self._requests - requests, self._bytes - bytes_)
        self._requests, self._bytes = requests, bytes_


def _bytes_of(image: DecodedImage | None) -> int:
    if image is None:
        return 0
    return image.pixels.width * image.pixels.height * _BYTES_PER_PIXEL + len(image.encoded or b"")


def _default_max_bytes() -> int:
    return min(MOST_BYTES, free_memory() // 4) or MOST_BYTES  # 0: this system does not tell
