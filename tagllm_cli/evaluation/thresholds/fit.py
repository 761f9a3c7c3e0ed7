"""One threshold per label, shrunk toward the common one as far as the label's examples leave it uncertain.

Thresholds are shrunk as logits. A label's best threshold t with variance s^2 (Poisson bootstrap over images: the bins
of one label's scores are independent) becomes t0 + w (t - t0), w = tau^2 / (tau^2 + s^2), with t0 the common threshold
and tau^2 the variance of the labels' true thresholds around it, from sum (t - t0)^2 / (tau^2 + s^2) = number of labels.
Sources: parametric empirical Bayes, Morris, JASA 78 (1983), 47-55; tau^2: Paule and Mandel, J. Res. NBS 87 (1982),
377-385, with the mean known; Poisson bootstrap: Chamandy et al., "Estimating uncertainty for massive data streams"
(Google, 2012).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tagllm_cli.evaluation.entries import Array
from tagllm_cli.evaluation.thresholds.counts import Counts, above
from tagllm_cli.evaluation.thresholds.metric import Metric

MIN_POSITIVES = 5
_LOGITS = 14.0  # of probabilities 0 and 1
_DRAWN = 16_000_000  # random numbers at a time


@dataclass(frozen=True, slots=True)
class Fit:
    """Thresholds as places in the grid: `common` one and `own` int64 [labels].

    `weight` in [0, 1] is how far a label's own best threshold counts. `low` and `high` float64 [labels] bound 95% of
    `own` over resampled images, the common one held fixed.
    """

    common: int
    own: Array
    weight: Array
    low: Array
    high: Array


def fit(
    counts: Counts,
    folds: Array,
    metric: Metric,
    random: np.random.Generator,
    rounds: int = 40,
    offsets: Array | None = None,
) -> Fit:
    """Fit thresholds on some `folds`, int64; labels with fewer than MIN_POSITIVES there get the common one.

    `offsets`, logits [labels], are what is known about the labels beforehand: a label is shrunk toward the common
    threshold plus its offset, times the factor that fits the other labels best.
    """
    tp, fp = counts.above(folds)
    support = counts.support[folds].sum(axis=0)
    common = metric.best_common(tp, fp, support) if support.any() else int(np.searchsorted(counts.grid, 0.5))
    logits = logit(counts.grid)
    center = logits[common]
    enough = support >= MIN_POSITIVES
    best, drawn = np.full(len(support), center), np.full((rounds, len(support)), center)
    if enough.any():
        best[enough] = logits[metric.best(tp[enough], fp[enough], support[enough])]
        present, absent = (bins[folds].sum(axis=0)[enough] for bins in (counts.present, counts.absent))
        draws = _resampled(present, absent, support[enough], metric, random, rounds)
        drawn[:, enough] = logits[np.concatenate(list(draws))]
    variance = drawn.var(axis=0, ddof=1)
    centers = np.full(len(support), center)
    if offsets is not None:
        centers += offsets * _factor(best - center, variance, offsets, enough)
        best[~enough], drawn[:, ~enough] = centers[~enough], centers[~enough]
    between = between_variance((best - centers)[enough], variance[enough])
    total = between + variance
    weight = np.divide(between, total, out=np.zeros_like(total), where=total > 0) * enough
    shrunk = centers + weight * (best - centers)
    low, high = np.quantile(centers + weight * (drawn - centers), [0.025, 0.975], axis=0)
    own = nearest(logits, shrunk)
    at = logits[own]
    return Fit(common, own, weight, expit(np.minimum(low, at)), expit(np.maximum(high, at)))


def _factor(distances: Array, variances: Array, offsets: Array, enough: Array) -> Array:
    """Return for each label the factor of `offsets`, in [0, 2], that fits the distances of the other labels best."""
    weights = enough / (variances + max(1e-3, between_variance(distances[enough], variances[enough])))
    top, low = weights * offsets * distances, weights * offsets**2
    others = low.sum() - low
    fitted = np.divide(top.sum() - top, others, out=np.zeros_like(others), where=others > 1e-9)
    return np.asarray(np.clip(fitted, 0, 2))


def _resampled(
    present: Array, absent: Array, support: Array, metric: Metric, random: np.random.Generator, rounds: int
) -> Iterator[Array]:
    """Yield the best places under resampled images, int64 [some rounds, labels]."""
    never_proposed = support - present.sum(axis=-1)
    step = max(1, _DRAWN // max(1, 2 * present.size))
    for start in range(0, rounds, step):
        size = min(step, rounds - start)
        true, false = (_poisson(bins, size, random) for bins in (present, absent))
        drawn = true.sum(axis=-1) + random.poisson(never_proposed, (size, len(support)))
        yield metric.best(above(true), above(false), drawn)


def _poisson(means: Array, size: int, random: np.random.Generator) -> Array:
    """Return `size` draws, int64 [size, *means.shape]; most bins of small samples are empty and need none."""
    drawn = np.zeros((size, *means.shape), np.int64)
    some = means > 0
    drawn[:, some] = random.poisson(means[some], (size, int(np.count_nonzero(some))))
    return drawn


def between_variance(distances: Array, variances: Array) -> float:
    """Return tau^2 >= 0 with sum distances^2 / (tau^2 + variances) = n; 0 where the left side is never so large."""
    squares = distances**2
    if not len(squares) or not squares.any():
        return 0.0
    low, high = 0.0, float(squares.sum() / len(squares))  # the left side is at most n at `high`
    positive = np.maximum(variances, 1e-12)
    if (squares / positive).sum() <= len(squares):
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (squares / (middle + positive)).sum() > len(squares) else (low, middle)
    return high


def nearest(logits: Array, wanted: Array) -> Array:
    """Return the places in ascending `logits` that are nearest to the wanted ones, int64."""
    right = np.clip(np.searchsorted(logits, wanted), 1, len(logits) - 1)
    return np.asarray(np.where(wanted - logits[right - 1] <= logits[right] - wanted, right - 1, right))


def logit(probabilities: Array) -> Array:
    """Return ln(p / (1 - p)), float64, cut to -14 and 14."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.clip(np.log(probabilities) - np.log1p(-probabilities), -_LOGITS, _LOGITS))


def expit(logits: Array) -> Array:
    """Return 1 / (1 + exp(-x)), float64."""
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
