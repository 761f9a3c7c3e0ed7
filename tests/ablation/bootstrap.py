"""Paired bootstrap over images: what would the figures be on other scenes of the same kind?

Every image brings its counts of true positives, false positives and false negatives; images are drawn with
replacement, the same ones for all that is compared. Source: Efron & Tibshirani, An Introduction to the Bootstrap
(1993), percentile intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

RESAMPLES = 2_000
LEVEL = 0.95

Array = npt.NDArray[np.float64]
# Sums [..., 3] of (true positives, false positives, false negatives) -> ratios [...] in [0, 1].
Metric = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95% percentile interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Array) -> Interval:
        """Return the interval of `samples` [1 + resamples], the figure itself first."""
        outside = 50 * (1 - LEVEL)
        low, high = np.percentile(samples[1:], [outside, 100 - outside])
        return cls(float(samples[0]), float(low), float(high))

    @property
    def is_above_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.low > 0


@cache
def weights(images: int, seed: int = 0) -> Array:
    """Return how often each image counts [1 + RESAMPLES, images]: once in the first row, as drawn in the others."""
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), RESAMPLES)
    return np.vstack([np.ones(images), drawn])


def samples(metric: Metric, counts: npt.NDArray[np.int64], seed: int = 0) -> Array:
    """Return a metric [1 + RESAMPLES] of per-image counts [images, 3]; seeds that differ draw independently."""
    return metric(weights(len(counts), seed) @ counts.astype(np.float64))


def precision(counts: Array) -> Array:
    """Return tp / (tp + fp); 0 where nothing is predicted."""
    return _ratio(counts[..., 0], counts[..., 0] + counts[..., 1])


def recall(counts: Array) -> Array:
    """Return tp / (tp + fn); 0 without positives."""
    return _ratio(counts[..., 0], counts[..., 0] + counts[..., 2])


def f1(counts: Array) -> Array:
    """Return 2 tp / (2 tp + fp + fn), the harmonic mean of precision and recall; 0 where both are."""
    return _ratio(2 * counts[..., 0], 2 * counts[..., 0] + counts[..., 1] + counts[..., 2])


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
