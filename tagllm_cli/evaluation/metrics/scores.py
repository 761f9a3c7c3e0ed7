"""Metrics of a table against the truth: the headline figures (`figures`) and those of each label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tagllm_cli.evaluation.entries import (
    ABSENT,
    HUMAN,
    NOT_JUDGED,
    UNDECIDED,
    Comparison,
    compare,
    entries_of,
)
from tagllm_cli.evaluation.metrics.columns import Columns, columns_of
from tagllm_cli.evaluation.metrics.counts import Counts, count
from tagllm_cli.evaluation.metrics.figures import by_label, headline
from tagllm_cli.evaluation.sections import rounded
from tagllm_cli.evaluation.truth.base import Truth
from tagllm_cli.records import Row, Status
from tagllm_cli.vocabulary.model import Vocabulary


@dataclass(frozen=True, slots=True)
class LabelScores:
    """One label. Ratios lie in [0, 1]; `ap` is None without support; the rest counts images."""

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
    `mean_predicted` candidates per image. Metrics and means are over the `images` that were compared and the labels
    that both sides know; `hamming` is a loss, `mean_difference` is predicted less true. `partial` of these images have
    failed requests. `failed` and `pending` images were left out. `unknown` labels were undecided and count as no;
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
    map: float
    exact_match: float
    hamming: float
    mean_predicted: float
    mean_true: float
    mean_difference: float
    images: int
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
        found: dict[str, Any] = rounded(values)
        return found


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


def evaluate(comparison: Comparison, *, include_human: bool = False, columns: Columns | None = None) -> Evaluation:
    """Return the metrics of a comparison; `columns` are its columns, where they were made already."""
    entries, judgments = comparison.entries, comparison.judgments
    size = (len(entries.ids), len(entries.names))
    counts = count(columns or columns_of(comparison), np.ones((1, size[0]), np.uint8))
    figures = {"or_" if name == "or" else name: float(value[0]) for name, value in headline(counts).items()}
    return Evaluation(
        comparison.stage,
        **figures,
        images=size[0],
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
        labels=_label_scores(entries.names, counts),
    )


def _label_scores(names: Sequence[str], counts: Counts) -> tuple[LabelScores, ...]:
    ratios = [each[0].tolist() for each in by_label(counts)]
    aps = [None if np.isnan(ap) else ap for ap in counts.ap[0].tolist()]
    whole = (counts.present, counts.true_positives + counts.false_positives)
    numbers = [each[0].astype(np.int64).tolist() for each in whole]
    return tuple(LabelScores(*each) for each in zip(names, *ratios, aps, *numbers, strict=True))
