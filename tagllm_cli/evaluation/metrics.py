"""Evaluation: how well a table's labels agree with people's.

`O` metrics are overall (micro): true positives, predictions and positives are summed over all labels first. `C` metrics
are per category (macro): precision and recall of each label, averaged over the labels with support, that is, with at
least one positive in the truth; CF1 is the harmonic mean of CP and CR, not the mean of the labels' F1. Source: TagLLM
(Xie et al., arXiv 2602.20972), which follows ML-GCN (Chen et al., CVPR 2019, arXiv 1904.03582, and its code). A ratio
without a denominator is 0: precision where nothing is predicted, recall without positives, F1 of two zeros.

mAP is the mean, over labels with support, of AP = sum over n of (R_n - R_{n-1}) P_n, not interpolated, equal scores
taken together. It is exact, without binned thresholds: torchmetrics gets all images of a few labels at a time.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.truth import Truth, match_images, match_names
from tagllm_cli.records import Decision, Row, Status
from tagllm_cli.vocabulary.model import Vocabulary

GATES = ("op", "or", "of1", "cp", "cr", "cf1", "map")

# Cells (images x labels) that are dense in memory at a time, about 30 bytes each while torchmetrics works on them.
DENSE_CELLS = 4_000_000
_NOT_JUDGED = -1
_PREDICTED, _UNKNOWN, _HUMAN = 1, 2, 4

Array = npt.NDArray[Any]
# Rows, labels and values of some cells of a matrix [rows, labels], as parallel arrays; its other cells are 0.
Cells = tuple[Array, Array, Array]


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Agreement on one label. Ratios lie in [0, 1]; `ap` is None without support; the rest counts images."""

    name: str
    precision: float
    recall: float
    f1: float
    ap: float | None
    support: int
    predicted: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Agreement of a table with a truth. Ratios lie in [0, 1].

    For a candidate table a prediction is a candidate: `op` is candidate precision, `or_` candidate recall and
    `mean_predicted` candidates per image. Metrics and means are over the `images` that were compared and the labels
    that both sides know; `partial` of these images have failed requests. `failed` and `pending` images were left out.
    `unknown` labels were undecided and count as no; `human` decisions were not judged.
    """

    stage: str
    op: float
    or_: float
    of1: float
    cp: float
    cr: float
    cf1: float
    map: float
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
    labels_not_in_truth: tuple[str, ...]
    labels_not_in_vocabulary: tuple[str, ...]
    labels: tuple[LabelScores, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values under stable keys (`or_` becomes `or`), ratios and means rounded to six digits."""
        values = {key.rstrip("_"): value for key, value in asdict(self).items()}
        rounded: dict[str, Any] = json.loads(json.dumps(values), parse_float=lambda digits: round(float(digits), 6))
        return rounded


@dataclass(frozen=True, slots=True)
class MissedGate:
    """A metric with the least value that passes its gate, and the lower value that was found."""

    metric: str
    least: float
    value: float

    def __str__(self) -> str:
        return f"{self.metric} is {self.value:.4f}, below {self.least:g}"


def parse_gates(specs: Iterable[str]) -> dict[str, float]:
    """Read gates such as `of1=0.9`: each metric's least value, in [0, 1]. Raises UsageError for anything else."""
    gates = {}
    for spec in specs:
        metric, _, value = spec.partition("=")
        metric = metric.strip().lower()
        if metric not in GATES:
            raise UsageError(f"no gate is called {metric!r}", f"Use one of {', '.join(GATES)}, as in of1=0.9.")
        try:
            gates[metric] = float(value)
        except ValueError:
            gates[metric] = np.nan
        if not 0 <= gates[metric] <= 1:
            raise UsageError(f"the gate {spec!r} needs a number from 0 to 1", f"Write it as {metric}=0.9.")
    return gates


def check_gates(evaluation: Evaluation, specs: Iterable[str]) -> list[MissedGate]:
    """Return the gates that `evaluation` misses, in their order; a value equal to its gate passes."""
    found = {metric: float(getattr(evaluation, "or_" if metric == "or" else metric)) for metric in GATES}
    gates = parse_gates(specs)
    return [MissedGate(metric, least, found[metric]) for metric, least in gates.items() if found[metric] < least]


