"""The share of present pairs in each group of an audit's pairs, and how well the answers know it.

Pairs fall into groups by what the table says of them now: predicted, listed but not predicted, absent. The number N of
pairs in each group is known; the share of present ones among them is the Hajek estimate p = sum(y / pi) / sum(1 / pi)
over the group's answered pairs, with pi the probability of having been drawn (Saerndal, Swensson and Wretman, Model
Assisted Survey Sampling, 1992). A pair without an answer counts as missing at random within its group: pairs are asked
in an order in which the first ones are spread over all strata.

A share is drawn from Beta(p n* + 1/3, (1 - p) n* + 1/3), with the effective number of answers n* = p (1 - p) / variance
of p (Korn and Graubard, Survey Methodology 1998) and the neutral prior of Kerman (Electronic Journal of Statistics
2011). The variance is that of the Hajek estimate with the probability of having been drawn and answered, averaged with
p (1 - p) / n, that of as many answers drawn at random, which counts as half an answer of the rarer kind (of none, where
all agree).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tagllm_cli.evaluation.entries import Array

PREDICTED, LISTED, ABSENT = range(3)  # groups

FEWEST = 5  # answers of a group that stands alone
_NEUTRAL = 1 / 3
_PRIOR = 0.5


@dataclass(frozen=True, slots=True)
class Answered:
    """Pairs that were answered: parallel arrays. `groups` are PREDICTED, LISTED or ABSENT in the table as it is now."""

    labels: Array  # int64
    groups: Array  # int8
    present: Array  # bool
    probabilities: Array  # float64, of having been drawn


@dataclass(frozen=True, slots=True)
class Share:
    """What is known of the share of present pairs in one group: `n` of its `size` pairs are answered."""

    value: float
    effective: float  # number of answers; infinite where every pair is answered
    n: int
    size: int

    def draws(self, random: np.random.Generator, count: int) -> Array:
        """Return draws of the share, float64."""
        if np.isinf(self.effective):
            return np.full(count, self.value)
        first, second = self.value * self.effective, (1 - self.value) * self.effective
        return random.beta(first + _NEUTRAL, second + _NEUTRAL, count)

    def variance_after(self, times: float) -> float:
        """Return the variance after `times` as many answers, over the variance now; 0 when all pairs are answered."""
        most = 1 / self.size
        return max(0.0, 1 / (self.n * times) - most) / (1 / self.n - most) if self.n < self.size else 0.0


def share_of(present: Array, probabilities: Array, size: int) -> Share:
    """Return what answers (bool [answers], at least one) tell of a group of `size` pairs."""
    n, weights = len(present), 1 / probabilities
    total = weights.sum()
    value = float((weights * present).sum() / total)
    if n >= size:
        return Share(value, np.inf, n, size)
    effective = n / (1 - n / size)
    fewest = min(np.count_nonzero(present), n - np.count_nonzero(present))
    if not fewest:
        return Share(value, effective, n, size)
    # Of pairs that are all drawn and not all answered, the answers are a sample: weights add up to `size` times the
    # share that is answered.
    chances = probabilities * min(1.0, total / size)
    variance = float(((weights * (present - value)) ** 2 * (1 - chances)).sum()) / total**2 * n / (n - 1)
    # A variance that rests on one or two rare answers is mostly too small, depending on the weights that these have.
    variance = (fewest * variance + _PRIOR * value * (1 - value) / effective) / (fewest + _PRIOR)
    return Share(value, value * (1 - value) / variance, n, size)


def shares_of(answered: Answered, sizes: Array) -> tuple[list[Share], Array] | None:
    """Return the share of each group, predicted first, and the groups' sizes; None where one of them has no answer.

    What is not predicted is one group where its parts have fewer than FEWEST answers.
    """
    groups, sizes = answered.groups, np.asarray(sizes)
    counts = np.bincount(groups, minlength=3)
    if min(counts[LISTED], counts[ABSENT]) < FEWEST:
        groups, sizes = np.minimum(groups, LISTED), np.array([sizes[PREDICTED], sizes[LISTED] + sizes[ABSENT]])
    found = []
    for group, size in enumerate(sizes.tolist()):
        chosen = groups == group
        if size and not chosen.any():
            return None
        if size:
            found.append(share_of(answered.present[chosen], answered.probabilities[chosen], size))
        else:
            found.append(Share(0.0, np.inf, 1, 1))
    return found, sizes
