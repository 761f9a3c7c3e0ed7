"""Counts of a comparison under weights of its images: one round with weights 1 is the comparison itself.

Average precision is the sum over n of (R_n - R_{n-1}) P_n, exact and not interpolated, equal scores taken together; all
that is not listed has score 0. With whole weights it is that of the images repeated so many times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tagllm_cli.evaluation.entries import Array
from tagllm_cli.evaluation.metrics.columns import Column, Columns

# Weights of entries that are in memory at a time: small enough for the cache of one core.
_ENTRIES = 2**19


@dataclass(frozen=True, slots=True)
class Counts:
    """Weighted counts, float64.

    By label, [rounds, labels]: `true_positives`, `false_positives`, `present` and `judged` images, and `ap`, average
    precision, NaN without a positive. By round, [rounds]: `images`; `judged_images`, those with a judged label, and
    `exact`, those of them without an error.
    """

    true_positives: Array
    false_positives: Array
    present: Array
    judged: Array
    ap: Array
    images: Array
    judged_images: Array
    exact: Array


def count(columns: Columns, weights: Array) -> Counts:
    """Count under `weights`, uint8 [rounds, images]: how often an image counts in each round."""
    rounds, labels = len(weights), len(columns.columns)
    by_label = np.zeros((5, rounds, labels))
    is_judged = columns.judged > 0
    kinds = np.stack([np.ones(columns.images), is_judged, is_judged & (columns.errors == 0)], axis=1)
    by_round = np.stack([line.astype(np.float64) @ kinds for line in weights], axis=1)
    for label, column in enumerate(columns.columns):
        step = max(1, _ENTRIES // max(1, len(column.rows), len(column.missed), len(column.others)))
        for start in range(0, rounds, step):
            some = slice(start, start + step)
            by_label[:, some, label] = _count_label(column, weights[some], by_round[0, some])
    true, false, present, judged, ap = by_label
    images, judged_images, exact = by_round
    return Counts(true, false, present, judged, ap, images, judged_images, exact)


def _count_label(column: Column, weights: Array, images: Array) -> tuple[Array, ...]:
    """Return true positives, false positives, present, judged and average precision, each [rounds]."""
    listed = _taken(weights, column.rows)
    true = listed.compress(column.is_true, axis=1)
    predicted = _sum(listed.compress(column.is_predicted, axis=1))
    true_positives = _sum(listed.compress(column.is_true & column.is_predicted, axis=1))
    missed, others = (_sum(_taken(weights, rows)) for rows in (column.missed, column.others))
    present = _sum(true) + missed
    judged = _sum(listed) + missed + others if column.only_listed else images - others
    # Runs of equal scores without a true entry add no recall: they only lower the precision of those that follow.
    so_far = _taken(np.cumsum(listed, axis=1, dtype=np.int32), column.tie_ends)
    hits = _taken(np.cumsum(true, axis=1, dtype=np.int32), column.hit_ends)
    gained = np.diff(hits, axis=1, prepend=0)
    ranked = np.einsum("ij,ij->i", gained, hits / np.maximum(so_far, 1))
    found = hits[:, -1] if hits.shape[1] else 0
    with np.errstate(invalid="ignore", divide="ignore"):
        ap = ranked / present + (present - found) / judged
    ap[present == 0] = np.nan
    return true_positives, predicted - true_positives, present, judged, ap


def _taken(values: Array, places: Array) -> Array:
    """Return `values[:, places]` for valid places, in row order: without that, sums take three times as long."""
    return np.asarray(values.take(places, axis=1, mode="clip"))


def _sum(weights: Array) -> Array:
    return np.asarray(weights.sum(axis=1, dtype=np.int64))
