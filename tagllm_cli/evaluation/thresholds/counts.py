"""What every threshold of a grid would decide, counted once, per fold of images: all that fitting needs.

A threshold decides candidates only: images whose label was never proposed count as `support` where it is present, and
in nothing else. Pairs that the truth does not judge count in nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tagllm_cli.evaluation.calibration import decided
from tagllm_cli.evaluation.entries import ABSENT, PREDICTED, PRESENT, Array, Comparison

GRID = 512  # thresholds at most
_GRID_CELLS = 4_000_000  # labels times thresholds at most: large vocabularies get a coarser grid


@dataclass(frozen=True, slots=True)
class Counts:
    """Judged entries by fold, label and bin of their score; bin b lies above `grid[b - 1]`, up to `grid[b]`.

    `grid` is float64 [thresholds], ascending from 0 to 1. `absent` and `present` are int64 [folds, labels, thresholds +
    1], `support` int64 [folds, labels] all images with the label, proposed or not. `tp` and `fp` [folds, labels] are
    those of the table's own decisions.
    """

    grid: Array
    absent: Array
    present: Array
    support: Array
    tp: Array
    fp: Array

    @property
    def folds(self) -> int:
        return len(self.support)

    def above(self, folds: Array) -> tuple[Array, Array]:
        """Return true and false positives of some folds at each threshold, int64 [labels, thresholds]."""
        return above(self.present[folds].sum(axis=0)), above(self.absent[folds].sum(axis=0))


def above(bins: Array) -> Array:
    """Return how many lie above each threshold, of counts [..., thresholds + 1]: shape [..., thresholds]."""
    return np.flip(np.cumsum(np.flip(bins[..., 1:], axis=-1), axis=-1), axis=-1)


def count(comparison: Comparison, folds: Array, grid: Array) -> Counts:
    """Count a comparison whose images belong to `folds`, int64 [images], numbered from 0."""
    entries, judgments = comparison.entries, comparison.judgments
    size = (int(folds.max()) + 1, len(entries.names), len(grid) + 1)
    said = judgments.of(entries.cells)
    known = decided(entries)
    fold = folds[entries.rows]
    cell = fold * size[1] + entries.labels
    bins = np.searchsorted(grid, entries.probabilities)

    def binned(judgment: int) -> Array:
        which = known & (said == judgment)
        flat = np.bincount(cell[which] * size[2] + bins[which], minlength=size[0] * size[1] * size[2])
        return flat.reshape(size)

    present = judgments.cells[judgments.values == PRESENT]
    support = np.bincount(folds[present // size[1]] * size[1] + present % size[1], minlength=size[0] * size[1])
    predicted = (entries.flags & PREDICTED) > 0
    tp, fp = (
        np.bincount(cell[predicted & (said == judgment)], minlength=size[0] * size[1]).reshape(size[:2])
        for judgment in (PRESENT, ABSENT)
    )
    return Counts(grid, binned(ABSENT), binned(PRESENT), support.reshape(size[:2]), tp, fp)


def grid_of(scores: Array, labels: int, keep: float) -> Array:
    """Return thresholds between scores in [0, 1], equal numbers of scores between them: 0, 1 and `keep` among them.

    A threshold lies half-way between two scores that occur. All are float32 values, as tables hold scores: between two
    neighbors of that kind there is none, and the lower one is taken, which decides the same.
    """
    most = max(64, min(GRID, _GRID_CELLS // max(1, labels)))
    distinct = np.unique(scores).astype(np.float64)
    places = np.arange(max(0, len(distinct) - 1))
    if len(places) > most:
        quantiles = np.quantile(scores, np.linspace(0, 1, most + 1)).astype(np.float64)
        places = np.unique(np.minimum(np.searchsorted(distinct, quantiles), len(distinct) - 2))
    lower, upper = distinct[places], distinct[places + 1]
    between = ((lower + upper) / 2).astype(np.float32)
    between = np.where(between < upper, between, lower)
    return np.unique(np.concatenate([[0.0, keep, 1.0], between]).astype(np.float32)).astype(np.float64)
