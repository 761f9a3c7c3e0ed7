"""What a run reads, in source order: files of images that lack responses, parts of shards, shards that nobody knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tagllm_cli.labeling.stage import Stage
from tagllm_cli.pipeline.label.pending import (
    PendingImage,
    RequestKeys,
    have_failed,
    missing_requests,
    pending_image,
    pending_images,
)
from tagllm_cli.pipeline.label.recorder import Recorder
from tagllm_cli.records import Image, Shard
from tagllm_cli.sources.base import IMAGES_PER_STREAM, ReadFailure, Source
from tagllm_cli.store.evidence import Evidence


@dataclass(frozen=True, slots=True)
class ShardRead:
    """A shard to be read: `images` of it in order; None: all that there are, since nobody knows them yet.

    `known` are images of such a shard that an earlier run found before it ended; None for what a complete one lacks.
    """

    shard: Shard
    images: Sequence[PendingImage] | None = None
    known: Sequence[tuple[Image, PendingImage | None]] = ()


@dataclass(frozen=True, slots=True)
class ReadImage:
    """An image with its bytes or why there are none; `pending` is None where it was not known before.

    `position` is its place in its shard, from 0, where the shard is read for the first time.
    """

    image: Image
    data: bytes | ReadFailure
    pending: PendingImage | None = None
    position: int = 0


# What is to be read next; None: an image that need not be read.
Work = PendingImage | ShardRead | None


class Reads:
    """The reads of one run, and the record of what they find in shards that nobody has read yet."""

    def __init__(
        self, stage: Stage, evidence: Evidence, keys: RequestKeys, recorder: Recorder, source: Source, *, by_hash: bool
    ) -> None:
        self._stage, self._evidence, self._keys = stage, evidence, keys
        self._recorder, self._source, self._by_hash = recorder, source, by_hash
        self._damaged: set[str] = set()  # names of shards that could not be read to their end

    def work(self, *, listed_only: bool) -> Iterator[Work]:
        """Yield what to read. An image whose responses are all on record, under another image's name, is completed; one
        whose missing requests have all failed in this run already is left to another run.
        """
        for shard, is_unread in self._evidence.shards(listed_only=listed_only):
            if is_unread:
                yield ShardRead(shard, known=self._known(shard))
            elif self._source.is_ordered:
                yield from self._streams(shard, listed_only=listed_only)
            else:
                yield from self._lacking(shard, listed_only=listed_only)

    def _streams(self, shard: Shard, *, listed_only: bool) -> Iterator[Work]:
        """Yield the images of a shard that lack responses, many at a time, and None for each other one."""
        some: list[PendingImage] = []
        for image in self._lacking(shard, listed_only=listed_only):
            if image is None:
                yield None
                continue
            some.append(image)
            if len(some) == IMAGES_PER_STREAM:
                yield ShardRead(shard, some)
                some = []
        if some:
            yield ShardRead(shard, some)

    def _known(self, shard: Shard) -> Sequence[tuple[Image, PendingImage | None]]:
        return [
            (item.image, pending_image(item, completed, self._stage, self._keys))
            for item, completed in self._evidence.iter_items(shard=shard.name)
        ]

    def found(self, read: ReadImage) -> PendingImage | None:
        """Record an image of an unread shard; return it if it lacks responses."""
        image = read.image
        if image.id == image.shard:
            self._damaged.add(image.shard)
        self._recorder.found(read.position, image, by_hash=self._by_hash)
        item, completed = self._evidence.item_to_ask(image.id)
        pending = pending_image(item, completed, self._stage, self._keys)
        return None if pending is None else self._with_missing(pending)

    def end(self, read: ShardRead) -> None:
        """Record that an unread shard was read to its end; one that is damaged is read again by the next run."""
        if read.images is None:
            if read.shard.name not in self._damaged:
                self._recorder.finish_shard(read.shard)
            self._damaged.discard(read.shard.name)

    def _lacking(self, shard: Shard, *, listed_only: bool) -> Iterator[PendingImage | None]:
        pending = pending_images(self._stage, self._evidence, self._keys, listed_only=listed_only, shard=shard.name)
        for image in pending:
            yield None if image is None else self._with_missing(image)

    def _with_missing(self, image: PendingImage) -> PendingImage | None:
        missing = missing_requests(image.item, image.requests, self._evidence, self._keys)
        if not missing:
            self._recorder.completed(image.item.image.id, image.requests_hash)
            return None
        if have_failed(image.item, missing, self._evidence, self._keys):
            return None
        return replace(image, missing=len(missing))
