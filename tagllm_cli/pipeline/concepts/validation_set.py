"""The validation set of each label, and the labels that the model confuses, from a table or source and ground truth.

One pass; memory depends on the labels, not on the images: per label the images with the smallest hashes, so that a seed
always gives the same ones. Where there is ground truth, images that it lacks are left out.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from tagllm_cli.errors import TableError, UsageError
from tagllm_cli.evaluation.truth import (
    ImageMatch,
    TableContext,
    Truth,
    TruthOptions,
    load_truth,
    match_images,
    match_names,
)
from tagllm_cli.labeling.answers.parse_list import render_names
from tagllm_cli.labeling.human import HumanOverlay
from tagllm_cli.records import Decision, Image, Row, Status
from tagllm_cli.sources.base import Source, SourceOptions, list_images, recall
from tagllm_cli.sources.registry import open_source, reopen
from tagllm_cli.store.table import Table, open_table
from tagllm_cli.vocabulary.model import Vocabulary

# A label is confused where at least this many of its predictions are wrong, and at least this share of them.
MIN_WRONG, MIN_WRONG_SHARE = 3, 0.1
MAX_CAUSES = 3
_POOL_FACTOR = 16  # images kept for the sets of labels that are not proposed there, per image in a set

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class ValidationExample:
    """A validation image: was the label proposed, is it present? None: not known."""

    image: Image
    proposed: bool | None = None
    present: bool | None = None


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often a label was predicted for images that lack it, and the labels that these images have more often."""

    predicted: int
    wrong: int
    causes: tuple[str, ...] = ()

    def sentence(self, name: str) -> str:
        """Return the confusion as a sentence of the prompt. Its words are part of the request's identity."""
        shown = f"; these show more often than others: {render_names(self.causes)}" if self.causes else ""
        label = render_names([name])
        return f"The model said {label} of {self.predicted} pictures, and people say that {self.wrong} lack it{shown}."


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """The images' source, each label's validation examples, and the labels that the model confuses."""

    source: Source
    samples: Mapping[str, tuple[ValidationExample, ...]]
    confusions: Mapping[str, Confusion] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _LabeledImage:
    """An image with its predicted labels, its true labels (None: not known), and those that are undecided."""

    image: Image
    predicted: frozenset[str] | None
    true: frozenset[str] | None
    undecided: frozenset[str] = frozenset()

    def example(self, name: str) -> ValidationExample:
        proposed = None if self.predicted is None else name in self.predicted
        return ValidationExample(self.image, proposed, None if self.true is None else name in self.true)

    @property
    def positives(self) -> frozenset[str]:
        """The labels for which this is a positive example: the predicted ones, else the true ones."""
        return self.predicted if self.predicted is not None else self.true or frozenset()


def open_validation_set(
    vocabulary: Vocabulary,
    table: Path | None,
    images: str | None,
    truth: Path | None,
    size: int,
    seed: int,
    source_options: SourceOptions = SourceOptions(),  # noqa: B008 (frozen)
    truth_options: TruthOptions = TruthOptions(),  # noqa: B008 (frozen)
    source_format: str | None = None,
) -> ValidationSet:
    """Sample `size` validation examples per label from a table's or a source's images, half as many more without it.

    Raises UsageError for files that cannot be used, TableError for a table over another vocabulary.
    """
    opened = None if table is None else open_table(table)
    if opened is not None and not set(vocabulary.names) & set(opened.info.vocabulary.names):
        raise TableError(
            f"{table} has no label of {vocabulary.name}", "Name a table that was made with this vocabulary."
        )
    if opened is not None:
        source = reopen(opened.info.source, images, root_option="--images")
        rows = HumanOverlay(opened.info).model_row if truth_options.human_only else None
        shown, ids = _of_table(opened, source, rows), [row.image_id for row in opened.rows()] if truth else []
    else:
        source = open_source(images or "", source_options, source_format)
        shown = (_LabeledImage(image, None, None) for image in list_images(source))
        ids = [image.id for image in list_images(source)] if truth else []
    if truth is not None:
        ground_truth = load_truth(truth, truth_options, TableContext(ids, vocabulary))
        matched = match_images(ground_truth, ids)
        if not matched.keys or not match_names(ground_truth, vocabulary).in_vocabulary:
            raise UsageError(
                f"{truth} and the images share no {'label' if matched.keys else 'image'}",
                "Name the truth that belongs to these images and this vocabulary.",
            )
        shown = _with_truth(shown, ground_truth, vocabulary, matched)
    sampler = _Sampler(vocabulary, size, seed)
    for each in shown:
        sampler.add(each)
    return ValidationSet(source, sampler.samples(), sampler.confusions())


