"""Precision, recall, F1 and prevalence of a table, estimated from a sample of pairs that people answered.

Figures follow from the shares of present pairs in each group (`shares`) and the known sizes of the groups. Intervals:
the figures of all draws of the shares give the quantiles. What is counted is rare and sometimes not found at all, where
a bootstrap or a normal approximation has intervals of no width: `python -m tests.bench.audit_coverage` shows how often
each of the three is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tagllm_cli.evaluation.audit.shares import FEWEST, PREDICTED, Answered, Share, share_of, shares_of
from tagllm_cli.evaluation.entries import Array
from tagllm_cli.evaluation.metrics.figures import ratio
from tagllm_cli.evaluation.sections import rounded

_DRAWS = 10_000
_LABEL_DRAWS = 2_000
_COVERED = (0.025, 0.975)
_ENOUGH_PRESENT = 5  # present pairs of a label, for its recall

Shares = Sequence[Any]  # of each group: a number, or draws of it
Figure = Callable[[Shares], Any]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, its 95% interval, and how many more answers would halve it; None where too little is answered."""

    value: float | None
    low: float | None = None
    high: float | None = None
    more_answers: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, rounded to six digits."""
        found: dict[str, Any] = rounded(asdict(self))
        return found


NOTHING = Estimate(None)


@dataclass(frozen=True, slots=True)
class LabelEstimate:
    """One label: `predicted` counts pairs, `answered` and `present` answers."""

    name: str
    prevalence: Estimate
    precision: Estimate
    recall: Estimate
    predicted: int
    answered: int
    present: int


def precision(shares: Shares) -> Any:
    """Return the share of predicted pairs that are present."""
    return shares[0]


def recall_of(sizes: Array) -> Figure:
    """Return what makes recall of the groups' shares: 0 where nothing is present."""
    return lambda shares: ratio(sizes[0] * shares[0], _present(sizes, shares))


def f1_of(sizes: Array) -> Figure:
    """Return what makes F1 of the groups' shares."""
    return lambda shares: ratio(2 * sizes[0] * shares[0], sizes[0] + _present(sizes, shares))


def prevalence_of(sizes: Array) -> Figure:
    """Return what makes the share of present ones among all pairs of the groups' shares."""
    return lambda shares: _present(sizes, shares) / sizes.sum()


def _present(sizes: Array, shares: Shares) -> Any:
    return sum(size * share for size, share in zip(sizes, shares, strict=True))


def estimate_all(answered: Answered, sizes: Array) -> dict[str, Estimate]:
    """Return precision, recall, F1 and prevalence of all labels together; `sizes` [groups] are pairs."""
    random = np.random.default_rng(0)
    names = ("precision", "recall", "f1", "prevalence")
    found = shares_of(answered, sizes)
    if found is None:
        known = answered.groups == PREDICTED
        if not known.any():
            return dict.fromkeys(names, NOTHING)
        share = share_of(answered.present[known], answered.probabilities[known], int(sizes[PREDICTED]))
        draws = [share.draws(random, _DRAWS)]
        return {**dict.fromkeys(names, NOTHING), "precision": _estimate(precision, [share], draws)}
    shares, sizes = found
    draws = [share.draws(random, _DRAWS) for share in shares]
    figures = (precision, recall_of(sizes), f1_of(sizes), prevalence_of(sizes))
    estimates = {name: _estimate(each, shares, draws) for name, each in zip(names, figures, strict=True)}
    return estimates if sizes[PREDICTED] else {**estimates, "precision": NOTHING}


def points(answered: Answered, sizes: Array) -> dict[str, float | None]:
    """Return what `estimate_all` does, without intervals."""
    names = ("precision", "recall", "f1", "prevalence")
    found = shares_of(answered, sizes)
    if found is None:
        return dict.fromkeys(names)
    shares, merged = found
    values = [share.value for share in shares]
    figures = (precision, recall_of(merged), f1_of(merged), prevalence_of(merged))
    return {name: float(each(values)) for name, each in zip(names, figures, strict=True)}


def _estimate(figure: Figure, shares: Sequence[Share], draws: Sequence[Array]) -> Estimate:
    values = [share.value for share in shares]
    value, count = float(figure(values)), len(draws[0])
    parts = []
    for place, drawn in enumerate(draws):
        alone = [drawn if at == place else np.full(count, each) for at, each in enumerate(values)]
        parts.append(float(np.var(figure(alone))))
    return Estimate(value, *_interval(value, figure(draws)), _more_answers(shares, parts))


