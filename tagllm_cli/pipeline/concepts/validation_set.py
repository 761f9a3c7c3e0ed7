"""Which pictures a card is tried on, and what the model confuses, from a table or a folder and from people's labels.

One pass, memory by labels and not by images: per label the pictures with the smallest hashes, so that a seed always
gives the same ones. A picture that the truth does not know, where there is one, is left out.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from tagllm_cli.errors import TableError, UsageError
from tagllm_cli.evaluation.truth import ImageMatch, Truth, load_truth, match_images, match_names
from tagllm_cli.labeling.answers.parse_list import render_names
from tagllm_cli.records import Decision, Image, Row, Status
from tagllm_cli.sources.base import Source
from tagllm_cli.sources.registry import open_source
from tagllm_cli.store.table import Table, open_table
from tagllm_cli.vocabulary.model import Vocabulary

# A label is confused where it was said of at least so many pictures that lack it, and these are at least this share of
# the pictures that it was said of.
LEAST_WRONG, LEAST_WRONG_SHARE = 3, 0.1
MOST_CAUSES = 3
_POOL_FACTOR = 16  # pictures at hand, per picture wanted where a label was not proposed

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A picture that a card is tried on: was the label proposed for it, is it there? None: nobody knows."""

    image: Image
    proposed: bool | None = None
    present: bool | None = None


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often a label was said of a picture that lacks it, and what these pictures show more often than others."""

    said: int
    wrong: int
    causes: tuple[str, ...] = ()

    def sentence(self, name: str) -> str:
        """Return this for the LLM."""
        shown = f"; these show more often than others: {render_names(self.causes)}" if self.causes else ""
        label = render_names([name])
        return f"The model said {label} of {self.said} pictures, and people say that {self.wrong} lack it{shown}."


@dataclass(frozen=True, slots=True)
class Gallery:
    """The pictures: where they lie, each label's sample, and the labels that the model confuses."""

    source: Source
    samples: Mapping[str, tuple[Exhibit, ...]]
    confusions: Mapping[str, Confusion] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A picture with the labels said of it, those it has, and those about which nothing can be said."""

    image: Image
    said: frozenset[str] | None
    true: frozenset[str] | None
    unclear: frozenset[str] = frozenset()

    def exhibit(self, name: str) -> Exhibit:
        proposed = None if self.said is None else name in self.said
        return Exhibit(self.image, proposed, None if self.true is None else name in self.true)

    @property
    def front(self) -> frozenset[str]:
        """The labels for which this is a picture to see: those said of it, else those it has."""
        return self.said if self.said is not None else self.true or frozenset()


def open_gallery(
    vocabulary: Vocabulary, table: Path | None, images: Path | None, truth: Path | None, size: int, seed: int
) -> Gallery:
    """Look through a table's or a folder's pictures for each label's sample of `size`, half as many more without it.

    Raises UsageError for files that cannot be used, TableError for a table over another vocabulary.
    """
    opened = None if table is None else open_table(table)
    if opened is not None and not set(vocabulary.names) & set(opened.info.vocabulary.names):
        raise TableError(
            f"{table} has no label of {vocabulary.name}", "Name a table that was made with this vocabulary."
        )
    people = None if truth is None else load_truth(truth)
    if opened is not None:
        source = open_source(str(images or opened.info.root))
        shown, ids = _of_table(opened), [row.image_id for row in opened.rows()] if people else []
    else:
        source = open_source(str(images))
        shown = (_Shown(image, None, None) for image in source.images())
        ids = [image.id for image in source.images()] if people else []
    if people is not None:
        matched = match_images(people, ids)
        if not matched.keys or not match_names(people, vocabulary).in_vocabulary:
            raise UsageError(
                f"{truth} and the pictures share no {'label' if matched.keys else 'image'}",
                "Name the truth that belongs to these pictures and this vocabulary.",
            )
        shown = _with_truth(shown, people, vocabulary, matched)
    sampler = _Sampler(vocabulary, size, seed)
    for each in shown:
        sampler.add(each)
    return Gallery(source, sampler.samples(), sampler.confusions())


def _of_table(table: Table) -> Iterator[_Shown]:
    for row in table.rows():
        if row.status in (Status.OK, Status.PARTIAL) and row.labels is not None:
            yield _Shown(Image(row.image_id, row.uri, 0, 0), *_said(row))


def _said(row: Row) -> tuple[frozenset[str], None, frozenset[str]]:
    entries = row.labels or ()
    said = frozenset(entry.name for entry in entries if entry.decision in (None, Decision.YES))
    unclear = frozenset(
        entry.name for entry in entries if entry.decision is Decision.UNKNOWN or entry.source == "human"
    )
    return said, None, unclear


def _with_truth(shown: Iterator[_Shown], truth: Truth, vocabulary: Vocabulary, images: ImageMatch) -> Iterator[_Shown]:
    names = match_names(truth, vocabulary)
    unjudged = frozenset(names.not_in_truth) if truth.exhaustive else frozenset()
    for each in shown:
        key = images.keys.get(each.image.id)
        if key is not None:
            in_vocabulary = names.in_vocabulary
            true = frozenset(in_vocabulary[name] for name in truth.labels[key] if name in in_vocabulary)
            unknown = frozenset(in_vocabulary[name] for name in truth.unknown.get(key, ()) if name in in_vocabulary)
            yield _Shown(each.image, each.said, true, each.unclear | unknown | unjudged)


class _Smallest(Generic[_Item]):
    """The `size` items of smallest rank."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[int, int, _Item]] = []
        self._count = 0

    def add(self, rank: int, item: _Item) -> None:
        self._count += 1
        entry = (-rank, self._count, item)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        elif -rank > self._heap[0][0]:
            heapq.heapreplace(self._heap, entry)

    def items(self) -> list[_Item]:
        return [item for _, _, item in sorted(self._heap, key=lambda entry: (-entry[0], entry[1]))]


