"""The source of a run compared with the record: which images there are, which shards need not be opened again.

A shard whose version is on record is not listed; one that would have to be read for it is left to the scheduler, unless
the options choose among the images.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from tagllm_cli.errors import SourceError, TableError, UsageError
from tagllm_cli.records import Item, Shard
from tagllm_cli.sources.base import Source, SourceOptions, no_images
from tagllm_cli.store.evidence import Evidence

# More than this share of the images gone at once looks like a disk that is not mounted.
GONE_SHARE = 0.1

# Options that say which shards there are, and not which images of a shard: here as their defaults.
_CHOOSE_SHARDS: dict[str, Any] = {"pattern": "", "splits": (), "skip_unreadable": False}


@dataclass(frozen=True, slots=True)
class Part:
    """The `index`-th of `count` parts of a source, counted from 0: whole shards, or images where there are none.

    Membership is a hash of the name: whatever else comes or goes, everything stays in its part.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"--shard {self.index}/{self.count} does not exist", f"Parts count from 0: 0/{self.count} comes first."
            )

    @classmethod
    def of(cls, text: str) -> Part:
        """Return the part that `--shard` names: `0/64`. Raises UsageError."""
        found = re.fullmatch(r"(\d+)/([1-9]\d*)", text.strip())
        if found is None:
            raise UsageError(
                f"--shard takes I/N, not {text!r}",
                "For example --shard 0/64, the first of 64 parts: they count from 0.",
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, shard: Shard, item: Item | None = None) -> bool:
        """Tell whether a shard belongs to the part, or an `item` of it where the shard has no name.

        >>> [Part(index, 3).has(Shard("0.tar")) for index in range(3)]
        [False, True, False]
        """
        name = shard.name or ("" if item is None else item.image.id)
        return not name or int.from_bytes(_hash(name), "big") % self.count == self.index


@dataclass(frozen=True, slots=True)
class Selection:
    """Which images of a source a run is about: those of `part`, of these a `sample`, of these the first `limit`.

    `is_part`: whatever is not chosen by `part` does not belong to the table; the others only have to wait.
    """

    part: Part | None = None
    sample: int | None = None
    limit: int | None = None
    seed: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether every image that belongs to the table is chosen."""
        return self.limit is None and self.sample is None

    def of(self, numbered: Iterator[tuple[int, Item]]) -> Iterator[tuple[int, Item]]:
        """Yield the (position, item) that are chosen."""
        if self.part is not None:
            part = self.part
            numbered = (pair for pair in numbered if part.has(Shard(pair[1].image.shard), pair[1]))
        if self.sample is not None:
            # The smallest hashes: the same images for a seed, whatever else comes or goes.
            ordered = enumerate(numbered)
            chosen = heapq.nsmallest(self.sample, ordered, key=lambda each: self._rank(each[1][1].image.id))
            numbered = iter([pair for _, pair in sorted(chosen, key=lambda each: each[0])])
        return islice(numbered, self.limit)

    def _rank(self, image_id: str) -> bytes:
        return _hash(f"{self.seed}\0{image_id}")


def list_source(
    source: Source,
    items: Callable[[], Iterator[Item]] | None,
    evidence: Evidence,
    selection: Selection,
    *,
    by_hash: bool,
) -> None:
    """Take what the source has now into the evidence's temporary tables; nothing is merged yet.

    `items` is what an earlier table says about all images; None: the source itself is listed. With `by_hash` no
    version on record is trusted.
    """
    _check_part(evidence, selection.part)
    evidence.begin_listing()
    if items is not None:
        evidence.list_images(selection.of(enumerate(items())))
        return
    if not _takes_the_same(source, evidence):
        evidence.forget_shards()
    trusted = evidence if not by_hash else None
    shards = (shard for shard in source.shards() if selection.part is None or selection.part.has(shard))
    if selection.is_complete:
        for shard in shards:
            if trusted is not None and trusted.knows_shard(shard):
                evidence.keep_shard(shard)
            else:
                relist(source, evidence, selection, shard)
    else:
        evidence.list_images(selection.of(_numbered(source, shards, trusted)))


def relist(source: Source, evidence: Evidence, selection: Selection, shard: Shard) -> None:
    """Take in the images of a shard, or that they become known when it is read."""
    if source.lists_by_reading:
        evidence.leave_unread(shard)
    else:
        evidence.list_shard(shard, selection.of(enumerate(map(Item, source.images(shard)))))


def _takes_the_same(source: Source, evidence: Evidence) -> bool:
    """Tell whether the options take the same images of a shard as those under which the shards were recorded."""
    recorded = evidence.meta("source", derived=True)
    if recorded is None:
        return True
    now, before = (
        replace(SourceOptions.from_json(options), **_CHOOSE_SHARDS)
        for options in (source.describe().options, recorded["options"])
    )
    return now == before


def _numbered(source: Source, shards: Iterator[Shard], trusted: Evidence | None) -> Iterator[tuple[int, Item]]:
    """Yield all images with their positions, from the record where that is as good."""
    for shard in shards:
        if trusted is not None and trusted.knows_shard(shard):
            recorded = trusted.iter_recorded(shard.name)
            yield from ((image.position, Item(image.item().image)) for image in recorded)
        else:
            yield from enumerate(map(Item, source.images(shard)))


def _check_part(evidence: Evidence, part: Part | None) -> None:
    """Raise TableError where the table holds another part: the images of one would be taken for gone."""
    before = evidence.meta("part")
    if part is not None and evidence.count_images() and before != str(part):
        holds = "the whole source" if before is None else f"--shard {before}"
        raise TableError(f"the table holds {holds}, not --shard {part}", "Choose another --out for each part.")
    now = None if part is None else str(part)
    if now != before:
        evidence.set_meta("part", now, revises=False)


def check_gone(source: Source, gone: int, known: int) -> None:
    """Raise SourceError where so many images are gone that it looks like a disk that is not mounted."""
    if gone > GONE_SHARE * known:
        raise SourceError(
            f"{gone:,} of {known:,} images on record are gone from {source.describe().uri}",
            "If that is meant, say --allow-gone; else look whether the disk is mounted.",
        )


def check_not_empty(source: Source, images: int, part: Part | None) -> None:
    """Raise SourceError where a listing has found nothing; a part may be empty as long as the source is not."""
    if not images and (part is None or not _has_images(source)):
        raise no_images(source)


def _has_images(source: Source) -> bool:
    return any(shard.name or any(True for _ in source.images(shard)) for shard in source.shards())


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
