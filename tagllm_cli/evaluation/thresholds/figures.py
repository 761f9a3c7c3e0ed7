"""What changed thresholds are worth on held-out images, with intervals over images.

95% intervals: percentiles of a Poisson bootstrap over images, which keeps the labels of one image together; above some
thousand images, over that many random groups of images, whose sums vary alike. The thresholds are held fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tagllm_cli.evaluation.calibration import decided
from tagllm_cli.evaluation.entries import ABSENT, PREDICTED, PRESENT, Array, Comparison
from tagllm_cli.evaluation.metrics.bootstrap import Interval
from tagllm_cli.evaluation.metrics.figures import ratio
from tagllm_cli.evaluation.sections import Figure
from tagllm_cli.evaluation.thresholds.crossfit import KEPT

ROUNDS = 500
_GROUPS = 4000
_GROUP_CELLS = 2_000_000  # groups times labels at most


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Figures of the table's decisions (`before`), of the new ones (`after`), and of their difference, by name.

    Names: OP OR OF1, and the means over labels with support CP, CR and mean F1. `tp` and `fp`, int64 [2, labels], are
    of before and after, `support` int64 [labels].
    """

    before: Mapping[str, Figure]
    after: Mapping[str, Figure]
    gain: Mapping[str, Figure]
    tp: Array
    fp: Array
    support: Array


def is_predicted(comparison: Comparison, grid: Array, places: Array, folds: Array | None = None) -> Array:
    """Return which entries are a yes by thresholds at `places` in the grid, bool [entries].

    `places` is int64 [labels], or [folds, labels] with the fold of each image; KEPT leaves the table's decision.
    """
    entries = comparison.entries
    place = places[entries.labels] if folds is None else places[folds[entries.rows], entries.labels]
    with np.errstate(invalid="ignore"):
        new = decided(entries) & (entries.probabilities > grid[place])
    return np.where(place == KEPT, (entries.flags & PREDICTED) > 0, new)


def held_out(comparison: Comparison, after: Array, seed: int = 0) -> HeldOut:
    """Return the figures of the table's own decisions and of `after`, bool [entries]."""
    entries, judgments = comparison.entries, comparison.judgments
    images, labels = len(entries.ids), len(entries.names)
    groups = max(1, min(images, _GROUPS, max(200, _GROUP_CELLS // labels)))
    random = np.random.default_rng(seed)
    group = random.permutation(images) % groups
    said = judgments.of(entries.cells)
    cell = group[entries.rows] * labels + entries.labels
    decisions = ((entries.flags & PREDICTED) > 0, after)
    present = judgments.cells[judgments.values == PRESENT]
    counted = [cell[yes & (said == judgment)] for yes in decisions for judgment in (PRESENT, ABSENT)]
    counted.append(group[present // labels] * labels + present % labels)
    sums = np.stack([np.bincount(each, minlength=groups * labels).reshape(groups, labels) for each in counted], axis=1)
    total = sums.sum(axis=0)
    weights = random.poisson(1.0, (ROUNDS, groups)).astype(np.float32)
    drawn = (weights @ sums.reshape(groups, -1).astype(np.float32)).reshape(ROUNDS, 5, labels)
    has = total[4] > 0
    values = [_ratios(each[..., 2 * side, :], each[..., 2 * side + 1, :], each[..., 4, :], has)
              for side in (0, 1) for each in (total[None].astype(np.float64), drawn.astype(np.float64))]  # fmt: skip
    before, drawn_before, new, drawn_new = values
    gains = ({key: new[key] - old[key] for key in new} for new, old in ((new, before), (drawn_new, drawn_before)))
    return HeldOut(
        _figures(before, drawn_before),
        _figures(new, drawn_new),
        _figures(*gains),
        total[[0, 2]], total[[1, 3]], total[4],
    )  # fmt: skip


def _figures(values: Mapping[str, Array], drawn: Mapping[str, Array]) -> dict[str, Figure]:
    ends = {key: Interval.of(each) for key, each in drawn.items()}
    return {key: Figure(float(value[0]), ends[key].low, ends[key].high) for key, value in values.items()}


def _ratios(tp: Array, fp: Array, support: Array, has: Array) -> dict[str, Array]:
    """Return the figures of counts [rounds, labels], each [rounds]; means are over the labels `has`."""
    sums = [each.sum(axis=-1) for each in (tp, fp, support)]
    by_label = _three(tp[:, has], fp[:, has], support[:, has])
    overall = dict(zip(("OP", "OR", "OF1"), _three(*sums), strict=True))
    return overall | {name: each.mean(axis=-1) for name, each in zip(("CP", "CR", "mean F1"), by_label, strict=True)}


def _three(tp: Array, fp: Array, support: Array) -> Sequence[Array]:
    """Return precision, recall and F1, 0 where a ratio has no denominator."""
    pairs = ((tp, tp + fp), (tp, support), (2 * tp, tp + fp + support))
    return [ratio(top, low) for top, low in pairs]
