"""Headline figures from counts, for all rounds of weights at once: OP OR OF1, CP CR CF1, mAP, exact match, Hamming.

`O` metrics are overall (micro): true positives, predictions and positives are summed over all labels first. `C` metrics
are per category (macro): precision and recall of each label, averaged over the labels with support, that is, with at
least one positive in the truth; CF1 is the harmonic mean of CP and CR, not the mean of the labels' F1. Source: TagLLM
(Xie et al., arXiv 2602.20972), which follows ML-GCN (Chen et al., CVPR 2019, arXiv 1904.03582, and its code). A ratio
without a denominator is 0: precision where nothing is predicted, recall without positives, F1 of two zeros. mAP is the
mean of average precision over labels with support. Exact match is the share of images all of whose judged labels are
right; Hamming loss the share of judged pairs of image and label that are wrong. Pairs that the truth does not judge
count in nothing: neither as positives nor as negatives.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tagllm_cli.evaluation.entries import Array
from tagllm_cli.evaluation.metrics.counts import Counts

# `hamming` is a loss; the means are labels per image, and `mean_difference` is predicted less true.
FIGURES = (
    *("op", "or", "of1", "cp", "cr", "cf1", "map"),
    *("exact_match", "hamming", "mean_predicted", "mean_true", "mean_difference"),
)


def headline(counts: Counts) -> Mapping[str, Array]:
    """Return each of FIGURES, float64 [rounds]."""
    true, false, present = (
        each.sum(axis=1) for each in (counts.true_positives, counts.false_positives, counts.present)
    )
    op, recall = ratio(true, true + false), ratio(true, present)
    has_support = counts.present > 0
    supported = has_support.sum(axis=1)
    precisions, recalls = (np.where(has_support, each, 0).sum(axis=1) for each in by_label(counts)[:2])
    cp, cr = ratio(precisions, supported), ratio(recalls, supported)
    predicted, there = ratio(true + false, counts.images), ratio(present, counts.images)
    found = (
        *(op, recall, f1(op, recall), cp, cr, f1(cp, cr)),
        ratio(np.where(has_support, counts.ap, 0).sum(axis=1), supported),
        ratio(counts.exact, counts.judged_images),
        ratio(false + present - true, counts.judged.sum(axis=1)),
        *(predicted, there, predicted - there),
    )
    return dict(zip(FIGURES, found, strict=True))


def by_label(counts: Counts) -> tuple[Array, Array, Array]:
    """Return precision, recall and F1 of each label, float64 [rounds, labels]."""
    precision = ratio(counts.true_positives, counts.true_positives + counts.false_positives)
    recall = ratio(counts.true_positives, counts.present)
    return precision, recall, f1(precision, recall)


def f1(precision: Array, recall: Array) -> Array:
    """Return the harmonic mean, 0 of two zeros."""
    return ratio(2 * precision * recall, precision + recall)


def ratio(part: Array, whole: Array) -> Array:
    """Return part / whole, 0 without a denominator."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)
