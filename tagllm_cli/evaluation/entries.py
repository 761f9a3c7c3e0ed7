"""The label entries of a table as arrays, read once, and what the truth says about their images and labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.entry_arrays import (
    HUMAN,
    PREDICTED,
    UNDECIDED,
    Array,
    EntryReader,
    filled,
    known,
    texts,
)
from tagllm_cli.evaluation.truth.base import Truth
from tagllm_cli.evaluation.truth.label_sets import LabelSets
from tagllm_cli.evaluation.truth.matching import ImageMatch, NameMatch, match_images, match_names
from tagllm_cli.records import Row, Status
from tagllm_cli.store.damage import damage_as_table_error
from tagllm_cli.store.table import Table, arrow_tables
from tagllm_cli.vocabulary.model import Vocabulary

ABSENT, PRESENT, NOT_JUDGED = 0, 1, -1

__all__ = [
    "ABSENT",
    "HUMAN",
    "NOT_JUDGED",
    "PREDICTED",
    "PRESENT",
    "UNDECIDED",
    "Array",
    "Comparison",
    "Entries",
    "Judgments",
    "by_decisions",
    "compare",
    "entries_of",
    "is_in",
    "read_entries",
]

_ROWS = 8192
# Texts of `groups` are most of a table's bytes: never read.
_COLUMNS = (
    *("image_id", "width", "height", "status"),
    *(f"labels.list.element.{name}" for name in ("name", "decision", "probability", "score", "source", "arms")),
)
_STATUSES = tuple(Status)


@dataclass(frozen=True, slots=True)
class Entries:
    """The label entries of some rows: parallel arrays, with `rows` pointing into `ids` and `labels` into `names`.

    `flags` holds PREDICTED, UNDECIDED and HUMAN; bit n of `arms` says that arm n of `arm_names` proposed the label.
    `probabilities` are NaN where an entry has none; `widths` and `heights` [images] are pixels, 0 where unknown.
    """

    ids: Sequence[str]
    statuses: Sequence[Status]
    widths: Array  # int32
    heights: Array  # int32
    names: Sequence[str]
    arm_names: Sequence[str]
    rows: Array  # int64
    labels: Array  # int64
    scores: Array  # float32
    probabilities: Array  # float32
    flags: Array  # int8
    arms: Array  # uint64

    @property
    def cells(self) -> Array:
        """Each entry's cell, int64: row times labels plus label."""
        return self.rows * len(self.names) + self.labels

    def restricted(self, rows: Sequence[int] | Array, labels: Sequence[int] | Array) -> Entries:
        """Return some rows and labels, numbered anew."""
        new_rows = _renumbered(self.rows, rows, len(self.ids))
        new_labels = _renumbered(self.labels, labels, len(self.names))
        kept = (new_rows >= 0) & (new_labels >= 0)
        return Entries(
            [self.ids[row] for row in rows],
            [self.statuses[row] for row in rows],
            self.widths[rows],
            self.heights[rows],
            [self.names[label] for label in labels],
            self.arm_names,
            *(each[kept] for each in (new_rows, new_labels)),
            *(each[kept] for each in (self.scores, self.probabilities, self.flags, self.arms)),
        )


def by_decisions(entries: Entries) -> Entries:
    """Return the entries with the scores of what people decided: 1 for yes, else 0; the table keeps the model's."""
    human, yes = (entries.flags & HUMAN) > 0, (entries.flags & PREDICTED) > 0
    return replace(entries, scores=np.where(human, yes, entries.scores).astype(np.float32))


def _renumbered(positions: Array, kept: Sequence[int] | Array, length: int) -> Array:
    """Return where `positions`, each below `length`, stand among those `kept`; -1 for the others."""
    place = np.full(length, -1, np.int64)
    place[kept] = np.arange(len(kept))
    return place[positions]