def evaluate_rows(
    rows: Iterable[Row], vocabulary: Vocabulary, truth: Truth, *, stage: str = "labels", include_human: bool = False
) -> Evaluation:
    """Compare the rows of a table (`stage`: `candidates` or `labels`), read once as a stream, with `truth`.

    Predictions are the decisions `yes`, or the candidates; `unknown` is no prediction. A label that is not in a row's
    list has score 0. A label whose source is human is not judged for that image, unless `include_human`. Memory grows
    with the images and their labels, not with images times labels. Raises UsageError where nothing can be compared.
    """
    table = _read(rows, vocabulary, stage)
    images, names = match_images(truth, table.ids), match_names(truth, vocabulary)
    entries = table.shared(images.keys, set(names.not_in_truth) if truth.exhaustive else set())
    if not entries.ids or not names.in_vocabulary:
        raise _nothing_in_common(table, truth, entries)
    counts, precisions = _count(entries, _target(entries, truth, images.keys, names.in_vocabulary, include_human))
    labels = tuple(map(_scores, entries.names, counts.tolist(), precisions.tolist()))
    overall = _scores("overall", counts.sum(axis=0).tolist())
    return Evaluation(
        *(stage, overall.precision, overall.recall, overall.f1),
        *_averages(labels),
        images=len(entries.ids),
        mean_predicted=overall.predicted / len(entries.ids),
        mean_true=overall.support / len(entries.ids),
        partial=entries.statuses.count(Status.PARTIAL),
        failed=table.statuses.count(Status.FAILED),
        pending=table.statuses.count(Status.PENDING),
        images_not_in_truth=len(images.not_in_truth),
        images_not_in_table=len(images.not_in_table),
        unknown=int(np.count_nonzero(entries.flags & _UNKNOWN)),
        human=0 if include_human else int(np.count_nonzero(entries.flags & _HUMAN)),
        labels_not_in_truth=names.not_in_truth,
        labels_not_in_vocabulary=names.not_in_vocabulary,
        labels=labels,
    )


@dataclass(frozen=True, slots=True)
class _Entries:
    """The label entries of some rows: parallel arrays, with `rows` pointing into `ids` and `labels` into `names`."""

    ids: Sequence[str]
    statuses: Sequence[Status]
    names: Sequence[str]
    rows: Array  # int64
    labels: Array  # int64
    scores: Array  # float32
    flags: Array  # int8: _PREDICTED, _UNKNOWN and _HUMAN

    def shared(self, images: Collection[str], unjudged: Collection[str]) -> _Entries:
        """Keep the answered rows of `images`, and all labels but `unjudged`."""
        answered = (Status.OK, Status.PARTIAL)
        ids = [row for row, image in enumerate(self.ids) if image in images and self.statuses[row] in answered]
        names = [label for label, name in enumerate(self.names) if name not in unjudged]
        rows, labels = _renumbered(self.rows, ids, len(self.ids)), _renumbered(self.labels, names, len(self.names))
        kept = (rows >= 0) & (labels >= 0)
        return _Entries(
            [self.ids[row] for row in ids],
            [self.statuses[row] for row in ids],
            [self.names[label] for label in names],
            *(rows[kept], labels[kept], self.scores[kept], self.flags[kept]),
        )


def _renumbered(positions: Array, kept: Sequence[int], length: int) -> Array:
    """Return where `positions`, each below `length`, stand among those `kept`; -1 for the others."""
    place = np.full(length, -1, np.int64)
    place[kept] = np.arange(len(kept))
    return place[positions]


def _read(rows: Iterable[Row], vocabulary: Vocabulary, stage: str) -> _Entries:
    ids, statuses = [], []
    places, labels, scores, flags = array("q"), array("q"), array("f"), array("b")
    position = {name: index for index, name in enumerate(vocabulary.names)}
    plan_options = Decision.YES if stage == "labels" else None
    for index, row in enumerate(rows):
        ids.append(row.image_id)
        statuses.append(row.status)
        for entry in row.labels or ():
            places.append(index)
            labels.append(position[entry.name])
            scores.append(entry.score)
            said = _PREDICTED * (entry.decision == plan_options) + _UNKNOWN * (entry.decision == Decision.UNKNOWN)
            flags.append(said + _HUMAN * (entry.source == "human"))
    return _Entries(ids, statuses, vocabulary.names, *map(np.array, (places, labels, scores, flags)))


