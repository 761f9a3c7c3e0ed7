"""Average precision per label: the sum over n of (R_n - R_{n-1}) P_n, not interpolated, equal scores taken together.

It is exact, without binned thresholds. torchmetrics computes it, with all images of a few labels at a time. A label
whose listed scores are all the same has one operating point besides "everything": its average precision follows from
counts, P R + (1 - R) prevalence, and neither torch nor torchmetrics is loaded for it.
"""

from __future__ import annotations

import numpy as np

from tagllm_cli.evaluation.entries import ABSENT, NOT_JUDGED, PRESENT, Array, Entries, Judgments

# Cells (images x labels) that are dense in memory at a time, about 30 bytes each while torchmetrics works on them.
DENSE_CELLS = 4_000_000


class MissingTorchmetricsError(Exception):
    """torchmetrics, the extra `eval`, is not installed."""


def average_precisions(entries: Entries, judgments: Judgments) -> Array:
    """Return average precision, float64 [labels], NaN without a positive.

    Raises MissingTorchmetricsError where a label has several scores and torchmetrics is not installed.
    """
    labels = len(entries.names)
    present = judgments.count(PRESENT, len(entries.ids), labels)
    judged = present + judgments.count(ABSENT, len(entries.ids), labels)
    said = judgments.of(entries.cells)
    listed = (said != NOT_JUDGED) & (entries.scores > 0)
    of_label, scores = entries.labels[listed], entries.scores[listed]
    lowest, highest = np.full(labels, np.inf), np.full(labels, -np.inf)
    np.minimum.at(lowest, of_label, scores)
    np.maximum.at(highest, of_label, scores)
    ranked = np.flatnonzero((lowest < highest) & (present > 0))
    hits = np.bincount(of_label[said[listed] == PRESENT], minlength=labels)
    with np.errstate(invalid="ignore"):
        recall, prevalence = hits / present, present / judged
    precision = hits / np.maximum(1, np.bincount(of_label, minlength=labels))
    found = precision * recall + (1 - recall) * prevalence
    found[present == 0] = np.nan
    if ranked.size:
        found[ranked] = _ranked(entries, judgments, ranked)
    return np.asarray(found, np.float64)


def _ranked(entries: Entries, judgments: Judgments, labels: Array) -> Array:
    try:
        import torch
        from torchmetrics.functional.classification import multilabel_average_precision
    except ImportError as error:
        raise MissingTorchmetricsError from error

    place = np.full(len(entries.names), -1, np.int64)
    place[labels] = np.arange(len(labels))
    judged = (judgments.cells // len(entries.names), place[judgments.cells % len(entries.names)], judgments.values)
    scored = (entries.rows, place[entries.labels], entries.scores)
    height, found = len(entries.ids), np.zeros(len(labels))
    width = max(1, DENSE_CELLS // height)
    threads = torch.get_num_threads()
    # On a busy machine threads wait for one another in each of these many short steps: twenty times slower.
    torch.set_num_threads(1)
    try:
        for start in range(0, len(labels), width):
            stop = min(start + width, len(labels))
            target = torch.from_numpy(_dense(*judged, height, start, stop, judgments.rest))
            scores = torch.from_numpy(_dense(*scored, height, start, stop, 0))
            how = {"average": "none", "ignore_index": NOT_JUDGED, "validate_args": False}
            values = multilabel_average_precision(scores, target, num_labels=stop - start, **how)
            found[start:stop] = values.numpy()
    finally:
        torch.set_num_threads(threads)
    return found


def _dense(rows: Array, labels: Array, values: Array, height: int, start: int, stop: int, rest: int) -> Array:
    """Return columns `start` to `stop` [height, stop - start] of a matrix that is `rest` where nothing is listed."""
    inside = (labels >= start) & (labels < stop)
    matrix = np.full((height, stop - start), rest, values.dtype, order="F")
    matrix[rows[inside], labels[inside] - start] = values[inside]
    return matrix
