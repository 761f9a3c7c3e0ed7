"""Mean average precision of classifiers, again on resampled test images, and intervals over seeds and images.

Images are drawn with replacement, which is the same as weights: how often each was drawn. Average precision with
weights w, images sorted by falling score, images of equal score taken together:

    AP = sum over positives i of w_i P_i / sum over positives of w_i,   P_i = weighted precision down to i's score

as scikit-learn's `average_precision_score(sample_weight=w)`. mAP is its mean over labels with a positive among the
images drawn. Intervals resample the seeds as well as the images, each on its own, and the same ones for all label sets
(Owen, "The pigeonhole bootstrap", 2007, arXiv 0712.1111); 95% percentiles. Images that are drawn twice share their
rank, which raises average precision a little: samples are moved so that their mean is the figure itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tagllm_cli.evaluation.downstream.label_sets import CERTAIN, UNJUDGED
from tagllm_cli.evaluation.entries import Array
from tagllm_cli.evaluation.sections import Figure

ROUNDS = 500
OUTSIDE = 2.5  # percent, on either side of an interval
_CELLS = 2_000_000  # rounds times images in memory at a time


def with_interval(value: float, samples: Array) -> Figure:
    """Return `value` with the percentiles of `samples` [rounds], moved so that their mean is `value`."""
    low, high = np.percentile(samples - samples.mean() + value, [OUTSIDE, 100 - OUTSIDE])
    return Figure(float(value), float(low), float(high))


@dataclass(frozen=True, slots=True)
class Draws:
    """What each round draws: `images` uint16 [rounds, images], how often; `seeds` int64 [rounds, seeds], which."""

    images: Array
    seeds: Array

    @classmethod
    def of(cls, images: int, seeds: int, rounds: int = ROUNDS, seed: int = 0) -> Draws:
        """Draw anew, the same ones each time."""
        random = np.random.default_rng(seed)
        drawn = (random.integers(0, images, images) for _ in range(rounds))
        counts = np.array([np.bincount(each, minlength=images).astype(np.uint16) for each in drawn])
        return cls(counts, random.integers(0, seeds, (rounds, seeds)))


def average_precisions(scores: Array, true: Array) -> Array:
    """Return average precision by torchmetrics, float64 [labels], NaN without a positive.

    Args:
        scores: float32 [images, labels] in [0, 1].
        true: uint8 [images, labels]: 0, CERTAIN or UNJUDGED, which counts in nothing.
    """
    import torch
    from torchmetrics.functional.classification import multilabel_average_precision

    precisions = np.full(true.shape[1], np.nan)
    labels = np.flatnonzero((true == CERTAIN).any(0))
    if not labels.size:
        return precisions
    target = np.where(true[:, labels] == UNJUDGED, -1, true[:, labels] == CERTAIN).astype(np.int64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many short steps, for which threads would wait
    try:
        precisions[labels] = multilabel_average_precision(
            torch.from_numpy(scores[:, labels]), torch.from_numpy(target), num_labels=len(labels),
            average="none", ignore_index=-1, validate_args=False,
        ).numpy().reshape(-1)  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    return precisions


def mean_ap(scores: Array, true: Array) -> float:
    """Return mAP over the labels with a positive. Arguments as for `average_precisions`."""
    return float(np.nanmean(average_precisions(scores, true)))


def resampled_maps(scores: Array, true: Array, images: Array) -> Array:
    """Return mAP in each round of `Draws.images`, float64 [rounds]; NaN in a round without a positive."""
    found = np.empty((len(images), true.shape[1]))
    step = max(1, _CELLS // max(1, len(true)))
    for label in range(true.shape[1]):
        judged = np.flatnonzero(true[:, label] != UNJUDGED)
        order = judged[np.argsort(-scores[judged, label], kind="stable")]
        ranked, is_true = scores[order, label], true[order, label] == CERTAIN
        for start in range(0, len(images), step):
            found[start : start + step, label] = _weighted(ranked, is_true, images[start : start + step, order])
    measured = ~np.isnan(found)
    counts = measured.sum(1)
    return np.where(counts > 0, np.where(measured, found, 0).sum(1) / np.maximum(1, counts), np.nan)


def _weighted(ranked: Array, is_true: Array, weights: Array) -> Array:
    """Return average precision [rounds] of images sorted by falling score, with weights [rounds, images]."""
    if not is_true.any():
        return np.full(len(weights), np.nan)
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each run of equal scores
    drawn = weights.cumsum(1, dtype=np.float32)[:, ends]
    hits = (weights * is_true).cumsum(1, dtype=np.float32)[:, ends]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(drawn > 0, hits / drawn, 0)
        return np.asarray((np.diff(hits, axis=1, prepend=0) * precision).sum(1) / hits[:, -1])


@dataclass(frozen=True, slots=True)
class Figures:
    """The classifiers of one label set: `maps` float64 [seeds], and in each round `resampled` [seeds, rounds]."""

    maps: Array
    resampled: Array

    @property
    def mean(self) -> float:
        """mAP, the mean over the seeds."""
        return float(self.maps.mean())

    def samples(self, draws: Draws) -> Array:
        """Return the mean over the seeds drawn, on the images drawn, float64 [rounds].

        Rounds without a positive are left out; they are the same ones for all classifiers.
        """
        found = np.asarray(self.resampled[draws.seeds, np.arange(len(draws.seeds))[:, None]].mean(1))
        return np.asarray(found[~np.isnan(found)])

    def interval(self, draws: Draws) -> Figure:
        """Return mAP with its interval."""
        return with_interval(self.mean, self.samples(draws))


def figures(scores: Sequence[Array], true: Array, draws: Draws) -> Figures:
    """Return the figures of classifiers, one per seed, from their `scores` of the test images."""
    maps = np.array([mean_ap(each, true) for each in scores])
    return Figures(maps, np.stack([resampled_maps(each, true, draws.images) for each in scores]))
