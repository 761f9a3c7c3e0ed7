"""The pairs of image and label that an audit draws from, in strata: by decision, probability band and label.

Listed pairs are entries of the table. Absent pairs, those that the model never proposed, are far too many to list (79
of 80 million): they are counted, and made one label at a time when some are drawn. Those that are `near`, in images
with a label that is easily confused with or often stands beside the absent one, are more likely to be missed.

Pairs that people decided are no part of the population: an audit measures the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tagllm_cli.evaluation.entries import HUMAN, PREDICTED, UNDECIDED, Array, Entries
from tagllm_cli.evaluation.related_labels import related_labels
from tagllm_cli.records import Status
from tagllm_cli.vocabulary.model import Vocabulary

YES, NO, UNKNOWN, NEAR, FAR = range(5)
KINDS = ("yes", "no", "unknown", "near", "far")
BANDS = (0.05, 0.2, 0.5, 0.8, 0.95)  # upper ends of all bands of scores but the last
_WIDTH = len(BANDS) + 1

# Companions of a label: those that mean nearly the same, then those that share most images with it.
_COMPANIONS = 4
_COUNTED_ENTRIES = 500_000  # enough to know what shares images
_FEWEST_SHARED = 5


@dataclass(frozen=True)
class Population:
    """All pairs of `entries` (rows and labels that are answered), and which labels are `companions` of which."""

    entries: Entries
    companions: Sequence[Array]

    @property
    def labels(self) -> int:
        """How many labels there are."""
        return len(self.entries.names)

    @cached_property
    def strata(self) -> Array:
        """The stratum of each entry, int64; -1 for what people decided. Absent ones follow on the listed ones."""
        entries = self.entries
        kind = np.full(len(entries.rows), NO)
        kind[(entries.flags & UNDECIDED) > 0] = UNKNOWN
        kind[(entries.flags & PREDICTED) > 0] = YES
        band = np.where(kind == UNKNOWN, 0, np.searchsorted(np.array(BANDS, np.float32), entries.scores))
        found = (kind * _WIDTH + band) * self.labels + entries.labels
        return np.where((entries.flags & HUMAN) > 0, -1, found)

    @property
    def count(self) -> int:
        """How many strata there can be; most are empty."""
        return len(KINDS) * _WIDTH * self.labels

    def absent_stratum(self, kind: int, label: int) -> int:
        """Return the stratum of the absent pairs of a label, NEAR or FAR."""
        return kind * _WIDTH * self.labels + label

    @cached_property
    def _by_label(self) -> tuple[Array, Array]:
        """The entries' rows ordered by label, and where each label starts."""
        order = np.argsort(self.entries.labels, kind="stable")
        counts = np.bincount(self.entries.labels, minlength=self.labels)
        return order, np.concatenate([[0], np.cumsum(counts)])

    def listed(self, label: int) -> Array:
        """Return the entries of a label, int64."""
        order, starts = self._by_label
        return order[starts[label] : starts[label + 1]]

    @cached_property
    def near_rows(self) -> list[Array]:
        """The rows, ascending, int32, where each label is absent and one of its companions is predicted."""
        return [self._near(label) for label in range(self.labels)]

    def _near(self, label: int) -> Array:
        entries = self.entries
        near = np.zeros(len(entries.ids), bool)
        for companion in self.companions[label].tolist():
            listed = self.listed(companion)
            near[entries.rows[listed[(entries.flags[listed] & PREDICTED) > 0]]] = True
        near[entries.rows[self.listed(label)]] = False
        return np.flatnonzero(near).astype(np.int32)

    def far_rows(self, label: int) -> Array:
        """Return the other rows where a label is absent, ascending."""
        far = np.ones(len(self.entries.ids), bool)
        far[self.entries.rows[self.listed(label)]] = False
        far[self.near_rows[label]] = False
        return np.flatnonzero(far)

    @cached_property
    def sizes(self) -> Array:
        """How many pairs each stratum has, int64."""
        strata = self.strata
        sizes = np.bincount(strata[strata >= 0], minlength=self.count)
        for label in range(self.labels):
            near = len(self.near_rows[label])
            sizes[self.absent_stratum(NEAR, label)] = near
            sizes[self.absent_stratum(FAR, label)] = len(self.entries.ids) - len(self.listed(label)) - near
        return sizes

    def rows_of(self, stratum: int) -> Array:
        """Return the rows of a stratum's pairs, ascending, int64."""
        kind, label = self.kind_of(stratum), stratum % self.labels
        if kind in (NEAR, FAR):
            return self.near_rows[label] if kind == NEAR else self.far_rows(label)
        listed = self.listed(label)
        return np.sort(self.entries.rows[listed[self.strata[listed] == stratum]])

    def kind_of(self, stratum: int) -> int:
        """Return YES, NO, UNKNOWN, NEAR or FAR."""
        return stratum // (_WIDTH * self.labels)


def stratum_name(stratum: int, names: Sequence[str]) -> tuple[str, int, str]:
    """Return a stratum as (kind, band, label), which does not depend on the other labels."""
    group, label = divmod(stratum, len(names))
    kind, band = divmod(group, _WIDTH)
    return KINDS[kind], band, names[label]


def answered(entries: Entries) -> Entries:
    """Return the rows that have an answer: `ok` and `partial`."""
    known = (Status.OK, Status.PARTIAL)
    rows = np.flatnonzero(np.fromiter((each in known for each in entries.statuses), bool, len(entries.statuses)))
    return entries.restricted(rows, np.arange(len(entries.names)))


def population(entries: Entries, vocabulary: Vocabulary) -> Population:
    """Return the population of answered rows."""
    return Population(entries, _companions(entries, vocabulary))


def _companions(entries: Entries, vocabulary: Vocabulary) -> list[Array]:
    found: list[dict[int, None]] = [{} for _ in entries.names]
    for first, second in related_labels(vocabulary, entries.names):
        found[first][second] = None
        found[second][first] = None
    for first, second in _shared(entries):
        found[first][second] = None
    return [np.array(list(each)[:_COMPANIONS], np.int64) for each in found]


def _shared(entries: Entries) -> list[tuple[int, int]]:
    """Return pairs of labels that are predicted in the same images more often than by chance, by lift, highest first.

    Lift: images with both times images, over images with the one times images with the other.
    """
    said = np.flatnonzero((entries.flags & PREDICTED) > 0)[:_COUNTED_ENTRIES]
    rows, labels, width = entries.rows[said], entries.labels[said], len(entries.names)
    pairs = []
    for distance in range(1, len(rows)):
        same = rows[distance:] == rows[:-distance]
        if not same.any():
            break
        first, second = labels[:-distance][same], labels[distance:][same]
        pairs += [first * width + second, second * width + first]
    if not pairs:
        return []
    keys, counts = np.unique(np.concatenate(pairs), return_counts=True)
    first, second = keys // width, keys % width
    each = np.bincount(labels, minlength=width)
    # Entries come row by row.
    images = len(entries.ids) if len(said) < _COUNTED_ENTRIES else int(rows[-1]) + 1
    lift = counts * images / (each[first] * each[second])
    kept = np.flatnonzero((counts >= _FEWEST_SHARED) & (lift > 1))
    best = kept[np.lexsort((keys[kept], -lift[kept]))]
    return list(zip(first[best].tolist(), second[best].tolist(), strict=True))