def _target(
    entries: _Entries, truth: Truth, keys: Mapping[str, str], in_vocabulary: Mapping[str, str], include_human: bool
) -> Cells:
    """Return 1 where the truth has a label; then, to overrule that, -1 where nothing is to be judged."""
    position = {name: index for index, name in enumerate(entries.names)}
    label_of = {name: position[own] for name, own in in_vocabulary.items()}

    def cells(labels: Mapping[str, frozenset[str]]) -> Array:
        named = ((row, name) for row, image in enumerate(entries.ids) for name in labels.get(keys[image], ()))
        pairs = ((row, label_of[name]) for row, name in named if name in label_of)
        return np.fromiter(chain.from_iterable(pairs), np.int64).reshape(-1, 2)

    human = np.flatnonzero(entries.flags & (0 if include_human else _HUMAN))
    decided = np.column_stack([entries.rows[human], entries.labels[human]])
    marks = [(cells(truth.labels), 1), (cells(truth.unknown), _NOT_JUDGED), (decided, _NOT_JUDGED)]
    rows, labels = np.concatenate([found for found, _ in marks]).T
    return rows, labels, np.concatenate([np.full(len(found), value, np.int8) for found, value in marks])


def _dense(cells: Cells, height: int, start: int, stop: int) -> Array:
    """Return columns `start` to `stop` [height, stop - start]; of several values for one cell the last counts."""
    rows, labels, values = cells
    inside = (labels >= start) & (labels < stop)
    matrix = np.zeros((height, stop - start), values.dtype, order="F")
    matrix[rows[inside], labels[inside] - start] = values[inside]
    return matrix


def _count(entries: _Entries, target: Cells) -> tuple[Array, Array]:
    """Return tp, fp, tn, fn and support [labels, 5], and average precision [labels], NaN without support."""
    import torch
    from torchmetrics.functional.classification import multilabel_average_precision, multilabel_stat_scores

    where = (entries.rows, entries.labels)
    cells = (target, (*where, entries.flags & _PREDICTED), (*where, entries.scores))
    height, labels = len(entries.ids), len(entries.names)
    width = max(1, DENSE_CELLS // height)
    counts, precisions = np.zeros((labels, 5), np.int64), np.full(labels, np.nan)
    how = {"average": "none", "ignore_index": _NOT_JUDGED, "validate_args": False}
    threads = torch.get_num_threads()
    # On a busy machine threads wait for one another in each of these many short steps: twenty times slower.
    torch.set_num_threads(1)
    try:
        for start in range(0, labels, width):
            stop = min(start + width, labels)
            true, said, ranked = (torch.from_numpy(_dense(each, height, start, stop)) for each in cells)
            found = multilabel_stat_scores(said, true, num_labels=stop - start, **how)
            counts[start:stop] = found.reshape(-1, 5).numpy()
            supported = np.flatnonzero(counts[start:stop, 4])
            if supported.size:
                ranked, true = ranked.T[supported].T, true.T[supported].T
                found = multilabel_average_precision(ranked, true, num_labels=supported.size, **how)
                precisions[start + supported] = found.numpy()
    finally:
        torch.set_num_threads(threads)
    return counts, precisions


def _scores(name: str, counts: Sequence[int], average_precision: float = 0.0) -> LabelScores:
    tp, fp, _, _, support = counts
    precision, recall = (tp / (tp + fp), tp / support) if tp else (0.0, 0.0)
    ap = average_precision if support else None
    return LabelScores(name, precision, recall, _f1(precision, recall), ap, support, tp + fp)


def _averages(labels: Sequence[LabelScores]) -> tuple[float, float, float, float]:
    """Return CP, CR, CF1 and mAP."""
    supported = [(each.precision, each.recall, each.ap) for each in labels if each.ap is not None]
    cp, cr, mean_ap = map(fmean, zip(*supported or [(0.0, 0.0, 0.0)], strict=True))
    return cp, cr, _f1(cp, cr), mean_ap


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _nothing_in_common(table: _Entries, truth: Truth, shared: _Entries) -> UsageError:
    if not shared.ids and match_images(truth, table.ids).keys:
        return UsageError("every image that the truth knows has failed or is pending", "Finish the run first.")
    what, ours, theirs = ("label", table.names, truth.names) if shared.ids else ("image", table.ids, truth.labels)
    shown = [next(map(repr, names), "none") for names in (ours, theirs)]
    message = f"the table and the truth share no {what}: the table has {shown[0]}, the truth has {shown[1]}"
    return UsageError(message, "Name the truth that belongs to this table's source and vocabulary.")