def _interval(value: float, draws: Array) -> tuple[float, float]:
    low, high = np.quantile(draws, _COVERED)
    return min(float(low), value), max(float(high), value)  # 0 of 20 is below all draws


def _more_answers(shares: Sequence[Share], parts: Sequence[float]) -> int | None:
    """Return how many more answers, spread as those so far, leave a quarter of the variance; None where it is 0.

    `parts` are the variances of the figure due to each group, at the estimates of the others.
    """
    total = sum(parts)
    if total <= 0:
        return 0 if all(share.n == share.size for share in shares) else None
    least, most = 1.0, 4.0  # four times as many answers always do
    for _ in range(40):
        middle = (least + most) / 2
        left = sum(part * share.variance_after(middle) for part, share in zip(parts, shares, strict=True))
        least, most = (middle, most) if left > total / 4 else (least, middle)
    return sum(min(int(np.ceil(share.n * (most - 1))), share.size - share.n) for share in shares)


class _Mean:
    """The mean over labels of a figure and of its draws; None where a label that has to be in it lacks answers."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._sum: Any = 0.0
        self._is_possible = True

    def add(self, figure: Figure, shares: Sequence[Share] | None, draws: Sequence[Array]) -> None:
        if shares is None:
            self._is_possible = False
            return
        self._values.append(float(figure([share.value for share in shares])))
        self._sum = self._sum + figure(draws)

    @property
    def found(self) -> tuple[float, Array] | None:
        """The mean, and its draws."""
        if not self._values or not self._is_possible:
            return None
        return float(np.mean(self._values)), self._sum / len(self._values)


def estimate_labels(
    answered: Answered, sizes: Array, names: Sequence[str]
) -> tuple[list[LabelEstimate], dict[str, Estimate]]:
    """Return the figures of each label, and CP, CR and CF1; `sizes` [labels, groups] are pairs.

    CP is the mean of precision over the labels that are predicted, CR the mean of recall over all labels, CF1 their
    harmonic mean. A mean is there only if each of its labels has enough answers.
    """
    order = np.argsort(answered.labels, kind="stable")
    starts = np.searchsorted(answered.labels[order], np.arange(len(names) + 1))
    random = np.random.default_rng(0)
    found, cp, cr = [], _Mean(), _Mean()
    for label, name in enumerate(names):
        chosen = _chosen(answered, order[starts[label] : starts[label + 1]])
        found.append(_label(chosen, sizes[label], name, random, cp, cr))
    return found, _means(cp.found, cr.found)


def _means(cp: tuple[float, Array] | None, cr: tuple[float, Array] | None) -> dict[str, Estimate]:
    both = None
    if cp and cr:
        value, draws = (_harmonic(cp[part], cr[part]) for part in (0, 1))
        both = (float(value), draws)
    estimates = {}
    for name, found in (("cp", cp), ("cr", cr), ("cf1", both)):
        estimates[name] = NOTHING if found is None else Estimate(float(found[0]), *_interval(float(found[0]), found[1]))
    return estimates


def _harmonic(first: Any, second: Any) -> Any:
    return ratio(2 * first * second, first + second)


def _chosen(answered: Answered, places: Array) -> Answered:
    columns = (answered.labels, answered.groups, answered.present, answered.probabilities)
    return Answered(*(column[places] for column in columns))


def _label(
    answered: Answered, sizes: Array, name: str, random: np.random.Generator, cp: _Mean, cr: _Mean
) -> LabelEstimate:
    present = int(answered.present.sum())
    counts = (int(sizes[PREDICTED]), len(answered.present), present)
    said = answered.groups == PREDICTED
    right = prevalence = recall = NOTHING
    alone = [share_of(answered.present[said], answered.probabilities[said], counts[0])] if said.any() else None
    if counts[0]:
        drawn = [share.draws(random, _LABEL_DRAWS) for share in alone or ()]
        right = _estimate(precision, alone, drawn) if alone else NOTHING
        cp.add(precision, alone, drawn)
    found = shares_of(answered, sizes)
    shares, merged = found or ([], sizes)
    drawn = [share.draws(random, _LABEL_DRAWS) for share in shares]
    unsaid = np.count_nonzero(~said)
    if shares and (unsaid >= FEWEST or unsaid == sizes.sum() - counts[0]):
        prevalence = _estimate(prevalence_of(merged), shares, drawn)
        recall = _estimate(recall_of(merged), shares, drawn) if present >= _ENOUGH_PRESENT else NOTHING
    cr.add(recall_of(merged), shares if recall is not NOTHING else None, drawn)
    return LabelEstimate(name, prevalence, right, recall, *counts)
