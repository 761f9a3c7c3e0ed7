"""The ablation's findings as Markdown for people and as plain JSON values for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tagllm_cli.evaluation import arm_tables
from tagllm_cli.evaluation.summary import EvaluationSummary
from tests.ablation.bootstrap import Interval, f1, samples
from tests.ablation.claims import Difference, Dose, Goal
from tests.ablation.design import COLUMNS, MAIN, STRATEGIES, Place
from tests.ablation.measure import Measured
from tests.ablation.study import Results

RATIOS = ("op", "or_", "of1", "cp", "cr", "cf1", "map")


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that is reported. `about` says on what it was measured, key by key.

    `arms` are evaluations of the candidate tables with two arms, by the strategy's title: how often the arms err
    together.
    """

    about: dict[str, str]
    results: Results
    differences: list[Difference]
    doses: list[Dose]
    response: Interval | None
    goals: list[Goal]
    arms: Mapping[str, EvaluationSummary]


def to_json(findings: Findings) -> dict[str, Any]:
    """Return the findings under stable keys: `cells`, `differences`, `dose`, `goals`."""
    return {
        "about": findings.about,
        "cells": [_cell(place, found) for place, found in findings.results.items()],
        "differences": [asdict(each) for each in findings.differences],
        "dose": [{**asdict(each), "concepts": each.concepts.name} for each in findings.doses],
        "response": None if findings.response is None else asdict(findings.response),
        "goals": [asdict(goal) for goal in findings.goals],
        "arms": {title: report.to_json()["arms"] for title, report in findings.arms.items()},
    }


def _cell(place: Place, found: Measured) -> dict[str, Any]:
    candidates, cost = found.candidates, found.cost
    metrics = {subset: _without_labels(score.to_json()) for subset, score in found.scores.items()}
    return {
        "other_sense": round(place.other_sense, 4),
        "strategy": place.strategy.name,
        "arms": place.strategy.arms,
        "disambiguation": place.concepts.name,
        "table": found.cell.table.name,
        "cost": {**asdict(cost), "computed_tokens": cost.computed_tokens},
        "own_cost": asdict(found.cell.cost),
        "candidate_recall": round(candidates.or_, 6),
        "candidates_per_image": round(candidates.mean_predicted, 6),
        "metrics": metrics,
        "of1_interval": asdict(Interval.of(samples(f1, found.counts["all"]))),
    }


def _without_labels(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not isinstance(value, list)}


def to_markdown(findings: Findings) -> str:
    """Return the findings as one page of tables; what was not measured is left out."""
    sections = [
        ["# Ablation"],
        [f"- {key}: {value}" for key, value in findings.about.items()],
        _glance(findings.results),
        _full(findings.results),
        _goals(findings.goals),
        _differences(findings.differences),
        _doses(findings),
        *(_together(title, report) for title, report in findings.arms.items()),
    ]
    return "\n".join(line for section in sections if section for line in (*section, ""))


def _glance(results: Results) -> list[str]:
    rows = []
    for strategy in STRATEGIES:
        places = [Place(MAIN, strategy, concepts) for concepts in COLUMNS]
        if all(place in results for place in places):
            levels = (Interval.of(samples(f1, results[place].counts["all"])) for place in places)
            rows.append(
                [strategy.title, *(f"{level.value:.3f} [{level.low:.3f}, {level.high:.3f}]" for level in levels)]
            )
    if not rows:
        return []
    return ["## OF1 at a glance", "", *_table(["candidates", *(concepts.title for concepts in COLUMNS)], rows)]


def _full(results: Results) -> list[str]:
    columns = [
        "candidates", "disambiguation", "requests", "tokens computed", "seconds", "candidate recall",
        "candidates / image", "OP", "OR", "OF1", "CP", "CR", "CF1", "mAP", "OF1 ambiguous", "OF1 unambiguous",
    ]  # fmt: skip
    rows = [
        [place.strategy.title, place.concepts.title, *_figures(results[place])]
        for place in sorted(results, key=_order)
        if place.other_sense == MAIN
    ]
    true = next((found.scores["all"].mean_true for found in results.values()), 0.0)
    note = (
        f"Costs are those of the whole way to the table, candidates included; {true:.2f} labels per image are true. "
        "`~`: a killed run could not tell its seconds, and the others' pace is taken."
    )
    return ["## The table", "", *_table(columns, rows), "", note] if rows else []


def _order(place: Place) -> tuple[int, int]:
    """Rows and columns as designed, then the controls."""
    strategies, columns = [each.name for each in STRATEGIES], [each.name for each in COLUMNS]
    control = len(strategies) if place.concepts.name not in columns else 0
    row = strategies.index(place.strategy.name) if place.strategy.name in strategies else len(strategies)
    return row + control, columns.index(place.concepts.name) if place.concepts.name in columns else len(columns)


def _figures(found: Measured) -> list[str]:
    cost, candidates, score = found.cost, found.candidates, found.scores["all"]
    apart = (found.scores[subset].of1 for subset in ("ambiguous", "unambiguous"))
    ratios = [*(getattr(score, name) for name in RATIOS), *apart]
    return [
        f"{cost.requests:,}",
        f"{cost.computed_tokens:,}",
        f"{'~' if cost.is_estimated else ''}{cost.seconds:,.0f}",
        f"{candidates.or_:.4f}",
        f"{candidates.mean_predicted:.2f}",
        *(f"{ratio:.4f}" for ratio in ratios),
    ]


def _goals(goals: Sequence[Goal]) -> list[str]:
    rows = [[goal.wanted, goal.found, "reached" if goal.is_met else "**missed**"] for goal in goals]
    return ["## Goals", "", *_table(["goal", "found", ""], rows)] if rows else []


def _differences(found: Sequence[Difference]) -> list[str]:
    rows = [[each.name, each.metric, f"{each.subset} labels", _gain(each.gain)] for each in found]
    head = ["## Differences", "", "Paired bootstrap over images, 95% intervals; bold where zero lies outside.", ""]
    return [*head, *_table(["difference", "of", "on", "gain"], rows)] if rows else []


def _doses(findings: Findings) -> list[str]:
    if not findings.doses:
        return []
    dials = sorted({each.other_sense for each in findings.doses})
    by_row: dict[tuple[str, str], dict[float, str]] = {}
    for each in findings.doses:
        by_row.setdefault((each.concepts.title, each.subset), {})[each.other_sense] = _gain(each.gain)
    rows = [
        [title, f"{subset} labels", *(gains.get(dial, "") for dial in dials)]
        for (title, subset), gains in by_row.items()
    ]
    lines = _table(["gain in OF1 over bare", "on", *(f"dial {dial:.2f}" for dial in dials)], rows)
    rise = findings.response
    if rise is not None:
        lines += [
            "",
            f"From the lowest to the highest dial the gain of cards on ambiguous labels rises by {_gain(rise)}.",
        ]
    head = "The dial is how often an ambiguous name's picture shows the sense that the dataset does not mean."
    return ["## Dose and response", "", head, "", *lines]


def _together(title: str, report: EvaluationSummary) -> list[str]:
    lines = [f"## How the arms agree: {title}"]
    for what, (columns, rows) in arm_tables.tables(report.arms) if report.arms else ():
        lines += ["", f"{what[0].upper()}{what[1:]}:", "", *_table(columns, rows)]
    return lines


def _gain(gain: Interval) -> str:
    text = f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    return f"**{text}**" if gain.low > 0 or gain.high < 0 else text


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]
