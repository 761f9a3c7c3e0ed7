"""Which pairs of image and label people are asked about: a stratified sample with known inclusion probabilities.

How many pairs a stratum gets (its expected number; Neyman, JRSS 1934, inside a label; power allocation, Bankier, The
American Statistician 1988, between labels): proportional to N_h s_h / sqrt(S_label), with N_h its pairs, s_h the
standard deviation of "present" that the model's own probability leads one to expect, and S_label the sum of N_h s_h
over the label's strata. Power 1/2 stands between the best sample for the whole table (1) and the same number for each
label (0). A pair that is predicted counts in F1 = 2 TP / (predicted + present) with 2 - F1, another one with F1: hence
_PREDICTED_WEIGHT. At least a fifth of the sample is of predicted pairs, since precision rests on them alone. A tenth is
spread over all groups of strata, in case the model is sure and wrong.

Expected numbers are fractions: they are rounded at random, together, so that the sample has exactly its size and each
pair of a stratum the same probability expected number / N_h; where a whole stratum fits, it is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tagllm_cli.evaluation.audit.population import BANDS, FAR, NEAR, UNKNOWN, YES, Population
from tagllm_cli.evaluation.entries import Array

_PREDICTED_WEIGHT = 1.5  # (2 - F1) / F1 where F1 is 0.8
_PREDICTED_SHARE = 0.2
_DEFENSIVE = 0.1
# Expected, not believed: a model is wrong in at least 5% of what it is sure of, and misses a tenth of what is there.
_DOUBT = 0.05
_MISSED = 0.1
_NEAR_LIFT = 5.0
_LEAST_RATE, _HIGHEST_RATE = 1e-4, 0.25
_BLOCK = 50  # pairs, within which those of one image follow on one another


@dataclass(frozen=True, slots=True)
class Sample:
    """Pairs in the order in which they are asked; `rows` and `labels` point into the population's.

    `probabilities` are those of having been drawn.
    """

    rows: Array  # int64
    labels: Array  # int64
    strata: Array  # int64
    probabilities: Array  # float64


def draw(population: Population, size: int, seed: int) -> Sample:
    """Draw `size` pairs, or all where there are no more."""
    random = np.random.default_rng(seed)
    sizes = population.sizes
    expected = allocation(population, size)
    ends = np.cumsum(expected)
    # What float sums leave over must not cost the last pair.
    ends[-1] = round(float(ends[-1]))
    counts = np.diff(np.floor(ends + random.random() + 1e-9), prepend=0).astype(np.int64)
    counts = np.minimum(counts, sizes)
    strata = np.repeat(np.arange(len(sizes)), counts)
    drawn = np.concatenate(
        [
            random.choice(population.rows_of(stratum), counts[stratum], replace=False)
            for stratum in np.flatnonzero(counts).tolist()
        ]
    )
    order = _order(drawn, strata, random)
    probabilities = np.minimum(1, expected[strata] / sizes[strata])
    return Sample(drawn[order], (strata % population.labels)[order], strata[order], probabilities[order])


def allocation(population: Population, size: int) -> Array:
    """Return the expected number of pairs of each stratum, float64, at most its size; their sum is `size`, if there."""
    sizes = population.sizes
    if size >= sizes.sum():
        return sizes.astype(np.float64)
    rates = expected_rates(population)
    group, label = np.divmod(np.arange(len(sizes)), population.labels)
    predicted = group // (len(BANDS) + 1) == YES
    weight = np.where(predicted, _PREDICTED_WEIGHT, 1)
    spread = sizes * np.sqrt(rates * (1 - rates)) * weight
    of_label = np.bincount(label, weights=spread, minlength=population.labels)
    power = spread / np.sqrt(np.maximum(of_label[label], 1e-12))
    of_group = np.bincount(group, weights=power)
    even = power / np.maximum(of_group[group], 1e-300)
    wanted = (1 - _DEFENSIVE) * power / power.sum() + _DEFENSIVE * even / even.sum()
    share = wanted[predicted].sum()
    if 0 < share < _PREDICTED_SHARE:
        wanted *= np.where(predicted, _PREDICTED_SHARE / share, (1 - _PREDICTED_SHARE) / (1 - share))
    return _capped(wanted, sizes, size)


def expected_rates(population: Population) -> Array:
    """Return the share of present pairs that is expected of each stratum before anyone has looked, float64."""
    entries, strata, labels = population.entries, population.strata, population.labels
    listed = strata >= 0
    believed = _DOUBT + (1 - 2 * _DOUBT) * entries.scores[listed].astype(np.float64)
    sizes = population.sizes
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = np.bincount(strata[listed], weights=believed, minlength=len(sizes)) / sizes
    width = len(BANDS) + 1
    rates[UNKNOWN * width * labels : NEAR * width * labels] = 0.5
    present = np.bincount(entries.labels[listed], weights=believed, minlength=labels)
    near = sizes[NEAR * width * labels :][:labels]
    far = sizes[FAR * width * labels :][:labels]
    rate = _MISSED * present / np.maximum(_NEAR_LIFT * near + far, 1)
    rates[FAR * width * labels :][:labels] = np.clip(rate, _LEAST_RATE, _HIGHEST_RATE)
    rates[NEAR * width * labels :][:labels] = np.clip(_NEAR_LIFT * rate, _LEAST_RATE, _HIGHEST_RATE)
    return np.where(sizes > 0, np.nan_to_num(rates), 0.0)


def _capped(wanted: Array, sizes: Array, size: int) -> Array:
    """Return numbers proportional to `wanted` whose sum is `size`, none above its `sizes`."""
    full = np.zeros(len(sizes), bool)
    wanted = np.where(sizes > 0, np.maximum(wanted, 1e-15), 0.0)
    while True:
        share = (size - sizes[full].sum()) * wanted / wanted[~full].sum()
        over = ~full & (share > sizes)
        if not over.any():
            return np.where(full, sizes, share)
        full |= over


def _order(rows: Array, strata: Array, random: np.random.Generator) -> Array:
    """Return an order in which the first pairs, however many, are spread over the strata like all of them.

    Inside a block the pairs of an image stand together, which spares people's time; images come at random.
    """
    shuffled = random.permutation(len(rows))
    by_stratum = shuffled[np.argsort(strata[shuffled], kind="stable")]
    counts = np.bincount(strata)[strata[by_stratum]]
    first = np.searchsorted(strata[by_stratum], strata[by_stratum])
    offset = random.random(int(strata.max(initial=0)) + 1)[strata[by_stratum]]
    place = (np.arange(len(rows)) - first + offset) / counts
    spread = by_stratum[np.argsort(place, kind="stable")]
    lot = random.random(int(rows.max(initial=0)) + 1)
    found: Array = spread[np.lexsort((lot[rows[spread]], np.arange(len(rows)) // _BLOCK))]
    return found
