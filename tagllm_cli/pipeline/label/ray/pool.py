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
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import tagllm_cli
from tagllm_cli.engines.base import Engine
from tagllm_cli.errors import EngineDiedError
from tagllm_cli.labeling.rows import proposals
from tagllm_cli.labeling.stage import Stage
from tagllm_cli.pipeline.label.concurrency import first
from tagllm_cli.pipeline.label.pending import PendingImage
from tagllm_cli.pipeline.label.ray.blocks import MOST_DEATHS, Blocks, Piece
from tagllm_cli.pipeline.label.ray.cluster import Cluster, RemoteWorker, WorkerDied
from tagllm_cli.pipeline.label.ray.wire import (
    Answered,
    Block,
    Ended,
    Event,
    Failed,
    Finished,
    Found,
    Opened,
    Ready,
    Recorded,
    Setup,
    Trouble,
)
from tagllm_cli.pipeline.label.reads import ReadImage, Work
from tagllm_cli.pipeline.label.worker import DRAIN_SECONDS, Host, Settings
from tagllm_cli.records import Failure, ImageInfo, Request, Response
from tagllm_cli.sources.base import ReadFailure, Source, read_or_failure

# Deaths of workers while nothing was finished: the machines or the model are the reason, not the images.
MOST_DEATHS_IN_A_ROW = 12  # and one more per worker
MOST_DEATHS_AT_START = 3  # of one worker and its successors
RESTART_SECONDS = 0.5
CLOSE_SECONDS = 10.0
# Until a worker's engine has said how much it takes.
FIRST_REQUESTS = 128

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Serving:
    """A worker with what is in flight at it."""

    remote: RemoteWorker
    pieces: dict[int, Piece] = field(default_factory=dict)
    questions: list[Request] = field(default_factory=list)
    capacity: int = 0
    gpus: int | None = None
    node: str = ""
    trouble: str | None = None
    task: asyncio.Task[None] | None = None

    @property
    def requests(self) -> int:
        """Requests in flight; a shard that nobody knows counts as all that the engine takes."""
        most = self.capacity or FIRST_REQUESTS
        return sum(most if piece.requests is None else piece.requests for piece in self.pieces.values())

    def has_room(self) -> bool:
        """Whether another block would keep the engine from running dry."""
        is_alone = any(piece.is_alone for piece in self.pieces.values())
        return not is_alone and self.requests < 2 * (self.capacity or FIRST_REQUESTS)

    def is_free(self) -> bool:
        """Whether nothing is in flight."""
        return not self.pieces


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
        self.engine = _Engines()
        self._blocks = Blocks(host.admitted)
        self._shared: object = None  # the setup, as workers get it
        self._responses: dict[tuple[int, bytes], list[tuple[Request, Response]]] = defaultdict(list)
        self._infos: dict[str, ImageInfo] = {}  # of images in flight, by id
        self._deaths = 0  # since an image was finished

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
        try:
            await self._find_probe()
            serving = [asyncio.create_task(self._keep()) for _ in range(self._cluster.workers)]
        except Exception as error:
            self.fail(error)
            return
        try:
            await first(self._blocks.wait(), self.stop.wait())
            running = [each for each in self.engine.serving if each.node]
            if self.stop.is_set() and self.error is None:
                for each in running:
                    each.remote.stop()
            if (tasks := [each.task for each in running if each.task is not None]) and self.error is None:
                await asyncio.wait(tasks, timeout=DRAIN_SECONDS + 1 if self.stop.is_set() else CLOSE_SECONDS)
        finally:
            self.has_left |= not self._blocks.is_done
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
            serving = _Serving(self._cluster.worker(self._shared), task=asyncio.current_task())
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
        if image is not None and not isinstance(
            await asyncio.to_thread(read_or_failure, self._source, image), ReadFailure
        ):
            setup = replace(setup, probe=image)
        self._shared = self._cluster.share(setup)

    async def _feed(self, serving: _Serving) -> None:
        """Keep a worker supplied until there is nothing more."""
        piece = None
        try:
            while piece := await self._blocks.next(serving.has_room, serving.is_free):
                allowance = None
                if piece.requests is not None:
                    allowance = await self._host.may_ask(0, piece.requests)
                    if not allowance and piece.requests:
                        break
                serving.remote.take(replace(self._block(piece), allowance=allowance))
                serving.pieces[piece.number] = piece
                piece = None
            serving.remote.leave()
        except Exception as error:
            self.fail(error)
        finally:
            if piece is not None:
                self._blocks.give_back(piece)

    def _block(self, piece: Piece) -> Block:
        images = [] if piece.is_unread else list(piece.images.values())
        started = images
        if piece.is_unread and piece.read is not None and not piece.deaths:
            started = [image for _, image in piece.read.known if image is not None]
        recorded = {}
        for image in started:
            info = image.item.info
            if info is not None and info.fingerprint and (found := self._recorded(image, info.fingerprint)):
                recorded[info.fingerprint] = found
        return Block(
            piece.number,
            [image.item for image in images],
            None if piece.read is None else piece.read.shard,
            piece.is_unread,
            recorded,
            piece.done,
            piece.lists_only,
        )

    def _recorded(self, image: PendingImage, fingerprint: bytes) -> Recorded:
        """Return the answers on record about an image, of each stage whose questions are known by them; () for none."""
        found: list[Sequence[Response | None]] = []
        item, requests = image.item, image.requests
        for step, stage in enumerate(self._stages):
            found.append(self._host.recorded(step, fingerprint, requests))
            if step + 1 == len(self._stages) or any(response is None for response in found[-1]):
                break
            item = replace(item, proposed=proposals(stage.row(item, found[-1])))
            requests = self._stages[step + 1].requests(item)
        return found if any(response is not None for each in found for response in each) else ()

    async def _listen(self, serving: _Serving) -> None:
        """Tell the host what happens at a worker, until it has ended."""
        feeding = None
        try:
            async for batch in serving.remote.batches():
                serving.node = batch.node
                serving.questions += batch.questions
                for event in batch.events:
                    await self._tell(serving, event)
                feeding = feeding or asyncio.create_task(self._feed(serving))
                self._blocks.look_again()
        finally:
            if feeding is not None:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
        if serving.pieces and not self.stop.is_set():
            raise WorkerDied("it ended early")

    async def _tell(self, serving: _Serving, event: Event) -> None:
        host = self._host
        match event:
            case Ready():
                serving.capacity, serving.gpus = event.capacity, event.gpus
                host.started(event.version, self.engine.ready())
            case Found():
                await self._found(serving, event)
            case Opened():
                self._opened(serving.pieces[event.block], event)
            case Answered():
                request = serving.questions[event.question]
                host.answered(event.step, event.fingerprint, request, event.response)
                self._responses[event.step, event.fingerprint].append((request, event.response))
                if event.step:
                    await host.may_ask(event.step, 1)
            case Finished():
                await self._finished(serving, event)
            case Ended():
                self._ended(serving, event)
            case Trouble():
                serving.trouble = event.message
            case Failed():
                if event.is_engine:
                    raise WorkerDied(str(event.error))
                raise event.error

    async def _found(self, serving: _Serving, event: Found) -> None:
        piece = serving.pieces[event.block]
        data = b"" if event.failure is None else ReadFailure(*event.failure)
        image = self._host.read(ReadImage(event.image, data, position=event.position))
        if image is None or piece.done.get(event.image.id) == event.image.version:
            return
        piece.images[event.image.id] = image
        if not piece.lists_only:
            await self._host.may_ask(0, image.missing)  # it says so itself where the budget is used up

    def _opened(self, piece: Piece, event: Opened) -> None:
        image = piece.images.get(event.id)
        if image is None:
            return
        if not piece.is_unread:
            failure, data = event.info.failure, b""
            unread = failure is not None and not event.info.fingerprint
            read = ReadFailure(failure.kind, failure.message) if failure is not None and unread else data
            self._host.read(ReadImage(image.item.image, read, image))
        self._infos[event.id] = event.info
        self._host.opened(image, event.info)

    async def _finished(self, serving: _Serving, event: Finished) -> None:
        piece = serving.pieces[event.block]
        image = piece.images.pop(event.id, None)
        info = self._infos.pop(event.id, None)
        for step in range(len(self._stages)):
            if info is not None and (responses := self._responses.pop((step, info.fingerprint), None)):
                await self._host.asked(step, responses)
        self._deaths = 0
        if image is not None:
            if piece.is_unread:
                piece.done[event.id] = image.item.image.version
            self._host.finished(image, is_complete=event.is_complete)

    def _ended(self, serving: _Serving, event: Ended) -> None:
        piece = serving.pieces.pop(event.block)
        self._blocks.ended(piece)
        self.has_left |= not event.is_whole
        if event.is_whole and piece.is_unread and piece.read is not None:
            self._host.ended(piece.read)

    def _bury(self, serving: _Serving, death: WorkerDied, deaths_at_start: int) -> None:
        """Have the images of a dead worker tried again; raises nothing, but may end the run."""
        if self.stop.is_set():
            return
        logger.warning("a worker on %s died: %s", serving.node or "Ray", death)
        for piece in serving.pieces.values():
            for id_, image in piece.images.items():
                if (info := self._infos.pop(id_, None)) is None:
                    continue
                for step in range(len(self._stages)):
                    self._responses.pop((step, info.fingerprint), None)
                if info.failure is None:  # then what it was asked before the death travels with it
                    piece.images[id_] = replace(image, item=replace(image.item, info=info))
        self._deaths += 1
        if deaths_at_start >= MOST_DEATHS_AT_START:
            self.fail(EngineDiedError(f"a worker on Ray dies whenever it starts: {death}", _LOGS))
        elif self._deaths >= MOST_DEATHS_IN_A_ROW + self._cluster.workers:
            self.fail(EngineDiedError(f"{self._deaths} workers on Ray died one after the other: {death}", _LOGS))
        else:
            self._try_again(serving)

    def _try_again(self, serving: _Serving) -> None:
        try:
            for image in self._blocks.died(list(serving.pieces.values()), blames=bool(serving.capacity)):
                failure = Failure("worker_died", f"{MOST_DEATHS} workers died while they labeled it")
                self._host.opened(image, ImageInfo(b"", failure=failure))
                self._host.finished(image, is_complete=False)
                self._deaths = 0
        except Exception as error:
            self.fail(error)


_LOGS = "The logs of Ray tell more: its dashboard, or /tmp/ray/session_latest/logs on the machine."


class _Engines:
    """The engines of all workers as one: for how long one was ready, and what keeps them from answering."""

    def __init__(self) -> None:
        self.serving: list[_Serving] = []
        self._since = 0.0

    def ready(self) -> int | None:
        """One more engine is ready; return on how many GPUs all are, None where nobody knows."""
        self._since = self._since or time.monotonic()
        return sum(each.gpus or 0 for each in self.serving if each.capacity) or None

    @property
    def seconds(self) -> float:
        """Seconds since the first engine was ready."""
        return time.monotonic() - self._since if self._since else 0.0

    @property
    def trouble(self) -> str | None:
        """What keeps requests from being answered."""
        if self.serving and not any(each.node for each in self.serving):
            return "no worker runs yet: Ray is starting one, or has no place for it"
        return next((each.trouble for each in self.serving if each.trouble), None)
