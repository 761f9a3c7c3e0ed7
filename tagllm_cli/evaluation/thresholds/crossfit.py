"""Which thresholds are changed, and what that is worth on images that had no part in it: nested cross-fitting.

A change is kept where it is better on held-out folds than what the table has: first the common threshold, then each
label's own. Since that choice looks at held-out folds too, the figures come from a second layer: the whole procedure is
repeated without each fold and measured on that fold. No figure is measured on images that decided anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tagllm_cli.evaluation.entries import Array
from tagllm_cli.evaluation.thresholds.counts import Counts
from tagllm_cli.evaluation.thresholds.fit import MIN_POSITIVES, Fit, fit
from tagllm_cli.evaluation.thresholds.metric import Metric

KEPT = -1  # in place of a threshold: as the table has it
_INNER_ROUNDS, _ROUNDS = 30, 200
_NO_BETTER = "no better on held-out images"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Thresholds as places in the grid, or KEPT: the `common` one and those of `labels`, int64 [labels].

    A label with the place of the common one is on it. `reasons` say for each label why it has none of its own, "" where
    it has. `fit` is what all that comes from; `with_offsets`: it used what was known about labels beforehand.
    """

    common: int
    labels: Array
    reasons: tuple[str, ...]
    fit: Fit
    with_offsets: bool


@dataclass(frozen=True, slots=True)
class CrossFitted:
    """What was `chosen` on all folds, and the thresholds chosen without each fold, int64 [folds, labels]."""

    chosen: Chosen
    held_out: Array


def cross_fit(counts: Counts, metric: Metric, seed: int = 0, offsets: Array | None = None) -> CrossFitted:
    """Choose thresholds on all folds (at least 3), and without each of them.

    `offsets`, logits [labels] as `fit` takes them, are used where they help on held-out folds.
    """
    folds = np.arange(counts.folds)
    without = [_choose(counts, folds[folds != fold], metric, seed, offsets).labels for fold in folds]
    chosen = _choose(counts, folds, metric, seed, offsets, _ROUNDS)
    return CrossFitted(_without_worse(chosen, counts, metric, np.stack(without)), np.stack(without))


def _without_worse(chosen: Chosen, counts: Counts, metric: Metric, without: Array) -> Chosen:
    """Return the choice without labels that the procedure makes worse on the folds that it never saw."""
    before, after = np.zeros((2, 2, counts.support.shape[1]), np.int64)
    for fold, places in enumerate(without):
        now = np.stack([counts.tp[fold], counts.fp[fold]])
        before += now
        after += np.where(places == KEPT, now, _at(counts, fold, places))
    support = counts.support.sum(axis=0)
    is_worse = metric.value(after[0], after[1], support) < metric.value(before[0], before[1], support)
    dropped = is_worse & np.array([not why for why in chosen.reasons])
    reasons = tuple(_NO_BETTER if drop else why for drop, why in zip(dropped, chosen.reasons, strict=True))
    return replace(chosen, labels=np.where(dropped, chosen.common, chosen.labels), reasons=reasons)


def _choose(
    counts: Counts, folds: Array, metric: Metric, seed: int, offsets: Array | None, rounds: int = _INNER_ROUNDS
) -> Chosen:
    """Fit on some folds; keep what is better on each of them when it is fitted on the others."""
    random = np.random.default_rng([seed, *folds.tolist()])
    support = counts.support[folds].sum(axis=0)
    before = counts.tp[folds].sum(axis=0), counts.fp[folds].sum(axis=0)
    common, own = np.zeros((2, 2, len(support)), np.int64)
    informed = np.zeros_like(own)
    for fold in folds:
        found = fit(counts, folds[folds != fold], metric, random, _INNER_ROUNDS)
        common += _at(counts, fold, np.full(len(support), found.common))
        own += _at(counts, fold, found.own)
        if offsets is not None:
            found = fit(counts, folds[folds != fold], metric, random, _INNER_ROUNDS, offsets)
            informed += _at(counts, fold, found.own)
    has_positives = bool(support.any())
    is_informed = (
        offsets is not None
        and has_positives
        and metric.overall(informed[0], informed[1], support) > metric.overall(own[0], own[1], support)
    )
    if is_informed:
        own = informed
    final = fit(counts, folds, metric, random, rounds, offsets if is_informed else None)
    is_better = has_positives and metric.overall(common[0], common[1], support) > metric.overall(*before, support)
    base = (common[0], common[1]) if is_better else before
    gains = metric.value(own[0], own[1], support) - metric.value(*base, support)
    few, better = (support < MIN_POSITIVES) & (not is_informed), gains > 0
    changed = better & ~few & (final.own != final.common)
    labels = np.where(changed, final.own, final.common if is_better else KEPT)
    reasons = tuple(
        f"fewer than {MIN_POSITIVES} positives" if is_few
        else _NO_BETTER if not is_gain
        else "" if is_changed else "as good as the common one"
        for is_few, is_gain, is_changed in zip(few, better, changed, strict=True)
    )  # fmt: skip
    return Chosen(final.common if is_better else KEPT, labels, reasons, final, is_informed)


def _at(counts: Counts, fold: int, places: Array) -> Array:
    """Return true and false positives of a fold at one threshold per label, int64 [2, labels]."""
    tp, fp = counts.above(np.array([fold]))
    rows = np.arange(len(places))
    return np.stack([tp[rows, places], fp[rows, places]])
