"""A comparison label by label, sorted once, so that its counts under any weights of the images are sums of slices."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tagllm_cli.evaluation.entries import ABSENT, NOT_JUDGED, PREDICTED, PRESENT, Array, Comparison, Judgments, is_in


@dataclass(frozen=True, slots=True)
class Column:
    """One label. All arrays of `rows` are int32 and point into the images.

    `rows` are the images in which it is listed and judged, the highest score first; `is_true` and `is_predicted` (bool)
    belong to them. `missed` are the images in which it is present and not listed, `others` those of further listed
    judgments: the not judged ones, or where only listed cells are judged (`only_listed`) the absent ones. `tie_ends`
    and `hit_ends` end each run of equal scores that holds a true entry, as positions in `rows` and among its true ones.
    """

    rows: Array
    is_true: Array
    is_predicted: Array
    missed: Array
    others: Array
    only_listed: bool
    tie_ends: Array
    hit_ends: Array


@dataclass(frozen=True, slots=True)
class Columns:
    """All labels of a comparison, and what belongs to an image whatever the label: int32 [images].

    `predicted`, `true`, `judged` and `errors` count an image's labels, judged ones only.
    """

    columns: tuple[Column, ...]
    predicted: Array
    true: Array
    judged: Array
    errors: Array

    @property
    def images(self) -> int:
        """How many images are compared."""
        return len(self.judged)


def columns_of(comparison: Comparison) -> Columns:
    """Sort a comparison by label and score."""
    entries, judgments = comparison.entries, comparison.judgments
    cells, labels = entries.cells, len(entries.names)
    said = judgments.of(cells)
    # Only what is listed with a score ranks; a prediction without one comes last, with all that is not listed.
    scores = np.maximum(entries.scores, 0)
    order = np.argsort(_label_then_score(entries.labels, scores))
    order = order[said[order] != NOT_JUDGED]
    rows, scores = entries.rows[order].astype(np.int32), scores[order]
    is_true, is_predicted = said[order] == PRESENT, (entries.flags[order] & PREDICTED) > 0
    ends = np.searchsorted(entries.labels[order], np.arange(labels + 1))
    missed, others = _not_listed(judgments, np.sort(cells[order]), labels)
    columns = []
    for label, (start, stop) in enumerate(pairwise(ends.tolist())):
        here = slice(start, stop)
        rest = (missed[label], others[label], judgments.rest != ABSENT)
        ties = _ties(scores[here], is_true[here])
        columns.append(Column(rows[here], is_true[here], is_predicted[here], *rest, *ties))
    predicted, right = (
        np.bincount(rows[which], minlength=len(entries.ids)) for which in (is_predicted, is_predicted & is_true)
    )
    true, judged = _judged_per_image(judgments, len(entries.ids), labels)
    per_image = (predicted, true, judged, true + predicted - 2 * right)
    return Columns(tuple(columns), *(each.astype(np.int32) for each in per_image))


def _label_then_score(labels: Array, scores: Array) -> Array:
    """Return keys, int64, that sort by label, then by descending score: floats >= 0 order as their bits do."""
    bits = np.ascontiguousarray(scores, np.float32).view(np.int32)
    return (labels.astype(np.int64) << 32) | (np.iinfo(np.int32).max - bits)


def _not_listed(judgments: Judgments, listed: Array, labels: int) -> tuple[list[Array], list[Array]]:
    """Return `missed` and `others` of each label; `listed` are the cells of judged entries, sorted."""
    is_unlisted = ~is_in(judgments.cells, listed)
    missed = is_unlisted & (judgments.values == PRESENT)
    unjudged, absent = judgments.values == NOT_JUDGED, is_unlisted & (judgments.values == ABSENT)
    others = unjudged if judgments.rest == ABSENT else absent
    return _by_label(judgments.cells[missed], labels), _by_label(judgments.cells[others], labels)


def _judged_per_image(judgments: Judgments, images: int, labels: int) -> tuple[Array, Array]:
    """Return how many labels are present, and how many are judged, in each image."""
    rows = judgments.cells // labels
    present, unjudged = (
        np.bincount(rows[judgments.values == value], minlength=images) for value in (PRESENT, NOT_JUDGED)
    )
    if judgments.rest == ABSENT:
        return present, labels - unjudged
    return present, np.bincount(rows, minlength=images) - unjudged


def _by_label(cells: Array, labels: int) -> list[Array]:
    of_label = cells % labels
    order = np.argsort(of_label, kind="stable")
    rows = (cells // labels).astype(np.int32)[order]
    return np.split(rows, np.searchsorted(of_label[order], np.arange(1, labels)))


def _ties(scores: Array, is_true: Array) -> tuple[Array, Array]:
    """Return where runs of equal positive scores with a true entry end, in all entries and among the true ones."""
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])
    ends = ends[scores[ends] > 0]
    hits = np.cumsum(is_true, dtype=np.int64)[ends]
    grows = np.diff(hits, prepend=0) > 0
    return ends[grows], hits[grows] - 1