def read_entries(table: Table) -> Entries:
    """Read a table as Arrow batches. A prediction is a `yes` of a label table, or a candidate.

    Memory grows with the images and their listed labels, about 33 bytes each, not with images times labels. Raises
    TableError where the table is damaged.
    """
    arms = tuple(table.info.plan.get("arms", ()))
    with damage_as_table_error(table.path):
        return _gathered(table.batches(_ROWS, list(_COLUMNS)), table.info.vocabulary, table.info.stage, arms)


def entries_of(rows: Iterable[Row], vocabulary: Vocabulary, stage: str, arms: Sequence[str] = ()) -> Entries:
    """Return the entries of rows that are in no file."""
    batches = (batch for table in arrow_tables(rows) for batch in table.to_batches())
    return _gathered(batches, vocabulary, stage, arms)


def _gathered(batches: Iterable[pa.RecordBatch], vocabulary: Vocabulary, stage: str, arms: Sequence[str]) -> Entries:
    parts: list[tuple[Array, ...]] = []
    ids: list[str] = []
    of_entries = EntryReader(vocabulary, stage, list(arms))
    for batch in batches:
        statuses = pc.index_in(batch["status"], texts(_STATUSES))
        sizes = (filled(batch[side], 0) for side in ("width", "height"))
        parts.append((known(statuses, batch["status"], "status"), *sizes, *of_entries(batch["labels"], len(ids))))
        ids.extend(batch["image_id"].to_pylist())
    kinds = (np.int8, np.int32, np.int32, np.int64, np.int64, np.float32, np.float32, np.int8, np.uint64)
    columns = list(zip(*parts, strict=True)) or [()] * len(kinds)
    arrays = []
    for number, kind in enumerate(kinds):
        arrays.append(np.concatenate([np.empty(0, kind), *columns[number]], dtype=kind))
        columns[number] = ()  # at most one column is held twice
    statuses, widths, heights, *entries = arrays
    named = [_STATUSES[code] for code in statuses.tolist()]
    return Entries(ids, named, widths, heights, vocabulary.names, of_entries.arms, *entries)