class _Sampler:
    """Takes every picture once; knows each label's sample and confusion at the end."""

    def __init__(self, vocabulary: Vocabulary, size: int, seed: int) -> None:
        self._names, self._size, self._seed = vocabulary.names, size, seed
        self._with: dict[str, _Smallest[_Shown]] = {name: _Smallest(size) for name in vocabulary.names}
        self._pool: _Smallest[_Shown] = _Smallest(_POOL_FACTOR * max(1, size))
        self._images = 0
        self._true: Counter[str] = Counter()
        self._judged: Counter[str] = Counter()
        self._wrong: dict[str, Counter[str]] = {}
        self._wrong_count: Counter[str] = Counter()

    def add(self, shown: _Shown) -> None:
        key = f"{self._seed}\0{shown.image.id}".encode("utf-8", "surrogatepass")
        rank = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
        self._pool.add(rank, shown)
        for name in shown.front - shown.unclear:
            if name in self._with:
                self._with[name].add(rank, shown)
        if shown.said is not None and shown.true is not None:
            self._count(shown, shown.said - shown.unclear, shown.true)

    def _count(self, shown: _Shown, said: Collection[str], true: frozenset[str]) -> None:
        self._images += 1
        self._true.update(true)
        self._judged.update(said)
        for name in said:
            if name not in true:
                self._wrong_count[name] += 1
                self._wrong.setdefault(name, Counter()).update(true)

    def samples(self) -> dict[str, tuple[Exhibit, ...]]:
        pool = self._pool.items()
        is_blind = all(shown.said is None and shown.true is None for shown in pool)
        background = self._size // 2 + (self._size if is_blind else 0)  # nothing tells where a label might be
        samples = {}
        for name in self._names:
            without = [shown for shown in pool if name not in shown.front and name not in shown.unclear][:background]
            samples[name] = tuple(shown.exhibit(name) for shown in (*self._with[name].items(), *without))
        return samples

    def confusions(self) -> dict[str, Confusion]:
        found = {}
        for name in self._names:
            wrong, said = self._wrong_count[name], self._judged[name]
            if wrong >= LEAST_WRONG and wrong >= LEAST_WRONG_SHARE * said:
                found[name] = Confusion(said, wrong, self._causes(name))
        return found

    def _causes(self, name: str) -> tuple[str, ...]:
        """Return the labels that the wrong pictures have twice as often as all do, or more, by how far beyond that."""
        wrong = self._wrong_count[name]
        expected = {other: wrong * self._true[other] / self._images for other in self._wrong[name]}
        excess = {
            other: count - expected[other]
            for other, count in self._wrong[name].items()
            if count >= 2 and count >= 2 * expected[other]
        }
        return tuple(sorted(excess, key=lambda other: (-excess[other], other)))[:MOST_CAUSES]
