"""Which pairs are asked about, and in which order: by how much an answer is expected to change F1.

A pair's gain is P(wrong) / sqrt(1 + n), with n the images to which the table gives the label. One corrected decision
changes the label's own F1 by about 1 / n, and the F1 of all labels together by the same for each: the square root lies
half-way, so that rare labels come first and frequent ones are not forgotten, as in an audit (power allocation with
exponent 1/2: Bankier, JASA 83 (1988), 174-177).

Answers about one label tell less and less: the k-th pair of a label, in the order of their gains, counts 1 / sqrt(k) of
its gain. The pairs of one image stand together, RUN of them at a time: the k-th such run counts 1 / k, and comes when
it is its turn.
"""

from __future__ import annotations

import numpy as np

from tagllm_cli.evaluation.entries import Array

RUN = 4


def gains(wrong: Array, labels: Array, given: Array) -> Array:
    """Return the gain of each pair, float64 [pairs].

    Args:
        wrong: the probability that what stands is wrong, float64 [pairs].
        labels: int64 [pairs].
        given: in how many images the table has each label, int64 [labels].
    """
    return np.asarray(wrong / np.sqrt(1 + given[labels]))


def ordered(gain: Array, rows: Array, labels: Array, limit: int) -> Array:
    """Return the positions of up to `limit` pairs with a gain, in the order in which they are asked, int64."""
    some = np.flatnonzero(gain > 0)
    gain, rows, labels = gain[some], rows[some], labels[some]
    gain = gain / np.sqrt(1 + _rank(gain, labels))
    run = _rank(gain, rows) // RUN
    gain = gain / (1 + run)
    kept = np.argsort(-gain, kind="stable")[:limit]
    group = np.unique(np.stack([rows[kept], run[kept]]), axis=1, return_inverse=True)[1].ravel()
    best = np.zeros(int(group.max(initial=-1)) + 1)
    np.maximum.at(best, group, gain[kept])
    order = np.lexsort((-gain[kept], group, -best[group]))
    return np.asarray(some[kept[order]])


def _rank(gain: Array, of: Array) -> Array:
    """Return each pair's place, from 0, among those of the same group by falling gain."""
    order = np.lexsort((-gain, of))
    counts = np.bincount(of) if len(of) else np.zeros(0, np.int64)
    starts = np.cumsum(counts) - counts
    ranks = np.empty(len(of), np.int64)
    ranks[order] = np.arange(len(of)) - starts[of[order]]
    return ranks
