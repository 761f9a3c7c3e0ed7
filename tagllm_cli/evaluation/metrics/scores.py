"""Metrics of a table against the truth: OP OR OF1, CP CR CF1, mAP, and the figures of each label.

`O` metrics are overall (micro): true positives, predictions and positives are summed over all labels first. `C` metrics
are per category (macro): precision and recall of each label, averaged over the labels with support, that is, with at
least one positive in the truth; CF1 is the harmonic mean of CP and CR, not the mean of the labels' F1. Source: TagLLM
(Xie et al., arXiv 2602.20972), which follows ML-GCN (Chen et al., CVPR 2019, arXiv 1904.03582, and its code). A ratio
without a denominator is 0: precision where nothing is predicted, recall without positives, F1 of two zeros. mAP is the
mean of average precision over labels with support. Pairs of image and label that the truth does not judge count in
nothing: neither as positives nor as negatives.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from tagllm_cli.evaluation.entries import (
    ABSENT,
    HUMAN,
    NOT_JUDGED,
    PREDICTED,
    PRESENT,
    UNDECIDED,
    Comparison,
    compare,
    entries_of,
)
from tagllm_cli.evaluation.metrics.average_precision import MissingTorchmetricsError, average_precisions
from tagllm_cli.evaluation.truth.base import Truth
from tagllm_cli.records import Row, Status
from tagllm_cli.vocabulary.model import Vocabulary


@dataclass(frozen=True, slots=True)
class LabelScores:
    """One label. Ratios lie in [0, 1]; `ap` is None without support or torchmetrics; the rest counts images."""

    name: str
    precision: float
    recall: float
    f1: float
    ap: float | None
    support: int
    predicted: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A table measured against a truth. Ratios lie in [0, 1].

    For a candidate table a prediction is a candidate: `op` is candidate precision, `or_` candidate recall and
    `mean_predicted` candidates per image. `map` is None where it needs torchmetrics and that is not installed. Metrics
    and means are over the `images` that were compared and the labels that both sides know; `partial` of these images
    have failed requests. `failed` and `pending` images were left out. `unknown` labels were undecided and count as no;
    `human` decisions were not judged. `unjudged` pairs of image and label are not judged by the truth (or decided by a
    person), `negatives` are judged absent.
    """

    stage: str
    op: float
    or_: float
    of1: float
    cp: float
    cr: float
    cf1: float
    map: float | None
    images: int
    mean_predicted: float
    mean_true: float
    partial: int
    failed: int
    pending: int
    images_not_in_truth: int
    images_not_in_table: int
    unknown: int
    human: int
    unjudged: int
    negatives: int
    labels_not_in_truth: tuple[str, ...]
    labels_not_in_vocabulary: tuple[str, ...]
    labels: tuple[LabelScores, ...]

    @property
    def judges_no_absence(self) -> bool:
        """Whether pairs are left unjudged and none is judged absent: then no prediction can be wrong."""
        return self.unjudged > 0 and self.negatives == 0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values under stable keys (`or_` becomes `or`), ratios and means rounded to six digits."""
        values = {key.rstrip("_"): value for key, value in asdict(self).items()}
        rounded: dict[str, Any] = json.loads(json.dumps(values), parse_float=lambda digits: round(float(digits), 6))
        return rounded


def evaluate_rows(
    rows: Iterable[Row], vocabulary: Vocabulary, truth: Truth, *, stage: str = "labels", include_human: bool = False
) -> Evaluation:
    """Compare the rows of a table (`stage`: `candidates` or `labels`), read once as a stream, with `truth`.

    Predictions are the decisions `yes`, or the candidates; `unknown` is no prediction. A label that is not in a row's
    list has score 0. A label whose source is human is not judged for that image, unless `include_human`. Memory grows
    with the images and their labels, not with images times labels. Raises UsageError where nothing can be compared.
    """
    table = entries_of(rows, vocabulary, stage)
    comparison = compare(table, vocabulary, truth, stage=stage, include_human=include_human)
    return evaluate(comparison, include_human=include_human)


def evaluate(comparison: Comparison, *, include_human: bool = False) -> Evaluation:
    """Return the metrics of a comparison."""
    entries, judgments = comparison.entries, comparison.judgments
    size = (len(entries.ids), len(entries.names))
    said = judgments.of(entries.cells)
    predicted = (entries.flags & PREDICTED) > 0
    true, false = (np.bincount(entries.labels[predicted & (said == value)], minlength=size[1]) for value in (1, 0))
    support = judgments.count(PRESENT, *size)
    try:
        precisions: list[float | None] = average_precisions(entries, judgments).tolist()
    except MissingTorchmetricsError:
        precisions = [None] * size[1]
    counts = zip(entries.names, true.tolist(), false.tolist(), support.tolist(), precisions, strict=True)
    labels = tuple(_scores(*each) for each in counts)
    overall = _scores("overall", int(true.sum()), int(false.sum()), int(support.sum()))
    cp, cr, mean_ap = _averages(labels)
    return Evaluation(
        *(comparison.stage, overall.precision, overall.recall, overall.f1),
        *(cp, cr, _f1(cp, cr), mean_ap),
        images=size[0],
        mean_predicted=overall.predicted / size[0],
        mean_true=overall.support / size[0],
        partial=entries.statuses.count(Status.PARTIAL),
        failed=comparison.statuses[Status.FAILED],
        pending=comparison.statuses[Status.PENDING],
        images_not_in_truth=len(comparison.images.not_in_truth),
        images_not_in_table=len(comparison.images.not_in_table),
        unknown=int(np.count_nonzero(entries.flags & UNDECIDED)),
        human=0 if include_human else int(np.count_nonzero(entries.flags & HUMAN)),
        unjudged=int(judgments.count(NOT_JUDGED, *size).sum()),
        negatives=int(judgments.count(ABSENT, *size).sum()),
        labels_not_in_truth=comparison.names.not_in_truth,
        labels_not_in_vocabulary=comparison.names.not_in_vocabulary,
        labels=labels,
    )


def _scores(name: str, tp: int, fp: int, support: int, ap: float | None = None) -> LabelScores:
    precision, recall = (tp / (tp + fp), tp / support) if tp else (0.0, 0.0)
    return LabelScores(name, precision, recall, _f1(precision, recall), ap if support else None, support, tp + fp)


def _averages(labels: Sequence[LabelScores]) -> tuple[float, float, float | None]:
    """Return CP, CR and mAP."""
    supported = [each for each in labels if each.support]
    if not supported:
        return 0.0, 0.0, 0.0
    aps = [each.ap for each in supported if each.ap is not None]
    mean_ap = fmean(aps) if len(aps) == len(supported) else None
    return fmean(each.precision for each in supported), fmean(each.recall for each in supported), mean_ap


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
