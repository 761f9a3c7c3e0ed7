"""How often the 95% intervals of an audit hold the truth: `python -m tests.bench.audit_coverage`.

Many audits are drawn from tables whose truth is known, and answered by it. Two other kinds of interval stand beside
ours: a bootstrap of the answers within their groups, and a normal approximation on the logit scale with its variance.
With the word `docs` it prints the example and the half widths of docs/audit.md instead.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tagllm_cli.evaluation.audit.create import create_audit
from tagllm_cli.evaluation.audit.estimate import (
    Estimate,
    estimate_all,
    estimate_labels,
    f1_of,
    precision,
    prevalence_of,
    recall_of,
)
from tagllm_cli.evaluation.audit.sample import draw
from tagllm_cli.evaluation.audit.shares import ABSENT, LISTED, PREDICTED, Answered
from tagllm_cli.evaluation.audit.summary import AuditEvaluation, evaluate_audit
from tests.evaluation.audit.world import World, world

TESTS = Path(__file__).parents[1]
FIGURES = ("precision", "recall", "f1", "prevalence")
# Pairs that are drawn, and the table: its seed, and how much it misses and doubts.
CASES: Sequence[tuple[int, dict[str, Any]]] = (
    (200, {"seed": 5, "missed": 0.12}),
    (400, {"seed": 0, "missed": 0.12, "doubt": 2.0}),
    (600, {"seed": 6, "missed": 0.12, "doubt": 1.0}),
    (1000, {"seed": 3, "missed": 0.2}),
    (2000, {"seed": 7, "often": 0.15, "doubt": 2.0}),
    (500, {"seed": 8, "images": 300, "labels": 8, "often": 0.4, "rarely": 0.05}),
)


class Audits:
    """Audits of one table, answered by its truth; `every` groups of pairs by kind, as an estimate makes them."""

    def __init__(self, of: World) -> None:
        self.world, self.population = of, of.population
        listed = np.zeros(of.true.shape, bool)
        listed[of.entries.rows, of.entries.labels] = True
        self.groups = np.where(of.said, PREDICTED, np.where(listed, LISTED, ABSENT))
        self.sizes = np.stack([(self.groups == each).sum(axis=0) for each in (PREDICTED, LISTED, ABSENT)], axis=1)

    def answered(self, size: int, seed: int, first: int | None = None) -> Answered:
        """Return an audit of which the `first` pairs are answered, all by default."""
        sample = draw(self.population, size, seed)
        rows, labels, probabilities = (each[:first] for each in (sample.rows, sample.labels, sample.probabilities))
        present = self.world.true[rows, labels]
        return Answered(labels, self.groups[rows, labels], present, probabilities)


def holds(found: Estimate, true: float) -> bool:
    """Return whether the interval holds the truth; one that is missing does not."""
    return found.low is not None and found.high is not None and found.low <= true <= found.high


def width(found: Estimate) -> float:
    """Return the width of an interval that is there."""
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low


def covered(audits: Audits, size: int, rounds: int, first: int | None = None) -> dict[str, float]:
    """Return the share of `rounds` audits whose intervals hold the true figure, for each figure."""
    true, totals = audits.world.figures, audits.sizes.sum(axis=0)
    hits = dict.fromkeys(FIGURES, 0)
    for seed in range(rounds):
        found = estimate_all(audits.answered(size, seed, first), totals)
        for name, each in found.items():
            hits[name] += holds(each, true[name])
    return {name: count / rounds for name, count in hits.items()}


def others(answered: Answered, totals: Any, random: np.random.Generator) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the intervals of a bootstrap, and those of its variance on the logit scale, of each figure."""
    draws, values = [], []
    for group in (PREDICTED, LISTED, ABSENT):
        chosen = np.flatnonzero(answered.groups == group)
        weights, present = 1 / answered.probabilities[chosen], answered.present[chosen]
        times = random.multinomial(len(chosen), np.full(len(chosen), 1 / max(1, len(chosen))), 1000)
        draws.append(times @ (weights * present) / np.maximum(times @ weights, 1e-9))
        values.append((weights * present).sum() / max(weights.sum(), 1e-9))
    found: dict[str, dict[str, tuple[float, float]]] = {"bootstrap": {}, "logit": {}}
    figures = (precision, recall_of(totals), f1_of(totals), prevalence_of(totals))
    for name, figure in zip(FIGURES, figures, strict=True):
        drawn = figure(draws)
        found["bootstrap"][name] = tuple(np.quantile(drawn, [0.025, 0.975]))
        value = float(np.clip(figure(values), 1e-4, 1 - 1e-4))
        center, spread = np.log(value / (1 - value)), 1.96 * np.std(drawn) / (value * (1 - value))
        found["logit"][name] = tuple(1 / (1 + np.exp(-(center + np.array([-spread, spread])))))
    return found


