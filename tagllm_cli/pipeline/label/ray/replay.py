"""What workers tell is told to the host, as a worker in this process would; what is on record is sent to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from tagllm_cli.labeling.rows import proposals
from tagllm_cli.labeling.stage import Stage
from tagllm_cli.pipeline.label.pending import PendingImage
from tagllm_cli.pipeline.label.ray.blocks import Piece
from tagllm_cli.pipeline.label.ray.cluster import WorkerDied
from tagllm_cli.pipeline.label.ray.serving import Engines, Serving
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
    Trouble,
)
from tagllm_cli.pipeline.label.reads import ReadImage
from tagllm_cli.pipeline.label.worker import Host
from tagllm_cli.records import Failure, ImageInfo, Request, Response
from tagllm_cli.sources.base import ReadFailure


class Replay:
    """Tells `host` what happens; `ended` is called with each piece that came to its end.

    `finished` counts images, `is_whole`: no piece was left or stopped.
    """

    def __init__(self, host: Host, stages: Sequence[Stage], engines: Engines, ended: Callable[[Piece], None]) -> None:
        self._host, self._stages, self._engines, self._ended_piece = host, stages, engines, ended
        self._responses: dict[tuple[int, bytes], list[tuple[Request, Response]]] = defaultdict(list)
        self._infos: dict[str, ImageInfo] = {}  # of images in flight, by id
        self.finished = 0
        self.is_whole = True

    def block(self, piece: Piece, allowance: int | None) -> Block:
        """Return a piece as it travels, with the answers on record; `allowance` is that of Block."""
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
            allowance,
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

    async def tell(self, serving: Serving, event: Event) -> None:
        """Tell what happened at a worker. Raises what the host raises, WorkerDied, and what ended the worker's work."""
        host = self._host
        match event:
            case Ready():
                serving.capacity, serving.gpus = event.capacity, event.gpus
                host.started(event.version, self._engines.ready())
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

    async def _found(self, serving: Serving, event: Found) -> None:
        piece = serving.pieces[event.block]
        data = b"" if event.failure is None else ReadFailure(*event.failure)
        image = self._host.read(ReadImage(event.image, data, position=event.position))
        if image is None or piece.done.get(event.image.id) == event.image.version:
            return
        piece.images[event.image.id] = image
        if not piece.lists_only:
            await self._host.may_ask(0, image.missing)  # ends the run where the budget is used up

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

    async def _finished(self, serving: Serving, event: Finished) -> None:
        piece = serving.pieces[event.block]
        image = piece.images.pop(event.id, None)
        info = self._infos.pop(event.id, None)
        for step in range(len(self._stages)):
            if info is not None and (responses := self._responses.pop((step, info.fingerprint), None)):
                await self._host.asked(step, responses)
        self.finished += 1
        if image is not None:
            if piece.is_unread:
                piece.done[event.id] = image.item.image.version
            self._host.finished(image, is_complete=event.is_complete)

    def _ended(self, serving: Serving, event: Ended) -> None:
        piece = serving.pieces.pop(event.block)
        self._ended_piece(piece)
        self.is_whole &= event.is_whole
        if event.is_whole and piece.is_unread and piece.read is not None:
            self._host.ended(piece.read)

    def forget(self, piece: Piece) -> None:
        """A worker died with this piece: what was found out about its images since travels with them."""
        for id_, image in piece.images.items():
            if (info := self._infos.pop(id_, None)) is None:
                continue
            for step in range(len(self._stages)):
                self._responses.pop((step, info.fingerprint), None)
            if info.failure is None:
                piece.images[id_] = replace(image, item=replace(image.item, info=info))

    def given_up(self, image: PendingImage, failure: Failure) -> None:
        """An image is not tried again."""
        self._host.opened(image, ImageInfo(b"", failure=failure))
        self._host.finished(image, is_complete=False)
