"""The two tables side by side: images joined, and every pair of image and label that either of them lists.

Images are joined by id. What is left is joined by fingerprint: the same bytes under another name are the same image.
Labels are joined by name: permanent ids belong to one table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.evaluation.diff.join import matched
from tagllm_cli.evaluation.diff.side import NO, NOTHING, STATUSES, Side
from tagllm_cli.evaluation.entry_arrays import Array, as_numpy
from tagllm_cli.records import Status

# NO and NOTHING are the same to who uses the labels: not there.
NOT_THERE, DOUBTFUL, THERE = 0, 1, 2
_IMAGES = 16_384  # in memory at a time, as pairs
_KIND_OF_STATE = np.array([NOT_THERE, NOT_THERE, DOUBTFUL, THERE], np.int8)


@dataclass(frozen=True, slots=True)
class Images:
    """The images of both tables, numbered: those of the second one in its order, then what only the first one has.

    `first` and `second` [images] are rows of the tables, -1 where one lacks the image. `renamed`, `replaced` (other
    bytes under the same name) and `failed` (either table has no answer or only some) are bool [images].
    """

    first: Array
    second: Array
    renamed: Array
    replaced: Array
    failed: Array

    @property
    def shared(self) -> Array:
        """The images that both tables have, bool [images]."""
        return (self.first >= 0) & (self.second >= 0)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of image and label that one of the tables lists: parallel arrays, in the order of images and `names`.

    `states` [2, pairs] are NOTHING, NO, UNKNOWN or YES; `places` [2, pairs] point to the entries of the sides, -1 where
    a table does not list the pair.
    """

    names: tuple[str, ...]
    images: Array
    labels: Array
    states: tuple[Array, Array]
    places: tuple[Array, Array]

    def kinds(self, side: int) -> Array:
        """Return what the pairs come to for who uses the labels: NOT_THERE, DOUBTFUL or THERE, int8."""
        return _KIND_OF_STATE[self.states[side]]

    def taken(self, which: Array) -> Pairs:
        """Return some of the pairs; `which` are places or bool."""
        states, places = (tuple(each[which] for each in both) for both in (self.states, self.places))
        return Pairs(self.names, self.images[which], self.labels[which], states, places)  # type: ignore[arg-type]


def join_images(first: Side, second: Side) -> Images:
    """Join the images of two tables, by id and then by fingerprint."""
    rows = list(matched(first.ids, second.ids))
    left = [_others(len(side.ids), found) for side, found in zip((first, second), rows, strict=True)]
    fingerprints = [side.fingerprints.take(pa.array(at)) for side, at in zip((first, second), left, strict=True)]
    moved = [at[found] for at, found in zip(left, matched(*fingerprints), strict=True)]
    only_first = _others(len(first.ids), np.concatenate([rows[0], moved[0]]))
    size = len(second.ids) + len(only_first)
    of_first, of_second = np.full(size, -1, np.int64), np.full(size, -1, np.int64)
    of_second[: len(second.ids)] = np.arange(len(second.ids))
    of_first[np.concatenate([rows[1], moved[1]])] = np.concatenate([rows[0], moved[0]])
    of_first[len(second.ids) :] = only_first
    renamed = np.zeros(size, bool)
    renamed[moved[1]] = True
    images = Images(of_first, of_second, renamed, np.zeros(size, bool), np.zeros(size, bool))
    _mark(images, first, second)
    return images


def _others(length: int, found: Array) -> Array:
    """Return the places below `length` that are not in `found`, ascending."""
    free = np.ones(length, bool)
    free[found] = False
    return np.flatnonzero(free)


def _mark(images: Images, first: Side, second: Side) -> None:
    """Fill in which images have other bytes, and which have no whole answer in one of the tables."""
    shared = np.flatnonzero(images.shared)
    bytes_of = [
        side.fingerprints.take(pa.array(rows[shared]))
        for side, rows in ((first, images.first), (second, images.second))
    ]
    differs = pc.fill_null(pc.not_equal(*bytes_of), False)
    images.replaced[shared] = np.concatenate([np.empty(0, bool), *map(as_numpy, differs.chunks)])
    for side, rows in ((first, images.first), (second, images.second)):
        at = np.flatnonzero(rows >= 0)
        images.failed[at] |= side.statuses[rows[at]] != STATUSES.index(Status.OK)


