"""Whether probabilities mean what they say: reliability curve, expected calibration error, Brier score.

Measured are the judged pairs of image and label that have a probability. Only candidates have one, so that this says
nothing about pairs that no request proposed: among candidates a label is far more often present than among all images.

ECE = sum over bins of n_b / n * |mean probability - share present|. Sources: Naeini et al., "Obtaining well calibrated
probabilities using Bayesian binning", AAAI 2015; Guo et al., ICML 2017, arXiv 1706.04599 (15 bins of equal width). Even
perfect probabilities have an ECE above 0 in a sample: about sum n_b / n * sqrt(2 p (1 - p) / (pi n_b)), p the mean
probability of a bin; it stands beside as `ece_by_chance`. Brier score = mean of (probability - present)^2: Brier,
Monthly Weather Review 78 (1950), 1-3. Intervals of shares: Wilson, JASA 22 (1927), 209-212.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tagllm_cli.evaluation.entries import NOT_JUDGED, PRESENT, UNDECIDED, Array, Comparison, Entries
from tagllm_cli.evaluation.sections import Cells, rounded

BINS = 15  # of equal width
LABEL_BINS = 10  # of equal numbers, at most: single labels have few examples
_LEAST_PER_BIN = 10
_SHOWN = 15  # labels; the JSON has all
_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs with a probability from `low` to `high`: their mean `probability`, and the `share` that is present.

    `share_low` and `share_high` are its 95% interval. All but `count` in [0, 1].
    """

    low: float
    high: float
    count: int
    probability: float
    share: float
    share_low: float
    share_high: float


@dataclass(frozen=True, slots=True)
class Scores:
    """`count` pairs, of which the `share` is present, with the mean `probability`; `ece` and `brier` in [0, 1].

    `name` is a label, or "" for all of them.
    """

    name: str
    count: int
    probability: float
    share: float
    ece: float
    ece_by_chance: float
    brier: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Reliability of a table's probabilities; `stage` is that of the table.

    `bins` are the curve, without empty ones. `labels` are those with at least one pair. `without` judged entries have
    no probability (undecided ones). `missed` labels are present and were never proposed: nothing is known about them.
    """

    stage: str
    overall: Scores
    bins: tuple[Bin, ...]
    labels: tuple[Scores, ...]
    without: int
    missed: int

    @property
    def notes(self) -> Sequence[str]:
        """What the figures leave out."""
        left_out = f"{self.missed:,} labels present were never proposed, {self.without:,} are undecided"
        return (f"reliability is that of candidates, which alone have a probability: {left_out}",)

    @property
    def warnings(self) -> Sequence[str]:
        """Nothing."""
        return ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, rounded to six digits."""
        found: dict[str, Any] = rounded(asdict(self))
        return found

    def tables(self) -> Sequence[tuple[str, Cells]]:
        """Return titles with (column names, rows): all pairs, the curve, each label with the largest error first."""
        found = self.overall
        columns = ("candidates", "probability", "present", "ECE", "by chance", "Brier")
        curve = [
            (
                f"{each.low:.2f}-{each.high:.2f}",
                f"{each.count:,}",
                f"{each.probability:.3f}",
                f"{each.share:.3f}",
                f"{each.share_low:.3f}-{each.share_high:.3f}",
            )
            for each in self.bins
        ]
        ordered = sorted(self.labels, key=lambda each: each.ece_by_chance - each.ece)
        return (
            ("reliability: probability against the share that is present", (columns, [_cells(found)])),
            (
                "reliability by bands of probability",
                (("band", "candidates", "probability", "present", "95% interval"), curve),
            ),
            (
                "reliability of labels, those with the largest errors beyond chance",
                (("label", *columns), [(each.name, *_cells(each)) for each in ordered[:_SHOWN]]),
            ),
        )