def half_widths(rounds: int = 30) -> list[str]:
    """Return the half widths of intervals by the number of answers, as lines of a Markdown table."""
    audits = Audits(world(3, missed=0.2))
    totals, names = audits.sizes.sum(axis=0), FIGURES[:3]
    lines = ["| answers | " + " | ".join(f"{name} of {audits.world.figures[name]:.2f}" for name in names) + " |"]
    for size in (200, 500, 1000, 2000):
        found = [estimate_all(audits.answered(size, seed), totals) for seed in range(rounds)]
        halves = (np.mean([width(each[name]) for each in found]) / 2 for name in names)
        lines.append(f"| {size:,} | " + " | ".join(f"± {half:.3f}" for half in halves) + " |")
    return lines


def example(folder: Path) -> AuditEvaluation:
    """Return what 300 answers say of the demo's table, every twentieth of them unsure."""
    truth = json.loads((TESTS / "demo" / "truth.json").read_text())
    names = {each["id"]: each["name"] for each in truth["categories"]}
    files = {each["id"]: each["file_name"] for each in truth["images"]}
    true = {(files[each["image_id"]], names[each["category_id"]]) for each in truth["annotations"]}
    table = TESTS / "data" / "demo" / "labels.parquet"
    create_audit(table, folder / "audit", size=300, root=str(TESTS / "demo" / "images"))
    path = folder / "audit" / "audit.csv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *lines = csv.reader(file)
    for number, line in enumerate(lines):
        line[3] = "unsure" if number % 20 == 0 else "yes" if (line[1], line[2]) in true else "no"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    return evaluate_audit(table, path)


def main() -> None:
    """Print what was chosen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("what", nargs="?", choices=("coverage", "docs"), default="coverage")
    chosen = parser.parse_args()
    if chosen.what == "docs":
        with tempfile.TemporaryDirectory() as folder:
            columns, rows = example(Path(folder)).overall()
        cells = [tuple(map(str, row)) for row in (columns, *rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for first, *values in cells:
            right = (cell.rjust(size) for cell, size in zip(values, widths[1:], strict=True))
            print(first.ljust(widths[0]), *right, sep="  ")
        print(*half_widths(), sep="\n")
        return
    measure(chosen.rounds)


def measure(rounds: int) -> None:
    """Print, for each table, the coverage of our intervals and of the others, their widths and the bias."""
    for size, settings in CASES:
        audits = Audits(world(**settings))
        true, totals = audits.world.figures, audits.sizes.sum(axis=0)
        hits: dict[tuple[str, str], int] = defaultdict(int)
        widths, errors = defaultdict(list), defaultdict(list)
        of_labels = [0, 0]
        truths = audits.world.true.mean(axis=0)
        for seed in range(rounds):
            answered = audits.answered(size, seed)
            ours = estimate_all(answered, totals)
            spans = others(answered, totals, np.random.default_rng(seed))
            found = {kind: {name: Estimate(0, *ends) for name, ends in each.items()} for kind, each in spans.items()}
            for kind, estimates in {"ours": ours, **found}.items():
                for name, each in estimates.items():
                    hits[kind, name] += holds(each, true[name])
                    widths[kind, name].append(width(each))
            for name, each in ours.items():
                errors[name].append((each.value or 0) - true[name])
            labels, _ = estimate_labels(answered, audits.sizes, audits.world.entries.names)
            for label, share in zip(labels, truths, strict=True):
                if label.prevalence.value is not None:
                    of_labels[0] += holds(label.prevalence, share)
                    of_labels[1] += 1
        print(f"{size} pairs of {settings}; prevalence of single labels: {of_labels[0] / max(1, of_labels[1]):.3f}")
        for name in FIGURES:
            kinds = "  ".join(
                f"{kind} {hits[kind, name] / rounds:.3f} (width {np.mean(widths[kind, name]):.3f})"
                for kind in ("ours", "bootstrap", "logit")
            )
            bias, error = np.mean(errors[name]), np.std(errors[name]) / rounds**0.5
            print(f"  {name:<11} {true[name]:.3f}  {kinds}  bias {bias:+.4f} (+-{error:.4f})", flush=True)


if __name__ == "__main__":
    main()
