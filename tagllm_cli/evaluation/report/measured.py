"""What a truth says about a table: figures with intervals, reliability, and the findings that have tables."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tagllm_cli.evaluation.arm_agreement import compare_arms
from tagllm_cli.evaluation.arm_tables import tables as tables_of_arms
from tagllm_cli.evaluation.calibration import Reliability, reliability
from tagllm_cli.evaluation.cost import Prices
from tagllm_cli.evaluation.frontier import Frontier, find_frontier
from tagllm_cli.evaluation.metrics import Evaluation, evaluate
from tagllm_cli.evaluation.metrics.bootstrap import DEFAULT_ROUNDS, Intervals, resample
from tagllm_cli.evaluation.metrics.columns import columns_of
from tagllm_cli.evaluation.metrics.confusions import find_confusions
from tagllm_cli.evaluation.metrics.paired import TableComparison, compare_tables
from tagllm_cli.evaluation.metrics.requests import requests_on_record
from tagllm_cli.evaluation.metrics.slices import slice_comparison
from tagllm_cli.evaluation.metrics.stage_audit import audit_stages
from tagllm_cli.evaluation.report.contents import Section
from tagllm_cli.evaluation.report.subject import Subject

_MOST_DRAWN = 20_000_000  # images in all rounds together: 200 rounds of 100,000 images


@dataclass(frozen=True, slots=True)
class Measured:
    """An evaluation with its 95% intervals.

    `reliability` is None where nothing has a probability, `frontier` without other tables or runs on record.
    """

    evaluation: Evaluation
    intervals: Intervals
    reliability: Reliability | None
    sections: Sequence[Section]
    frontier: Frontier | None


def measure(
    subject: Subject,
    *,
    include_human: bool = False,
    seed: int = 0,
    prices: Prices = Prices(),  # noqa: B008 (frozen)
) -> Measured | None:
    """Return what is measured; None without a truth.

    The images are resampled DEFAULT_ROUNDS times; less often where there are more than 100,000, whose intervals are
    narrow in any case.
    """
    if subject.judged is None:
        return None
    comparison = subject.judged.comparison
    columns = columns_of(comparison)
    rounds = max(40, min(DEFAULT_ROUNDS, _MOST_DRAWN // max(1, columns.images)))
    with ThreadPoolExecutor(1) as pool:  # NumPy lets other threads work
        resampled = pool.submit(resample, columns, rounds, seed)
        evaluation = evaluate(comparison, include_human=include_human, columns=columns)
        curve = reliability(comparison)
        compared = _compared(subject, rounds, seed, include_human=include_human)
        figures = {each.table: each.figures for each in compared.compared} if compared else {}
        frontier = find_frontier(figures, prices)
        sections = _sections(subject, compared, frontier)
        intervals = resampled.result().intervals(comparison.entries.names, seed)
    return Measured(evaluation, intervals, curve, sections, frontier)


def _compared(subject: Subject, rounds: int, seed: int, *, include_human: bool) -> TableComparison | None:
    """Return the figures of all tables side by side; None without other tables."""
    assert subject.judged is not None
    others = [(each.path, each.comparison) for each in subject.others if each.comparison is not None]
    if not others:
        return None
    tables = [(subject.table.path, subject.judged.comparison), *others]
    return compare_tables(tables, rounds, seed, include_human=include_human)


def _sections(subject: Subject, compared: TableComparison | None, frontier: Frontier | None) -> Sequence[Section]:
    assert subject.judged is not None
    comparison = subject.judged.comparison
    arms = compare_arms(comparison, tuple(subject.table.info.plan.get("arms", ())))
    found = [
        ("compared", "Figures of the tables", compared),
        ("frontier", "Quality and cost", frontier),
        ("confusions", "Confusions", find_confusions(comparison)),
        ("stages", "Stages", audit_stages(comparison, requests_on_record(subject.table.path))),
        ("slices", "Slices", slice_comparison(comparison)),
    ]
    sections = [
        Section(id_, title, "; ".join([*each.notes, *each.warnings]), each.tables())
        for id_, title, each in found
        if each is not None and each.tables()
    ]
    if arms is not None:
        sections.append(Section("arms", "Arms", "", tables_of_arms(arms)))
    return sections


def reliability_curve(found: Reliability | None) -> dict[str, Any] | None:
    """Return the curve as parallel lists, and what is said of each label in a line, by name."""
    if found is None:
        return None
    bins = found.bins
    said = {
        each.name: f"{each.name}: ECE {each.ece:.3f} ({each.ece_by_chance:.3f} by chance), Brier score {each.brier:.3f}"
        for each in (found.overall, *found.labels)
    }
    return {
        "x": [round(each.probability, 4) for each in bins],
        "y": [round(each.share, 4) for each in bins],
        "low": [round(each.share_low, 4) for each in bins],
        "high": [round(each.share_high, 4) for each in bins],
        "counts": [each.count for each in bins],
        "said": said,
    }
