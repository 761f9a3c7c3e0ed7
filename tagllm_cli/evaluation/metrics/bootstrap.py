"""Percentile intervals by the bootstrap over images: each round draws as many images as there are, with replacement.

An image is drawn with all of its labels, so that what is correlated within an image stays so. Source: Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13. Rounds are drawn from the seed and their number alone:
comparisons of the same images draw the same images in the same rounds, and their differences can be paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tagllm_cli.evaluation.entries import Array
from tagllm_cli.evaluation.metrics.columns import Columns
from tagllm_cli.evaluation.metrics.counts import Counts, count
from tagllm_cli.evaluation.metrics.figures import by_label, headline

DEFAULT_ROUNDS = 200
LEVEL = 0.95

# Weights that are in memory at a time, one byte each.
_WEIGHTS = 2**25


@dataclass(frozen=True, slots=True)
class Interval:
    """What 95% of the rounds lie between."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Array) -> Interval:
        """Return the interval of `values` [rounds]."""
        # Of n values the k-th stands for k / (n + 1): NumPy's default would make intervals of few rounds too narrow.
        low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="weibull").tolist()
        return cls(low, high)

    def __str__(self) -> str:
        return f"[{self.low:.4f}, {self.high:.4f}]"

    def to_json(self) -> list[float]:
        """Return both ends, rounded to six digits."""
        return [round(self.low, 6), round(self.high, 6)]


@dataclass(frozen=True, slots=True)
class Intervals:
    """95% intervals of the headline figures (keys as in FIGURES) and of each label's F1, by `rounds` rounds."""

    rounds: int
    seed: int
    figures: Mapping[str, Interval]
    label_f1: Mapping[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: [low, high] by figure, and by label."""
        return {
            "rounds": self.rounds,
            "seed": self.seed,
            "level": LEVEL,
            **{name: interval.to_json() for name, interval in self.figures.items()},
            "label_f1": {name: interval.to_json() for name, interval in self.label_f1.items()},
        }


@dataclass(frozen=True, slots=True)
class Resampled:
    """Figures of every round: each of FIGURES, float64 [rounds], and each label's F1, float32 [rounds, labels]."""

    figures: Mapping[str, Array]
    label_f1: Array

    def intervals(self, names: Sequence[str], seed: int) -> Intervals:
        """Return the intervals; `names` are those of the labels."""
        figures = {name: Interval.of(values) for name, values in self.figures.items()}
        f1s = {name: Interval.of(values) for name, values in zip(names, self.label_f1.T, strict=True)}
        return Intervals(len(self.label_f1), seed, figures, f1s)


def resample(columns: Columns, rounds: int = DEFAULT_ROUNDS, seed: int = 0) -> Resampled:
    """Compute the figures of `rounds` resamples of the images."""
    parts = [(headline(counts), by_label(counts)[2].astype(np.float32)) for counts in rounds_of(columns, rounds, seed)]
    figures = {name: np.concatenate([part[name] for part, _ in parts]) for name in parts[0][0]}
    return Resampled(figures, np.concatenate([f1s for _, f1s in parts]))


def rounds_of(columns: Columns, rounds: int, seed: int) -> Iterator[Counts]:
    """Yield the counts of all rounds, some rounds at a time."""
    step = max(1, _WEIGHTS // columns.images)
    for start in range(0, rounds, step):
        numbers = range(start, min(rounds, start + step))
        yield count(columns, np.stack([draw(columns.images, seed, number) for number in numbers]))


def draw(images: int, seed: int, number: int) -> Array:
    """Return how often each image is drawn in the round `number`, uint8 [images]; the counts sum to `images`."""
    drawn = np.random.default_rng([seed, number]).integers(0, images, images, dtype=np.uint32)
    return np.bincount(drawn, minlength=images).astype(np.uint8)  # one of 256 or more does not occur