def pair_up(first: Side, second: Side, images: Images) -> Iterator[Pairs]:
    """Yield every pair that one of the tables lists, with what both say about it, some thousand images at a time."""
    paired = Pairing(first, second, images)
    for start in range(0, len(images.first), _IMAGES):
        yield paired.of(np.arange(start, min(start + _IMAGES, len(images.first))))


class Pairing:
    """Two tables whose images are joined."""

    def __init__(self, first: Side, second: Side, images: Images) -> None:
        self.names = union_names(first, second)
        of_sides = ((first, images.first), (second, images.second))
        self._listed = [_Listed(side, rows, self.names) for side, rows in of_sides]

    def of(self, images: Array) -> Pairs:
        """Return the pairs of some images, whose ascending numbers are given."""
        cells, entries = zip(*(each.cells(images) for each in self._listed), strict=True)
        union, width = _united(*cells), len(self.names)
        rows, labels = union // width, (union % width).astype(np.int32)
        places = tuple(_places(union, *found) for found in zip(cells, entries, strict=True))
        states = tuple(each.states(rows, labels, at) for each, at in zip(self._listed, places, strict=True))
        return Pairs(self.names, rows, labels, states, places)  # type: ignore[arg-type]


def union_names(first: Side, second: Side) -> tuple[str, ...]:
    """Return the labels of the first vocabulary, then those that only the second one has."""
    own = set(first.names)
    return (*first.names, *(name for name in second.names if name not in own))


class _Listed:
    """The entries of a side in the order of the images that both tables have together."""

    def __init__(self, side: Side, rows: Array, names: tuple[str, ...]) -> None:
        self._side, self._rows, self._width = side, rows, len(names)
        number = {name: place for place, name in enumerate(names)}
        self._label_of = np.array([number[name] for name in side.names], np.int64)
        self._has_label = np.isin(np.arange(len(names)), self._label_of)
        self._answered = np.append(side.answered, False)  # -1: the table lacks the image
        self._starts = np.searchsorted(side.rows, np.arange(len(side.ids) + 1, dtype=side.rows.dtype))

    def cells(self, images: Array) -> tuple[Array, Array]:
        """Return the cells (image times labels plus label) of some images, ascending, and their entries."""
        rows = self._rows[images]
        images, rows = images[rows >= 0], rows[rows >= 0]
        counts = self._starts[rows + 1] - self._starts[rows]
        ends = np.cumsum(counts)
        entries = np.repeat(self._starts[rows] - ends + counts, counts) + np.arange(ends[-1] if len(ends) else 0)
        cells = np.repeat(images, counts) * self._width + self._label_of[self._side.labels[entries]]
        order = np.argsort(cells, kind="stable")
        return cells[order], entries[order]

    def states(self, images: Array, labels: Array, places: Array) -> Array:
        """Return what the side says: what it lists, else NO where it has an answer and the label, else NOTHING."""
        implied = np.where(self._answered[self._rows[images]] & self._has_label[labels], NO, NOTHING).astype(np.int8)
        listed = places >= 0
        implied[listed] = self._side.states[places[listed]]
        return implied


def _united(first: Array, second: Array) -> Array:
    """Return the sorted union of two sorted arrays."""
    both = np.concatenate([first, second])
    both.sort(kind="stable")  # two runs: merged in one pass
    return both[np.concatenate([[True], both[1:] != both[:-1]])] if len(both) else both


def _places(union: Array, cells: Array, entries: Array) -> Array:
    """Return where the entry of each cell of `union` stands, -1 where there is none."""
    found = np.full(len(union), -1, np.int64)
    found[np.searchsorted(union, cells)] = entries
    return found
