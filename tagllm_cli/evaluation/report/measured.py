"""What a truth says about a table: figures with intervals, reliability, and the findings that have tables."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tagllm_cli.evaluation.arm_agreement import compare_arms
from tagllm_cli.evaluation.arm_tables import tables as tables_of_arms
from tagllm_cli.evaluation.calibration import Reliability, reliability
from tagllm_cli.evaluation.metrics import Evaluation, evaluate
from tagllm_cli.evaluation.metrics.bootstrap import DEFAULT_ROUNDS, Intervals, resample
from tagllm_cli.evaluation.metrics.columns import columns_of
from tagllm_cli.evaluation.metrics.confusions import find_confusions
from tagllm_cli.evaluation.metrics.paired import compare_tables
from tagllm_cli.evaluation.metrics.requests import requests_on_record
from tagllm_cli.evaluation.metrics.slices import slice_comparison
from tagllm_cli.evaluation.metrics.stage_audit import audit_stages
from tagllm_cli.evaluation.report.contents import Section
from tagllm_cli.evaluation.report.subject import Subject

_MOST_DRAWN = 20_000_000  # images in all rounds together: 200 rounds of 100,000 images


@dataclass(frozen=True, slots=True)
class Measured:
    """An evaluation with its 95% intervals. `reliability` is None where nothing has a probability."""

    evaluation: Evaluation
    intervals: Intervals
    reliability: Reliability | None
    sections: Sequence[Section]


def measure(subject: Subject, *, include_human: bool = False, seed: int = 0) -> Measured | None:
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
        sections = _sections(subject, rounds, seed, include_human=include_human)
        intervals = resampled.result().intervals(comparison.entries.names, seed)
    return Measured(evaluation, intervals, curve, sections)


def _sections(subject: Subject, rounds: int, seed: int, *, include_human: bool) -> Sequence[Section]:
    assert subject.judged is not None
    comparison = subject.judged.comparison
    arms = compare_arms(comparison, tuple(subject.table.info.plan.get("arms", ())))
    others = [(each.path, each.comparison) for each in subject.others if each.comparison is not None]
    tables = [(subject.table.path, comparison), *others]
    found = [
        ("compared", "Figures of the tables", compare_tables(tables, rounds, seed, include_human=include_human))
        if others
        else ("compared", "", None),
        ("confusions", "Confusions", find_confusions(comparison)),
        ("stages", "Stages", audit_stages(comparison, requests_on_record(subject.table.path))),
        ("slices", "Slices", slice_comparison(comparison)),
    ]
    sections = [
        Section(id_, title, " ".join([*each.notes, *each.warnings]), each.tables())
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
