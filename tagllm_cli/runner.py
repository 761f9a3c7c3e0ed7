"""The streaming loop: evidence says what is missing, images are opened beside the engine, answers go to the evidence.

    subjects -> admit (bounded by requests in flight) -> open, decode (threads) -> engine.ask -> evidence

Images are admitted in source order and at most `engine.capacity` requests are under way, so memory depends on what is in
flight and never on how many images there are. All requests of one image go out together. The engine is started when
the first missing request is found, and not at all when there is none.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from tagllm_cli.engines import Counters, Engine
from tagllm_cli.errors import ModelError, TagllmError
from tagllm_cli.evidence import Evidence
from tagllm_cli.imaging import decode
from tagllm_cli.preflight import SAMPLE_IMAGES
from tagllm_cli.schema import Failure, Image, Picture, Reply, Request, Seen, Subject, request_key
from tagllm_cli.sources import ReadFailure
from tagllm_cli.stages import Stage

# After the first signal, answers that are already under way get this long to arrive.
DRAIN_SECONDS = 10.0
DECODE_THREADS = min(16, max(2, os.cpu_count() or 1))


class Source(Protocol):
    """Where image bytes come from; `read` raises ReadFailure."""

    def read(self, image: Image) -> bytes: ...


class Watcher(Protocol):
    """Who is told how the run goes: the console, or nobody."""

    def starting(self) -> None: ...

    def progress(self, tally: Tally, counters: Counters) -> None: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run treats images and limits. `max_pixels` bounds width x height; `expects_same_bytes` makes an image whose
    fingerprint is not the recorded one a failure instead of a new image."""

    context: bytes
    max_pixels: int
    expects_same_bytes: bool = False
    preflight: bool = True