def reliability(comparison: Comparison) -> Reliability | None:
    """Return how reliable the probabilities of a comparison are; None where no judged entry has one."""
    entries, judgments = comparison.entries, comparison.judgments
    said = judgments.of(entries.cells)
    judged = said != NOT_JUDGED
    known = judged & decided(entries)
    if not known.any():
        return None
    probability, present = entries.probabilities[known].astype(np.float64), said[known] == PRESENT
    support = int(judgments.count(PRESENT, len(entries.ids), len(entries.names)).sum())
    width = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    return Reliability(
        comparison.stage,
        _scores([""], np.zeros(len(width), np.int64), width, BINS, probability, present)[0],
        tuple(_curve(width, probability, present)),
        tuple(_by_label(entries.names, entries.labels[known], probability, present)),
        int(np.count_nonzero(judged & ~known)),
        support - int(np.count_nonzero(said[judged] == PRESENT)),
    )


def decided(entries: Entries) -> Array:
    """Return which entries have a probability that decides, bool [entries]: not undecided ones."""
    return np.asarray(~np.isnan(entries.probabilities) & ((entries.flags & UNDECIDED) == 0))


def _by_label(names: Sequence[str], labels: Array, probability: Array, present: Array) -> list[Scores]:
    """Score each label in bins of equal numbers of pairs: at most LABEL_BINS, fewer of rare labels."""
    # Floats from 0 on are ordered as their bits are: one sort of whole numbers, in a fifth of the time of two keys.
    order = np.argsort(labels << 32 | probability.astype(np.float32).view(np.int32), kind="stable")
    labels, probability, present = labels[order], probability[order], present[order]
    count = np.bincount(labels, minlength=len(names))
    rank = np.arange(len(labels)) - (np.cumsum(count) - count)[labels]
    bins = np.clip(count // _LEAST_PER_BIN, 1, LABEL_BINS)
    place = rank * bins[labels] // np.maximum(count[labels], 1)
    return _scores(names, labels, place, LABEL_BINS, probability, present)


def _scores(
    names: Sequence[str], labels: Array, bins: Array, width: int, probability: Array, present: Array
) -> list[Scores]:
    """Return the scores of each name with pairs; `bins` in [0, width) are those of `labels`, int64 [pairs]."""
    cell, size = labels * width + bins, len(names) * width
    weights = (None, probability, present)
    counts, sums, hits = (np.bincount(cell, weight, minlength=size).reshape(-1, width) for weight in weights)
    squares = np.bincount(labels, (probability - present) ** 2, minlength=len(names))
    total = counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nan_to_num(sums / counts)
        ece = np.abs(sums - hits).sum(axis=1) / total
        chance = np.sqrt(2 * mean * (1 - mean) * counts / math.pi).sum(axis=1) / total
        rows = [total, sums.sum(axis=1) / total, hits.sum(axis=1) / total, ece, chance, squares / total]
    lists = zip(names, *(row.tolist() for row in rows), strict=True)
    return [Scores(name, int(count), *rest) for name, count, *rest in lists if count]


def _curve(bins: Array, probability: Array, present: Array) -> list[Bin]:
    counts, sums, hits = (np.bincount(bins, weight, minlength=BINS) for weight in (None, probability, present))
    return [
        Bin(number / BINS, (number + 1) / BINS, int(count), total / count, hit / count, *wilson(hit, count))
        for number, (count, total, hit) in enumerate(zip(counts.tolist(), sums.tolist(), hits.tolist(), strict=True))
        if count
    ]


def wilson(hits: float, count: float) -> tuple[float, float]:
    """Return the 95% interval of the share `hits` of `count`, above 0. Source: Wilson, JASA 22 (1927), 209-212."""
    share, extra = hits / count, _Z**2 / count
    center, half = share + extra / 2, _Z * math.sqrt(share * (1 - share) / count + extra / (4 * count))
    return max(0.0, (center - half) / (1 + extra)), min(1.0, (center + half) / (1 + extra))


def _cells(found: Scores) -> Sequence[str]:
    figures = (found.probability, found.share, found.ece, found.ece_by_chance, found.brier)
    return (f"{found.count:,}", *(f"{figure:.4f}" for figure in figures))
