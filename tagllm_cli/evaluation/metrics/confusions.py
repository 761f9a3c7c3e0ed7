"""Pairs of labels that are taken for one another: one wrongly said of an image in which the other is missed.

If wrong labels and missed ones had nothing to do with each other, wrong_a missed_b / images of the images would have
both. The lift is what is found over that; pairs are ordered by what exceeds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tagllm_cli.evaluation.entries import ABSENT, PREDICTED, PRESENT, Array, Comparison, is_in
from tagllm_cli.evaluation.sections import Cells, rounded

SHOWN = 20

# Pairs that are in memory at a time.
_PAIRS = 2**22


@dataclass(frozen=True, slots=True)
class Confusion:
    """`said` is wrongly said, and `missed` missed, in `both` images; `expected` of them by chance.

    `wrong` images have the first error, `misses` the second. `lift` = both / expected.
    """

    said: str
    missed: str
    both: int
    expected: float
    lift: float
    wrong: int
    misses: int

    def cells(self) -> Sequence[str]:
        """Return a row of a table."""
        counts = (f"{self.both:,}", f"{self.expected:,.1f}", f"{self.lift:.1f}", f"{self.wrong:,}", f"{self.misses:,}")
        return (self.said, self.missed, *counts)


@dataclass(frozen=True, slots=True)
class Confusions:
    """The most confused pairs of labels, what exceeds chance most first; `pairs` is how many pairs occur at all."""

    found: tuple[Confusion, ...]
    pairs: int
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def tables(self) -> Sequence[tuple[str, Cells]]:
        """Return one table; () where there is no error of both kinds in one image."""
        columns = ("said", "missed", "images", "by chance", "lift", "all wrong", "all missed")
        rows = [each.cells() for each in self.found]
        return [("confused labels: one wrongly said where the other is missed", (columns, rows))] if rows else ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"pairs": self.pairs, "found": [rounded(asdict(each)) for each in self.found]}


def find_confusions(comparison: Comparison, most: int = SHOWN) -> Confusions:
    """Return up to `most` pairs that occur more often than by chance."""
    entries, judgments = comparison.entries, comparison.judgments
    images, labels = len(entries.ids), len(entries.names)
    cells = entries.cells
    is_predicted = (entries.flags & PREDICTED) > 0
    wrong = np.sort(cells[is_predicted & (judgments.of(cells) == ABSENT)])
    present = judgments.cells[judgments.values == PRESENT]
    missed = present[~is_in(present, np.sort(cells[is_predicted]))]
    pairs, counts = _pairs(wrong, missed, images, labels)
    of_wrong, of_missed = (np.bincount(each % labels, minlength=labels) for each in (wrong, missed))
    said, lost = pairs // labels, pairs % labels
    expected = of_wrong[said] * of_missed[lost] / images
    order = np.argsort(-(counts - expected), kind="stable")[:most]
    found = [
        Confusion(
            *(entries.names[said[place]], entries.names[lost[place]], int(counts[place]), float(expected[place])),
            *(float(counts[place] / expected[place]), int(of_wrong[said[place]]), int(of_missed[lost[place]])),
        )
        for place in order
        if counts[place] > expected[place]
    ]
    return Confusions(tuple(found), len(pairs))


def _pairs(wrong: Array, missed: Array, images: int, labels: int) -> tuple[Array, Array]:
    """Return codes of pairs (wrong times labels plus missed) and in how many images each occurs, both int64."""
    second = np.bincount(missed // labels, minlength=images)
    starts = np.cumsum(second) - second  # where an image's missed labels begin
    repeats = second[wrong // labels]  # each wrong label meets all missed ones of its image
    ends = np.cumsum(repeats)
    codes, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    begin = 0
    while begin < len(wrong):
        before = int(ends[begin - 1]) if begin else 0
        stop = max(begin + 1, int(np.searchsorted(ends, before + _PAIRS, side="right")))
        some, times = wrong[begin:stop], repeats[begin:stop]
        inner = np.arange(int(times.sum())) - np.repeat(np.cumsum(times) - times, times)
        met = missed[np.repeat(starts[some // labels], times) + inner] % labels
        both = np.concatenate([codes, np.repeat(some % labels, times) * labels + met])
        codes, place = np.unique(both, return_inverse=True)
        weights = np.concatenate([counts, np.ones(len(met), np.int64)])
        counts = np.bincount(place, weights=weights, minlength=len(codes)).astype(np.int64)
        begin = stop
    return codes, counts