@dataclass(frozen=True, slots=True)
class Judgments:
    """What is judged: `values` (PRESENT, ABSENT, NOT_JUDGED) of the sorted `cells`, and `rest` for all other cells."""

    cells: Array  # int64, sorted, each once
    values: Array  # int8
    rest: int

    def of(self, cells: Array) -> Array:
        """Return the judgment of each of `cells`, int8."""
        if not len(self.cells):
            return np.full(len(cells), self.rest, np.int8)
        place = np.minimum(np.searchsorted(self.cells, cells), len(self.cells) - 1)
        return np.where(self.cells[place] == cells, self.values[place], np.int8(self.rest))

    def count(self, value: int, images: int, labels: int) -> Array:
        """Return how many images have the judgment `value`, int64 [labels]."""
        listed = np.bincount(self.cells[self.values == value] % labels, minlength=labels)
        if value != self.rest:
            return listed
        return listed + images - np.bincount(self.cells % labels, minlength=labels)

    def restricted(
        self, rows: Sequence[int] | Array, labels: Sequence[int] | Array, images: int, width: int
    ) -> Judgments:
        """Return the judgments of some of `images` rows and `width` labels, numbered anew."""
        new_rows = _renumbered(self.cells // width, rows, images)
        new_labels = _renumbered(self.cells % width, labels, width)
        kept = (new_rows >= 0) & (new_labels >= 0)
        cells = (new_rows * len(labels) + new_labels)[kept]
        order = np.argsort(cells)
        return Judgments(cells[order], self.values[kept][order], self.rest)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A table and a truth, matched: the entries of `images` and labels that are compared, and their judgments.

    `statuses` counts the rows of the whole table.
    """

    stage: str
    entries: Entries
    judgments: Judgments
    images: ImageMatch
    names: NameMatch
    statuses: Mapping[Status, int]

    def restricted(self, rows: Sequence[int] | Array, labels: Sequence[int] | Array) -> Comparison:
        """Return what is compared of some rows and labels, numbered anew."""
        size = (len(self.entries.ids), len(self.entries.names))
        entries, judgments = self.entries.restricted(rows, labels), self.judgments.restricted(rows, labels, *size)
        return replace(self, entries=entries, judgments=judgments)


def compare(
    table: Entries, vocabulary: Vocabulary, truth: Truth, *, stage: str = "labels", include_human: bool = False
) -> Comparison:
    """Match a table with a truth. Raises UsageError where they have no image or no label in common.

    Compared are answered images (`ok`, `partial`) that the truth has. A label that a person decided is not judged,
    unless `include_human`: then it is ranked by what they said.
    """
    table = by_decisions(table) if include_human else table
    images, names = match_images(truth, table.ids), match_names(truth, vocabulary)
    answered = (Status.OK, Status.PARTIAL)
    rows = [row for row, image in enumerate(table.ids) if image in images.keys and table.statuses[row] in answered]
    unjudged = set(names.not_in_truth) if truth.exhaustive else set()
    labels = [label for label, name in enumerate(table.names) if name not in unjudged]
    entries = table.restricted(rows, labels)
    if not rows or not names.in_vocabulary:
        raise _nothing_in_common(table, truth, images, entries)
    judgments = _judgments(entries, truth, images.keys, names.in_vocabulary, include_human)
    statuses = {status: table.statuses.count(status) for status in Status}
    return Comparison(stage, entries, judgments, images, names, statuses)


def _judgments(
    entries: Entries, truth: Truth, keys: Mapping[str, str], in_vocabulary: Mapping[str, str], include_human: bool
) -> Judgments:
    position = {name: index for index, name in enumerate(entries.names)}
    label_of = {name: position[own] for name, own in in_vocabulary.items()}
    width = len(entries.names)

    row_of = {keys[image]: row for row, image in enumerate(entries.ids)}

    def cells(labels: Mapping[str, Collection[str]]) -> Array:
        sets = LabelSets.of(labels)
        rows = np.fromiter((row_of.get(key, -1) for key in sets), np.int64, len(sets))[sets.images]
        own = np.fromiter((label_of.get(name, -1) for name in sets.names), np.int64, len(sets.names))[sets.labels]
        return (rows * width + own)[(rows >= 0) & (own >= 0)]

    by_people = entries.cells[(entries.flags & (0 if include_human else HUMAN)) > 0]
    # Of several judgments of a cell the last counts: two names of the truth may be one label.
    marks = [
        (cells(truth.absent or {}), ABSENT),
        (cells(truth.labels), PRESENT),
        (cells(truth.unknown), NOT_JUDGED),
        (by_people, NOT_JUDGED),
    ]
    listed = np.concatenate([found for found, _ in marks])[::-1]
    values = np.concatenate([np.full(len(found), value, np.int8) for found, value in marks])[::-1]
    unique, first = np.unique(listed, return_index=True)
    return Judgments(unique, values[first], ABSENT if truth.absent is None else NOT_JUDGED)


def places(of: Sequence[str], among: Sequence[str]) -> Array:
    """Return where each of `of` stands in `among`, int64, -1 where it does not."""
    found = filled(pc.index_in(texts(of), texts(among)), -1)
    return np.asarray(found, np.int64)


def is_in(cells: Array, ordered: Array) -> Array:
    """Return which of `cells` are among the ordered ones, bool; many times as fast as the hash tables of NumPy."""
    if not len(ordered):
        return np.zeros(len(cells), bool)
    return np.asarray(ordered[np.minimum(np.searchsorted(ordered, cells), len(ordered) - 1)] == cells)


def _nothing_in_common(table: Entries, truth: Truth, images: ImageMatch, shared: Entries) -> UsageError:
    if not shared.ids and images.keys:
        return UsageError("every image that the truth knows has failed or is pending", "Finish the run first.")
    what, ours, theirs = ("label", table.names, truth.names) if shared.ids else ("image", table.ids, truth.labels)
    shown = [next(map(repr, names), "none") for names in (ours, theirs)]
    message = f"the table and the truth share no {what}: the table has {shown[0]}, the truth has {shown[1]}"
    read = f" The truth was read as {truth.dialect}." if truth.dialect else ""
    return UsageError(message, f"Name the truth that belongs to this table's source and vocabulary.{read}")