def _of_table(table: Table, source: Source, view: Callable[[Row], Row] | None) -> Iterator[_LabeledImage]:
    """Yield the answered images; `view` says what the model alone said, where people's decisions are the truth."""
    for row in map(view, table.rows()) if view else table.rows():
        if row.status in (Status.OK, Status.PARTIAL) and row.labels is not None:
            yield _LabeledImage(recall(source, row.image_id, row.uri), *_predicted(row))


def _predicted(row: Row) -> tuple[frozenset[str], None, frozenset[str]]:
    entries = row.labels or ()
    predicted = frozenset(entry.name for entry in entries if entry.decision in (None, Decision.YES))
    undecided = frozenset(
        entry.name for entry in entries if entry.decision is Decision.UNKNOWN or entry.source == "human"
    )
    return predicted, None, undecided


def _with_truth(
    shown: Iterator[_LabeledImage], truth: Truth, vocabulary: Vocabulary, images: ImageMatch
) -> Iterator[_LabeledImage]:
    names = match_names(truth, vocabulary)
    unjudged = frozenset(names.not_in_truth) if truth.exhaustive else frozenset()
    for each in shown:
        key = images.keys.get(each.image.id)
        if key is not None:
            in_vocabulary = names.in_vocabulary
            true = frozenset(in_vocabulary[name] for name in truth.labels[key] if name in in_vocabulary)
            unknown = frozenset(in_vocabulary[name] for name in truth.unjudged(key) if name in in_vocabulary)
            yield _LabeledImage(each.image, each.predicted, true, each.undecided | unknown | unjudged)


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
    """Takes every image once; then has each label's examples and confusion."""

    def __init__(self, vocabulary: Vocabulary, size: int, seed: int) -> None:
        self._names, self._size, self._seed = vocabulary.names, size, seed
        self._with: dict[str, _Smallest[_LabeledImage]] = {name: _Smallest(size) for name in vocabulary.names}
        self._pool: _Smallest[_LabeledImage] = _Smallest(_POOL_FACTOR * max(1, size))
        self._images = 0
        self._true: Counter[str] = Counter()
        self._predicted: Counter[str] = Counter()
        self._wrong: dict[str, Counter[str]] = {}
        self._wrong_count: Counter[str] = Counter()

    def add(self, image: _LabeledImage) -> None:
        key = f"{self._seed}\0{image.image.id}".encode("utf-8", "surrogatepass")
        rank = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
        self._pool.add(rank, image)
        for name in image.positives - image.undecided:
            if name in self._with:
                self._with[name].add(rank, image)
        if image.predicted is not None and image.true is not None:
            self._count(image.predicted - image.undecided, image.true)

    def _count(self, predicted: Collection[str], true: frozenset[str]) -> None:
        self._images += 1
        self._true.update(true)
        self._predicted.update(predicted)
        for name in predicted:
            if name not in true:
                self._wrong_count[name] += 1
                self._wrong.setdefault(name, Counter()).update(true)

    def samples(self) -> dict[str, tuple[ValidationExample, ...]]:
        pool = self._pool.items()
        is_unlabeled = all(image.predicted is None and image.true is None for image in pool)
        background = self._size // 2 + (self._size if is_unlabeled else 0)  # nothing says where a label might be
        samples = {}
        for name in self._names:
            without = [image for image in pool if name not in image.positives and name not in image.undecided][
                :background
            ]
            samples[name] = tuple(image.example(name) for image in (*self._with[name].items(), *without))
        return samples

    def confusions(self) -> dict[str, Confusion]:
        found = {}
        for name in self._names:
            wrong, predicted = self._wrong_count[name], self._predicted[name]
            if wrong >= MIN_WRONG and wrong >= MIN_WRONG_SHARE * predicted:
                found[name] = Confusion(predicted, wrong, self._causes(name))
        return found

    def _causes(self, name: str) -> tuple[str, ...]:
        """Return the labels that wrongly predicted images have at least twice as often as all images, by excess."""
        wrong = self._wrong_count[name]
        expected = {other: wrong * self._true[other] / self._images for other in self._wrong[name]}
        excess = {
            other: count - expected[other]
            for other, count in self._wrong[name].items()
            if count >= 2 and count >= 2 * expected[other]
        }
        return tuple(sorted(excess, key=lambda other: (-excess[other], other)))[:MAX_CAUSES]
