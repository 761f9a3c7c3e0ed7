"""The comparison of arms as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from tagllm_cli.evaluation.arm_agreement import ArmComparison
from tagllm_cli.evaluation.sections import Cells


def tables(found: ArmComparison) -> Sequence[tuple[str, Cells]]:
    """Return titles with (column names, rows): each arm alone, error correlation of pairs, candidates by votes."""
    return (_alone(found), _correlated(found), _voted(found))


def _alone(found: ArmComparison) -> tuple[str, Cells]:
    rows = [(arm.name, f"{arm.proposed:,}", f"{arm.precision:.4f}", f"{arm.recall:.4f}") for arm in found.arms]
    return "each arm alone", (("arm", "proposed", "precision", "recall"), rows)


def _correlated(found: ArmComparison) -> tuple[str, Cells]:
    columns = ("arms", "error", "first", "second", "both", "expected", "ratio", "ratio by label", "jaccard", "phi")
    rows = [
        (
            f"{pair.first}, {pair.second}",
            error,
            *(f"{count:,}" for count in (pair.errors_first, pair.errors_second, pair.both)),
            f"{pair.expected:,.1f}",
            *("-" if value is None else f"{value:.2f}" for value in (pair.ratio, pair.ratio_by_label)),
            *("-" if value is None else f"{value:.3f}" for value in (pair.jaccard, pair.phi)),
        )
        for error, pairs in (("wrong", found.wrong), ("missed", found.missed))
        for pair in pairs
    ]
    return "error correlation of the arms: errors in common, and how many independent arms would share", (columns, rows)


def _voted(found: ArmComparison) -> tuple[str, Cells]:
    columns = ("min votes", "precision", "recall", "per image")
    rows = [
        (str(each.min_votes), f"{each.precision:.4f}", f"{each.recall:.4f}", f"{each.per_image:.2f}")
        for each in found.votes
    ]
    return "candidates by the number of arms that must propose them", (columns, rows)
