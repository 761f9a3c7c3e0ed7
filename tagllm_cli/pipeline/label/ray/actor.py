"""The worker's side: a `Worker` per block over one engine, and a host that collects what they tell. Imports no Ray.

Several blocks are in flight at a time, so that the engine has the next one when one comes to its end.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import suppress

import tagllm_cli
from tagllm_cli.engines.base import Engine, EngineDiedError, Usage
from tagllm_cli.errors import SourceError, TagllmError, UsageError
from tagllm_cli.pipeline.label.lazy_engine import LazyEngine
from tagllm_cli.pipeline.label.pending import PendingImage
from tagllm_cli.pipeline.label.ray.wire import (
    Answered,
    Batch,
    Block,
    Ended,
    Event,
    Failed,
    Finished,
    Found,
    Opened,
    Ready,
    Setup,
    Trouble,
)
from tagllm_cli.pipeline.label.reads import ReadImage, ShardRead, Work
from tagllm_cli.pipeline.label.worker import Worker
from tagllm_cli.records import DecodedImage, Image, ImageInfo, Item, Request, Response
from tagllm_cli.sources.base import ReadFailure, Source, read_or_failure
from tagllm_cli.sources.registry import reopen

# What was found out travels this often: a worker that is killed loses no more.
FLUSH_SECONDS = 0.2


class RayWorker:
    """One worker; `run` yields what happens until `leave` or `stop`, `take` gives it a block."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._questions: dict[Request, int] = {}
        self._told = 0  # questions
        self._changed, self._stop = asyncio.Event(), asyncio.Event()
        # The driver knows that the engine is ready: before that, no image is blamed for the death of this process.
        self.is_told = asyncio.Event()
        self._is_leaving = False
        self._workers: dict[asyncio.Task[None], tuple[Worker, Block]] = {}
        self._node = socket.gethostname()

    async def run(self, setup: Setup) -> AsyncGenerator[Batch]:
        """Open the source, then yield what happens. The last batch ends with Failed where something ended the work."""
        self._setup = setup
        try:
            self._source = await asyncio.to_thread(_open, setup, self._node)
        except TagllmError as error:
            yield Batch(self._node, [Failed(error)])
            return
        self._engine = LazyEngine(setup.engine, self._stop, lambda: None, self._ready)
        yield Batch(self._node)
        trouble = None
        while not (self._is_leaving and not self._workers) and not self._has_failed():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 1.0)
            if (now := self._engine.trouble) != trouble:
                trouble = now
                self.tell(Trouble(trouble))
            if self._changed.is_set():
                batch = self._flush()
                yield batch
                if any(isinstance(event, Ready) for event in batch.events):
                    self.is_told.set()
                if not self._is_leaving:
                    await asyncio.sleep(FLUSH_SECONDS)
        await self._engine.close()
        yield self._flush()

    async def take(self, block: Block) -> None:
        """Begin with a block. Nobody waits for what this raises: the driver hears of it from `run`."""
        try:
            self._begin(block)
        except Exception as error:
            self.tell(Failed(error))

    def _begin(self, block: Block) -> None:
        host = _Host(self, block, self._setup)
        worker = Worker(
            self._setup.stages, self._source, lambda: _Handle(self._engine, self.is_told), self._setup.settings, host
        )
        task = asyncio.create_task(self._label(worker, block, host))
        self._workers[task] = (worker, block)
        task.add_done_callback(self._ended)

    async def leave(self) -> None:
        """Take no more blocks, and no more images of unread shards; `run` ends after those in flight."""
        self._is_leaving = True
        for worker, block in self._workers.values():
            if block.is_unread:
                worker.leave()
        self._changed.set()

    async def stop(self) -> None:
        """Let the answers arrive that are under way, for a moment; `run` ends then."""
        self._stop.set()
        for worker, _ in self._workers.values():
            worker.stop.set()
        self._is_leaving = True
        self._changed.set()

    @property
    def is_stopping(self) -> bool:
        """Whether nothing more is to be asked."""
        return self._stop.is_set()

    def tell(self, event: Event) -> None:
        """Let the driver know."""
        self._events.append(event)
        self._changed.set()

    def question(self, request: Request) -> int:
        """Return the number by which the driver knows a request."""
        return self._questions.setdefault(request, len(self._questions))

    async def _label(self, worker: Worker, block: Block, host: _Host) -> None:
        await worker.run(host.work())
        await worker.close()
        if worker.error is None:
            self.tell(Ended(block.number, is_whole=not (worker.has_left or worker.stop.is_set())))
        else:
            self.tell(Failed(worker.error, is_engine=isinstance(worker.error, EngineDiedError)))

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._workers[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self.tell(Failed(RuntimeError(f"{type(error).__name__}: {error}")))
        self._changed.set()

    def _has_failed(self) -> bool:
        return any(isinstance(event, Failed) for event in self._events)

    def _ready(self, engine: Engine) -> None:
        self.tell(Ready(engine.version, engine.capacity, engine.gpus))

    def _flush(self) -> Batch:
        self._changed.clear()
        events, self._events = self._events, []
        questions = list(self._questions)[self._told :]
        self._told = len(self._questions)
        return Batch(self._node, events, questions)


class _Host:
    """What the worker of one block asks and tells."""

    def __init__(self, actor: RayWorker, block: Block, setup: Setup) -> None:
        self._actor, self._block, self._setup = actor, block, setup
        self._allowance = block.allowance
        self._answers: dict[tuple[int, bytes], dict[Request, Response]] = {}

    def work(self) -> Iterator[Work]:
        """Yield what is to be read."""
        block = self._block
        images = [self._pending(item) for item in block.items]
        if block.shard is None:
            yield from images
        else:
            yield ShardRead(block.shard, None if block.is_unread else images)

    def _pending(self, item: Item) -> PendingImage:
        requests = self._setup.stages[0].requests(item)
        recorded = self._block.recorded.get(item.info.fingerprint) if item.info is not None else None
        missing = len(requests) if not recorded else sum(response is None for response in recorded[0])
        return PendingImage(item, requests, b"", missing)

    def read(self, read: ReadImage) -> PendingImage | None:
        if read.pending is not None:
            return read.pending
        failure = (read.data.kind, read.data.message) if isinstance(read.data, ReadFailure) else None
        self._actor.tell(Found(self._block.number, read.image, read.position, failure))
        if self._block.lists_only or self._block.done.get(read.image.id) == read.image.version:
            return None
        return self._pending(Item(read.image))

    def ended(self, shard: ShardRead) -> None:
        """The block's end says it."""

    def admitted(self, images: int) -> None:
        """The driver counts."""

    def started(self, version: str, gpus: int | None) -> None:
        """The engine has said so when it was started for all blocks."""

    def opened(self, image: PendingImage, info: ImageInfo) -> None:
        self._actor.tell(Opened(self._block.number, image.item.image.id, info))

    def recorded(self, step: int, fingerprint: bytes, requests: Sequence[Request]) -> Sequence[Response | None]:
        known = self._answers.get((step, fingerprint), {})
        recorded = self._block.recorded.get(fingerprint, ())
        sent: Sequence[Response | None] = recorded[step] if step < len(recorded) else ()
        if len(sent) != len(requests):  # they are about what the stage before says now
            sent = [None] * len(requests)
        return [known.get(request, before) for request, before in zip(requests, sent, strict=True)]

    async def may_ask(self, step: int, requests: int) -> int:
        if self._actor.is_stopping:
            return 0
        if step or self._allowance is None:  # the driver counts what was asked, and ends the work
            return requests
        granted = min(requests, self._allowance)
        self._allowance -= granted
        return granted

    def answered(self, step: int, fingerprint: bytes, request: Request, response: Response) -> None:
        if response.failure is None:
            self._answers.setdefault((step, fingerprint), {})[request] = response
        self._actor.tell(Answered(step, fingerprint, self._actor.question(request), response))

    async def asked(self, step: int, responses: Sequence[tuple[Request, Response]]) -> None:
        """The driver puts them together."""

    def finished(self, image: PendingImage, *, is_complete: bool) -> None:
        self._actor.tell(Finished(self._block.number, image.item.image.id, is_complete))


class _Handle:
    """The engine of this process as the worker of one block has it: started once, closed with the process."""

    def __init__(self, shared: LazyEngine, is_told: asyncio.Event) -> None:
        self._shared, self._is_told = shared, is_told
        self._engine: Engine | None = None

    @property
    def version(self) -> str:
        return "" if self._engine is None else self._engine.version

    @property
    def capacity(self) -> int:
        return 1 if self._engine is None else self._engine.capacity

    @property
    def gpus(self) -> int | None:
        return None if self._engine is None else self._engine.gpus

    @property
    def trouble(self) -> str | None:
        return self._shared.trouble

    async def start(self) -> None:
        self._engine = await self._shared.started()
        await self._is_told.wait()

    def ask(
        self, decoded_image: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        assert self._engine is not None
        return self._engine.ask(decoded_image, requests)

    def usage(self) -> Usage:
        return Usage() if self._engine is None else self._engine.usage()

    async def close(self) -> None:
        """Nothing: other blocks go on."""


def _open(setup: Setup, node: str) -> Source:
    """Return the source. Raises UsageError where this machine has another tagllm or does not see the images."""
    if setup.version != tagllm_cli.__version__:
        raise UsageError(
            f"{node} has tagllm {tagllm_cli.__version__}, and this machine {setup.version}",
            "Install the same version on all machines.",
        )
    try:
        source = reopen(setup.source)
    except SourceError as error:
        raise _unseen(node, setup, error.message) from error
    if setup.probe is not None and isinstance(data := _read(source, setup.probe), ReadFailure):
        raise _unseen(node, setup, f"{setup.probe.uri}: {data.message}")
    return source


def _read(source: Source, image: Image) -> bytes | ReadFailure:
    return read_or_failure(source, image)


def _unseen(node: str, setup: Setup, why: str) -> SourceError:
    return SourceError(
        f"{node} cannot read {setup.source.uri}: {why}",
        "Every machine reads the images itself: mount them at the same path, or use a bucket.",
    )
