"""What the workers are given: blocks of images, those of dead workers once more, an image that kills workers no more.

A death says nothing about which of the images in flight caused it. All of them are tried again, together at first. One
that was in flight at two deaths is then given to a worker alone, so that no other one is blamed for a third death.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from tagllm_cli.errors import SourceError
from tagllm_cli.pipeline.label.pending import PendingImage
from tagllm_cli.pipeline.label.reads import ShardRead, Work
from tagllm_cli.records import Image

IMAGES_PER_BLOCK = 16
IMAGES_PER_SHARD_BLOCK = 256  # of one shard, read as a stream
MOST_DEATHS = 3
_LOOKS = 1000  # at images that need not be read, before others get their turn


@dataclass(slots=True)
class Piece:
    """Images that travel together. `images` are those not finished, by id; of an unread shard, those found so far.

    Of an unread shard: `done` are the ids that need not be asked about, with their versions; `deaths` counts workers
    that died over it; `lists_only`: its images are to become known, and nothing is asked.
    """

    images: dict[str, PendingImage]
    read: ShardRead | None = None
    is_alone: bool = False
    done: dict[str, str] = field(default_factory=dict)
    deaths: int = 0
    lists_only: bool = False
    number: int = 0

    @property
    def is_unread(self) -> bool:
        """Whether nobody knows yet what is in the shard."""
        return self.read is not None and self.read.images is None

    @property
    def requests(self) -> int | None:
        """How many requests there are about the images; None: nobody knows."""
        return None if self.is_unread else sum(image.missing for image in self.images.values())


class Blocks:
    """Hands out pieces of the work; `admitted` is called with the number of images once there are no more."""

    def __init__(self, admitted: Callable[[int], None]) -> None:
        self._work: Iterator[Work] = iter(())
        self._admitted = admitted
        self._again: deque[Piece] = deque()
        self._suspects: deque[Piece] = deque()
        self._deaths: Counter[str] = Counter()
        self._in_flight = 0
        self._images = self._numbers = 0
        self._next: Work = None
        self._has_more = True
        self._changed = asyncio.Event()
        self.is_closed = False

    def begin(self, work: Iterator[Work]) -> None:
        """Set the work; before that there is none."""
        self._work = work

    @property
    def is_done(self) -> bool:
        """Whether all was handed out and came back."""
        return not (self._has_more or self._again or self._suspects or self._in_flight)

    async def next(self, has_room: Callable[[], bool], is_free: Callable[[], bool]) -> Piece | None:
        """Return what a worker is to do next, None where nothing will come any more.

        `has_room`: whether it can take more; `is_free`: whether nothing of it is in flight.
        """
        while not (self.is_done or self.is_closed):
            piece = None
            if self._suspects and is_free():
                piece = self._suspects.popleft()
            elif has_room():
                piece = self._again.popleft() if self._again else await self._fresh()
            if piece is not None:
                self._numbers += 1
                piece.number = self._numbers
                self._in_flight += 1
                return piece
            if not (self.is_done or self.is_closed):
                self._changed.clear()
                await self._changed.wait()
        self._changed.set()
        return None

    async def first(self) -> Image | None:
        """Return the first image of all, None where nobody knows it yet."""
        if (piece := await self._fresh()) is None:
            return None
        self._again.append(piece)
        return next((image.item.image for image in piece.images.values()), None)

    async def wait(self) -> None:
        """Wait until all was handed out and came back, or nothing more is handed out and what was has come back."""
        while not (self.is_done or (self.is_closed and not self._in_flight)):
            self._changed.clear()
            await self._changed.wait()

    def look_again(self) -> None:
        """A worker can take another block."""
        self._changed.set()

    def ended(self, piece: Piece) -> None:
        """A piece came to its end; what was not finished of it is not tried again in this run."""
        self._in_flight -= 1
        if piece.lists_only:
            self._again.extend(_known(piece))
        self._changed.set()

    def give_back(self, piece: Piece) -> None:
        """A piece was not handed out after all."""
        self._in_flight -= 1
        self._again.appendleft(piece)
        self._changed.set()

    def died(self, pieces: Sequence[Piece], *, blames: bool) -> list[PendingImage]:
        """A worker died with these pieces in flight; return the images that are not tried again.

        `blames`: one of the images may be the reason. Raises SourceError where workers die of reading a shard.
        """
        given_up = []
        for piece in pieces:
            self._in_flight -= 1
            if piece.is_unread:
                self._again.append(self._once_more(piece, blames))
                known = list(_known(piece)) if not piece.lists_only else []
            else:
                known = [piece]
            for each in known:
                if blames:
                    given_up += self._try_again(each)
                else:
                    self._again.append(each)
        self._changed.set()
        return given_up

    def _once_more(self, piece: Piece, blames: bool) -> Piece:
        """Return the unread shard without what was found of it: those images are known now."""
        done = {**piece.done, **{id_: image.item.image.version for id_, image in piece.images.items()}}
        deaths = piece.deaths + blames
        if deaths > 2 * MOST_DEATHS:
            assert piece.read is not None
            raise SourceError(f"{deaths} workers died while they read {piece.read.shard.name}", "Look at that file.")
        # A worker may die of an image before it could tell that there is one.
        return Piece({}, piece.read, done=done, deaths=deaths, lists_only=deaths >= MOST_DEATHS)

    def _try_again(self, piece: Piece) -> list[PendingImage]:
        given_up = []
        together: list[PendingImage] = []
        for id_, image in piece.images.items():
            self._deaths[id_] += 1
            if self._deaths[id_] >= MOST_DEATHS and piece.is_alone:
                given_up.append(image)
            elif self._deaths[id_] >= MOST_DEATHS - 1:
                self._suspects.append(replace(_piece([image], piece.read), is_alone=True))
            else:
                together.append(image)
        if together:
            self._again.append(_piece(together, piece.read))
        return given_up

    async def _fresh(self) -> Piece | None:
        """Return the next piece of the work, None where there is none."""
        images: dict[str, PendingImage] = {}
        looks = 0
        while self._has_more and len(images) < IMAGES_PER_BLOCK:
            looks += 1
            if looks % _LOOKS == 0:
                await asyncio.sleep(0)
            try:
                work, self._next = (self._next or next(self._work)), None
            except StopIteration:
                self._has_more = False
                self._admitted(self._images + len(images))
                self._changed.set()
                break
            if isinstance(work, ShardRead):
                if images:
                    self._next = work
                    break
                return self._of_shard(work)
            if work is not None:
                images[work.item.image.id] = work
        self._images += len(images)
        return Piece(images) if images else None

    def _of_shard(self, read: ShardRead) -> Piece:
        if read.images is None:
            done = {image.id: image.version for image, pending in read.known if pending is None}
            return Piece({}, read, done=done)
        some, rest = read.images[:IMAGES_PER_SHARD_BLOCK], read.images[IMAGES_PER_SHARD_BLOCK:]
        self._next = ShardRead(read.shard, rest) if rest else None
        self._images += len(some)
        return _piece(some, read)


def _piece(images: Sequence[PendingImage], read: ShardRead | None) -> Piece:
    by_id = {image.item.image.id: image for image in images}
    return Piece(by_id, None if read is None else ShardRead(read.shard, images))


def _known(piece: Piece) -> Iterator[Piece]:
    """Yield pieces of the images that were found in an unread shard and are not finished."""
    images = list(piece.images.values())
    for start in range(0, len(images), IMAGES_PER_SHARD_BLOCK):
        yield _piece(images[start : start + IMAGES_PER_SHARD_BLOCK], piece.read)
