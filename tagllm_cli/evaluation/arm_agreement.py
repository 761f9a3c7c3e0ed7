"""Error correlation of a candidate table's arms: how often two arms err on the same image and label.

A cell is one image and one label. Arms whose errors are independent share e_a e_b / n of them, with e_a and e_b the
errors of each and n the cells where the error can be made: a wrong proposal where the label is absent, a miss where it
is present. Cells differ (some labels are hard for every arm), so the same sum is also taken label by label: what is
shared beyond that is not explained by the label alone. phi is the correlation of the two errors as 0 or 1 per cell.

Compared are the `ok` rows of images that the truth has: an arm whose request failed has not proposed nothing. A table
made with more than one vote leaves out what fewer arms proposed; it is measured as it is, those errors hidden.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from tagllm_cli.evaluation.entries import ABSENT, PRESENT, Comparison, Judgments
from tagllm_cli.evaluation.sections import rounded, share
from tagllm_cli.records import Status

_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ArmScores:
    """What one arm proposed alone; precision and recall in [0, 1], 0 without a denominator."""

    name: str
    proposed: int
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class ErrorCorrelation:
    """The errors of two arms, in cells.

    `expected` are the errors that they would share if independent, `expected_by_label` the same summed over the
    labels. `ratio` = both / expected and `ratio_by_label`: None where nothing is expected. `jaccard` = both / either,
    in [0, 1], None without errors. `phi` in [-1, 1], None where an arm errs never or always.
    """

    first: str
    second: str
    errors_first: int
    errors_second: int
    both: int
    expected: float
    expected_by_label: float
    ratio: float | None
    ratio_by_label: float | None
    jaccard: float | None
    phi: float | None


@dataclass(frozen=True, slots=True)
class VoteScores:
    """The candidates that at least `min_votes` arms propose; ratios in [0, 1], `per_image` is a mean."""

    min_votes: int
    precision: float
    recall: float
    per_image: float


@dataclass(frozen=True, slots=True)
class ArmComparison:
    """The arms of a table on the `images` compared: alone, the errors of every pair, and by votes."""

    images: int
    arms: tuple[ArmScores, ...]
    wrong: tuple[ErrorCorrelation, ...]
    missed: tuple[ErrorCorrelation, ...]
    votes: tuple[VoteScores, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values, ratios and means rounded to six digits."""
        found: dict[str, Any] = rounded(asdict(self))
        return found


def compare_arms(comparison: Comparison, arms: Sequence[str]) -> ArmComparison | None:
    """Compare the arms of a candidate table, in the order in which its entries number them.

    None where there is nothing to compare: another kind of table, fewer than two arms, or no `ok` image.
    """
    is_ok = np.array([status == Status.OK for status in comparison.entries.statuses])
    if comparison.stage != "candidates" or len(arms) < 2 or not is_ok.any():
        return None
    return _summed(arms, _counted(comparison, is_ok, len(arms)))


@dataclass(frozen=True, slots=True)
class _CellCounts:
    """Counts over cells; index 0 counts those whose label is absent, index 1 those where it is present."""

    images: int
    cells: _Counts  # [2, labels]
    proposed: _Counts  # [2, arms, labels]
    shared: _Counts  # [2, arms, arms]: cells that both propose
    votes: _Counts  # [2, arms + 1]: proposed cells by their number of votes


def _counted(comparison: Comparison, is_ok: npt.NDArray[np.bool_], arms: int) -> _CellCounts:
    entries, images, labels = comparison.entries, int(is_ok.sum()), len(comparison.entries.names)
    listed = comparison.judgments
    kept = is_ok[listed.cells // labels]
    judgments = Judgments(listed.cells[kept], listed.values[kept], listed.rest)
    cells = np.stack([judgments.count(value, images, labels) for value in (ABSENT, PRESENT)])
    said = np.where(is_ok[entries.rows], listed.of(entries.cells), -1)
    proposed = np.zeros((2, arms, labels), np.int64)
    shared, votes = np.zeros((2, arms, arms), np.int64), np.zeros((2, arms + 1), np.int64)
    for value in (ABSENT, PRESENT):
        chosen = said == value
        of_label = entries.labels[chosen]
        by = [(entries.arms[chosen] >> np.uint64(arm)) & np.uint64(1) > 0 for arm in range(arms)]
        for arm, one in enumerate(by):
            proposed[value, arm] = np.bincount(of_label[one], minlength=labels)
            shared[value, arm] = [np.count_nonzero(one & other) for other in by]
        votes[value] = np.bincount(sum(each.astype(np.int64) for each in by), minlength=arms + 1)
    return _CellCounts(images, cells, proposed, shared, votes)


def _summed(arms: Sequence[str], counts: _CellCounts) -> ArmComparison:
    absent, present = counts.cells
    wrong, hits = counts.proposed
    found, there = hits.sum(axis=1), int(present.sum())
    missed_by_both = there - found[:, None] - found + counts.shared[1]
    return ArmComparison(
        counts.images,
        arms=tuple(
            ArmScores(name, said, share(right, said) or 0.0, share(right, there) or 0.0)
            for name, said, right in zip(arms, (wrong + hits).sum(axis=1).tolist(), found.tolist(), strict=True)
        ),
        wrong=_correlations(arms, absent, wrong, counts.shared[0]),
        missed=_correlations(arms, present, present - hits, missed_by_both),
        votes=tuple(_at_votes(counts, least) for least in range(1, len(arms) + 1)),
    )


def _correlations(arms: Sequence[str], cells: _Counts, errors: _Counts, both: _Counts) -> tuple[ErrorCorrelation, ...]:
    """Compare every pair of arms: `cells` [labels], `errors` [arms, labels], `both` [arms, arms]."""
    count = int(cells.sum())
    pairs = []
    for one, other in combinations(range(len(arms)), 2):
        first, second, shared = int(errors[one].sum()), int(errors[other].sum()), int(both[one, other])
        expected = first * second / max(1, count)
        by_label = float((errors[one] * errors[other] / np.maximum(cells, 1)).sum())
        spread = math.sqrt(first * (count - first) * second * (count - second))
        pairs.append(
            ErrorCorrelation(
                *(arms[one], arms[other], first, second, shared, expected, by_label),
                ratio=share(shared, expected),
                ratio_by_label=share(shared, by_label),
                jaccard=share(shared, first + second - shared),
                phi=share(count * shared - first * second, spread),
            )
        )
    return tuple(pairs)


def _at_votes(counts: _CellCounts, least: int) -> VoteScores:
    wrong, right = counts.votes[:, least:].sum(axis=1).tolist()
    recall = share(right, int(counts.cells[1].sum())) or 0.0
    return VoteScores(least, share(right, wrong + right) or 0.0, recall, (wrong + right) / counts.images)
