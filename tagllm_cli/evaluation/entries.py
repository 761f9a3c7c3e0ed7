"""The label entries of a table as arrays, read once, and what the truth says about their images and labels."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.truth.base import Truth
from tagllm_cli.evaluation.truth.matching import ImageMatch, NameMatch, match_images, match_names
from tagllm_cli.records import Decision, Row, Status
from tagllm_cli.vocabulary.model import Vocabulary

PREDICTED, UNDECIDED, HUMAN = 1, 2, 4
ABSENT, PRESENT, NOT_JUDGED = 0, 1, -1

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Entries:
    """The label entries of some rows: parallel arrays, with `rows` pointing into `ids` and `labels` into `names`.

    `flags` holds PREDICTED, UNDECIDED and HUMAN; bit n of `arms` says that arm n proposed the label.
    """

    ids: Sequence[str]
    statuses: Sequence[Status]
    names: Sequence[str]
    rows: Array  # int64
    labels: Array  # int64
    scores: Array  # float32
    flags: Array  # int8
    arms: Array  # uint64

    @property
    def cells(self) -> Array:
        """Each entry's cell, int64: row times labels plus label."""
        return self.rows * len(self.names) + self.labels

    def restricted(self, rows: Sequence[int], labels: Sequence[int]) -> Entries:
        """Return some rows and labels, numbered anew."""
        new_rows = _renumbered(self.rows, rows, len(self.ids))
        new_labels = _renumbered(self.labels, labels, len(self.names))
        kept = (new_rows >= 0) & (new_labels >= 0)
        return Entries(
            [self.ids[row] for row in rows],
            [self.statuses[row] for row in rows],
            [self.names[label] for label in labels],
            *(each[kept] for each in (new_rows, new_labels, self.scores, self.flags, self.arms)),
        )


def _renumbered(positions: Array, kept: Sequence[int], length: int) -> Array:
    """Return where `positions`, each below `length`, stand among those `kept`; -1 for the others."""
    place = np.full(length, -1, np.int64)
    place[kept] = np.arange(len(kept))
    return place[positions]


def read_entries(rows: Iterable[Row], vocabulary: Vocabulary, stage: str, arms: Sequence[str] = ()) -> Entries:
    """Read rows as a stream. A prediction is a `yes` of a label table, or a candidate.

    Memory grows with the images and their listed labels, about 30 bytes each, not with images times labels.
    """
    ids, statuses = [], []
    places, labels, scores, flags, voters = array("q"), array("q"), array("f"), array("b"), array("Q")
    position = {name: index for index, name in enumerate(vocabulary.names)}
    bit = {name: 1 << number for number, name in enumerate(arms)}
    predicted = Decision.YES if stage == "labels" else None
    for index, row in enumerate(rows):
        ids.append(row.image_id)
        statuses.append(row.status)
        for entry in row.labels or ():
            places.append(index)
            labels.append(position[entry.name])
            scores.append(entry.score)
            said = PREDICTED * (entry.decision == predicted) + UNDECIDED * (entry.decision == Decision.UNKNOWN)
            flags.append(said + HUMAN * (entry.source == "human"))
            voters.append(sum(bit.get(arm, 0) for arm in entry.arms))
    return Entries(ids, statuses, vocabulary.names, *map(np.array, (places, labels, scores, flags, voters)))


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


def compare(
    table: Entries, vocabulary: Vocabulary, truth: Truth, *, stage: str = "labels", include_human: bool = False
) -> Comparison:
    """Match a table with a truth. Raises UsageError where they have no image or no label in common.

    Compared are answered images (`ok`, `partial`) that the truth has. A label that a person decided is not judged,
    unless `include_human`.
    """
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

    def cells(labels: Mapping[str, Collection[str]]) -> Array:
        found = (
            row * width + label_of[name]
            for row, image in enumerate(entries.ids)
            for name in labels.get(keys[image], ())
            if name in label_of
        )
        return np.fromiter(found, np.int64)

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


def _nothing_in_common(table: Entries, truth: Truth, images: ImageMatch, shared: Entries) -> UsageError:
    if not shared.ids and images.keys:
        return UsageError("every image that the truth knows has failed or is pending", "Finish the run first.")
    what, ours, theirs = ("label", table.names, truth.names) if shared.ids else ("image", table.ids, truth.labels)
    shown = [next(map(repr, names), "none") for names in (ours, theirs)]
    message = f"the table and the truth share no {what}: the table has {shown[0]}, the truth has {shown[1]}"
    read = f" The truth was read as {truth.dialect}." if truth.dialect else ""
    return UsageError(message, f"Name the truth that belongs to this table's source and vocabulary.{read}")