@dataclass(slots=True)
class Tally:
    """What the run did so far: counts of images and requests."""

    images: int = 0
    opened: int = 0
    failed_images: int = 0
    asked: int = 0
    failed_requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    interrupted: bool = False
    warning: str | None = None
    sample: list[tuple[Request, Reply]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Work:
    """One image that lacks answers: what to ask about it and the mark that says that all of it is answered."""

    subject: Subject
    requests: Sequence[Request]
    mark: bytes


class Questions:
    """Digests of requests under one context, computed once per distinct request."""

    def __init__(self, context: bytes) -> None:
        self._context = context
        self._digests: dict[Request, bytes] = {}
        self._marks: dict[tuple[Request, ...], bytes] = {}

    def digest(self, request: Request) -> bytes:
        """Return the 16-byte identity of the question."""
        known = self._digests.get(request)
        if known is None:
            known = self._digests[request] = request.digest(self._context)
        return known

    def keys(self, requests: Sequence[Request], fingerprint: bytes) -> list[bytes]:
        """Return the 16-byte identity of each request about this image."""
        return [request_key(self.digest(request), fingerprint if request.with_image else b"") for request in requests]

    def mark(self, requests: Sequence[Request]) -> bytes:
        """Return a 16-byte hash over all the questions: what an image is settled for."""
        marks, requests = self._marks, tuple(requests)
        known = marks.get(requests)
        if known is None:
            if len(marks) > 10_000:  # disambiguation has a set of questions per image: remember the frequent ones only
                marks.clear()
            state = hashlib.blake2b(digest_size=16)
            for request in requests:
                state.update(self.digest(request))
            known = marks[requests] = state.digest()
        return known


def unsettled(stage: Stage, evidence: Evidence, questions: Questions, *, listed_only: bool = False) -> Iterator[Work]:
    """Yield the images about which something may be missing, in source order."""
    for subject, settled in evidence.subjects(listed_only=listed_only):
        if subject.seen is not None and subject.seen.failure is not None:
            continue
        requests = stage.requests(subject)
        if requests and settled != (mark := questions.mark(requests)):
            yield Work(subject, requests, mark)


def missing(work: Work, evidence: Evidence, questions: Questions) -> Sequence[Request]:
    """Return the requests that the evidence lacks; all of them while the image was never opened."""
    if work.subject.seen is None:
        return work.requests
    keys = questions.keys(work.requests, work.subject.seen.fingerprint)
    return [request for request, key in zip(work.requests, keys, strict=True) if not evidence.has(key)]


class Runner:
    """One run of one stage over the evidence's unsettled images. Use `run()` once."""

    def __init__(
        self,
        stage: Stage,
        evidence: Evidence,
        source: Source,
        engine: Callable[[], Engine],
        settings: Settings,
        watcher: Watcher,
    ) -> None:
        self._stage, self._evidence, self._source = stage, evidence, source
        self._make_engine, self._settings, self._watcher = engine, settings, watcher
        self._questions = Questions(settings.context)
        self._pool = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")
        self._engine: Engine | None = None
        self._room = _Room()
        self._busy: dict[bytes, asyncio.Event] = {}
        self._stop = asyncio.Event()
        self._error: BaseException | None = None
        self.tally = Tally()

    async def run(self, *, listed_only: bool = False) -> Tally:
        """Ask what is missing until nothing is, or until a signal; answers are durable within about a second.

        Raises TagllmError when the engine cannot start, dies, or when the preflight finds that answers make no sense.
        """
        with _signals(self._stop.set):
            try:
                tasks: set[asyncio.Task[None]] = set()
                for number, work in enumerate(
                    unsettled(self._stage, self._evidence, self._questions, listed_only=listed_only)
                ):
                    if number % 1000 == 0:
                        await asyncio.sleep(0)  # a long stretch with nothing to ask must not deafen us to signals
                    lacking = missing(work, self._evidence, self._questions)
                    if not lacking:
                        self._settle(work)
                        continue
                    await self._start_engine()
                    if not await self._admit(len(lacking)):
                        break
                    task = asyncio.create_task(self._guard(self._do(work), len(lacking)))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                await self._drain(tasks)
            finally:
                self._evidence.commit()
                self._pool.shutdown(wait=False, cancel_futures=True)
                if self._engine is not None:
                    await self._engine.close()
        if self._error is not None:
            raise self._error
        self.tally.interrupted = self._stop.is_set()
        if self.tally.sample:
            self.tally.warning = self._stage.complaint(self.tally.sample)
        return self.tally

    @property
    def counters(self) -> Counters:
        """What the engine counted, zeros while it was never started."""
        return Counters() if self._engine is None else self._engine.counters()

    async def _start_engine(self) -> None:
        if self._engine is not None or self._stop.is_set():
            return
        self._watcher.starting()
        engine = self._make_engine()
        starting = asyncio.ensure_future(engine.start())
        await _first(starting, self._stop.wait())
        if not starting.done():
            starting.cancel()
            with suppress(asyncio.CancelledError, TagllmError):
                await starting
            await engine.close()
            return
        starting.result()
        self._engine = engine
        self._room.limit = engine.capacity

    async def _admit(self, requests: int) -> bool:
        """Wait for room; False when the run is to end instead."""
        await _first(self._room.enter(requests), self._stop.wait())
        return not self._stop.is_set()

    async def _guard(self, work: Awaitable[None], requests: int) -> None:
        try:
            await work
        except (TagllmError, OSError) as error:
            # After a signal the engine may be dying of the same signal: what it says then is not about the image.
            if not self._stop.is_set():
                self._error = error
                self._stop.set()
        finally:
            self._room.leave(requests)

    async def _drain(self, tasks: set[asyncio.Task[None]]) -> None:
        if tasks:
            finishing = asyncio.ensure_future(asyncio.wait(tasks))
            await _first(finishing, self._stop.wait())
            if self._stop.is_set() and not finishing.done():
                await asyncio.wait([finishing], timeout=0 if self._error else DRAIN_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _do(self, work: Work) -> None:
        image, before = work.subject.image, work.subject.seen
        seen, picture = await asyncio.get_running_loop().run_in_executor(self._pool, self._open, image)
        self.tally.opened += 1
        if (
            before is not None
            and self._settings.expects_same_bytes
            and seen.fingerprint != before.fingerprint
            and not seen.failure
        ):
            seen = Seen(
                seen.fingerprint, failure=Failure("changed", "the image is not the one that the candidates are about")
            )
        if seen != before:
            self._evidence.set_seen(image.id, seen)
        if seen.failure is not None or picture is None:
            self.tally.failed_images += 1
        else:
            await self._ask(Work(Subject(image, seen, work.subject.proposed), work.requests, work.mark), picture)
        self.tally.images += 1
        self._evidence.commit_when_due()
        self._report()

    def _open(self, image: Image) -> tuple[Seen, Picture | None]:
        try:
            data = self._source.read(image)
        except ReadFailure as failure:
            return Seen(b"", failure=Failure(failure.kind, failure.message)), None
        return decode(data, self._settings.max_pixels)

    async def _ask(self, work: Work, picture: Picture) -> None:
        assert self._engine is not None and work.subject.seen is not None
        fingerprint = work.subject.seen.fingerprint
        # A second copy of the same bytes waits for the first, and then finds its answers on record.
        while (other := self._busy.get(fingerprint)) is not None:
            await other.wait()
        self._busy[fingerprint] = done = asyncio.Event()
        try:
            lacking = missing(work, self._evidence, self._questions)
            replies = await self._engine.ask(picture, lacking) if lacking else []
            failed = self._record(lacking, replies, fingerprint)
        finally:
            del self._busy[fingerprint]
            done.set()
        if not failed:
            self._settle(work)

    def _record(self, requests: Sequence[Request], replies: Sequence[Reply], fingerprint: bytes) -> int:
        keys = self._questions.keys(requests, fingerprint)
        failed = 0
        for request, key, reply in zip(requests, keys, replies, strict=True):
            self._evidence.record(key, reply)
            failed += reply.failure is not None
            self.tally.prompt_tokens += reply.prompt_tokens
            self.tally.cached_tokens += reply.cached_tokens
            self.tally.output_tokens += reply.output_tokens
            if self._settings.preflight and self.tally.images < SAMPLE_IMAGES:
                self.tally.sample.append((request, reply))
        self.tally.asked += len(requests)
        self.tally.failed_requests += failed
        if self._settings.preflight and self.tally.images + 1 >= SAMPLE_IMAGES and self.tally.sample:
            self._preflight()
        return failed

    def _preflight(self) -> None:
        sample, self.tally.sample = self.tally.sample, []
        complaint = self._stage.complaint(sample)
        if complaint is not None:
            raise ModelError(
                f"preflight: {complaint}", "`--no-preflight` goes on all the same; the answers so far are kept."
            )

    def _settle(self, work: Work) -> None:
        self._evidence.set_settled(work.subject.image.id, work.mark)

    def _report(self) -> None:
        self._watcher.progress(self.tally, self.counters)


class _Room:
    """Admission by requests in flight: one image always fits, however many requests it has."""

    def __init__(self) -> None:
        self.limit = 1
        self._inside = 0
        self._left = asyncio.Event()

    async def enter(self, requests: int) -> None:
        while self._inside and self._inside + requests > self.limit:
            self._left.clear()
            await self._left.wait()
        self._inside += requests

    def leave(self, requests: int) -> None:
        self._inside -= requests
        self._left.set()


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM call `stop`; a second one acts as it would without us."""
    loop = asyncio.get_running_loop()
    caught = (signal.SIGINT, signal.SIGTERM)

    def handle() -> None:
        stop()
        release()

    def release() -> None:
        for number in caught:
            loop.remove_signal_handler(number)

    for number in caught:
        loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        release()


async def _first(*awaitables: Awaitable[object]) -> None:
    """Wait until one of them is done; cancel the bare coroutines among the others."""
    futures = [asyncio.ensure_future(each) for each in awaitables]
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    for future, each in zip(futures, awaitables, strict=True):
        if future is not each and not future.done():
            future.cancel()
