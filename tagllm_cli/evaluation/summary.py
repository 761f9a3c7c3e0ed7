"""What `tagllm evaluate` prints: a table and a truth from disk, measured, gated, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation import arm_tables
from tagllm_cli.evaluation.arm_agreement import ArmComparison, compare_arms
from tagllm_cli.evaluation.calibration import reliability
from tagllm_cli.evaluation.cost import Prices
from tagllm_cli.evaluation.entries import Comparison, compare
from tagllm_cli.evaluation.frontier import find_frontier
from tagllm_cli.evaluation.gates import MIN_OVERLAP, MissedGate, check_gates, check_overlap, need_intervals
from tagllm_cli.evaluation.metrics import Evaluation, evaluate
from tagllm_cli.evaluation.metrics.bootstrap import DEFAULT_ROUNDS, Intervals, resample
from tagllm_cli.evaluation.metrics.columns import columns_of
from tagllm_cli.evaluation.metrics.confusions import find_confusions
from tagllm_cli.evaluation.metrics.paired import compare_tables
from tagllm_cli.evaluation.metrics.requests import requests_on_record
from tagllm_cli.evaluation.metrics.slices import slice_comparison
from tagllm_cli.evaluation.metrics.stage_audit import audit_stages
from tagllm_cli.evaluation.model_entries import entries_for
from tagllm_cli.evaluation.noise import find_suspects
from tagllm_cli.evaluation.sections import Cells, Section
from tagllm_cli.evaluation.truth.base import TableContext, Truth, TruthOptions
from tagllm_cli.evaluation.truth.registry import load_truth
from tagllm_cli.evaluation.truth_summary import TruthSummary as TruthSummary
from tagllm_cli.evaluation.truth_summary import doubts, not_judged
from tagllm_cli.store.table import open_table
from tagllm_cli.vocabulary.model import Vocabulary

_FIGURES = {"op": "OP", "or": "OR", "of1": "OF1", "cp": "CP", "cr": "CR", "cf1": "CF1", "map": "mAP"}
_FIGURES |= {"exact_match": "exact match", "hamming": "Hamming"}
_MEANS = {"mean_predicted": "labels per image", "mean_true": "in the truth", "mean_difference": "difference"}


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What is measured besides the headline.

    `rounds` resamples of the images give intervals (0: none). `compare` are further tables, set beside the first.
    `details` adds slices, confused pairs of labels and the reliability of probabilities. `suspects` disagreements with
    people are listed (0: none). `prices` are those of the runs on record; `candidates` is the table that label tables
    were made from.
    """

    rounds: int = 0
    seed: int = 0
    compare: Sequence[Path] = ()
    details: bool = False
    include_human: bool = False
    suspects: int = 0
    prices: Prices = Prices()  # noqa: RUF009 (frozen)
    candidates: Path | None = None


@dataclass(frozen=True, slots=True)
class EvaluationSummary:
    """An evaluation with the gates that it missed.

    `arms` compares the arms of a candidate table, None where there is nothing to compare; `min_votes` is how many of
    them had to propose a candidate. `sections` are the further findings, by their key in the JSON.
    """

    table: Path
    truth: TruthSummary
    evaluation: Evaluation
    missed_gates: Sequence[MissedGate]
    arms: ArmComparison | None = None
    min_votes: int = 1
    intervals: Intervals | None = None
    sections: Mapping[str, Section] = field(default_factory=dict)

    @property
    def missed(self) -> list[str]:
        """The missed gates, one sentence each."""
        return [str(gate) for gate in self.missed_gates]

    @property
    def title(self) -> str:
        """What was measured, in a line."""
        found = self.evaluation
        unknown = f", {found.unknown:,} unknown" if found.unknown else ""
        return (
            f"{self.table}: {found.stage} of {found.images:,} images, {found.mean_predicted:.2f} per image "
            f"(truth: {found.mean_true:.2f}){unknown}"
        )

    @property
    def notes(self) -> list[str]:
        """What was read, and what the figures leave out by design, a line each."""
        lines = [*self.truth.lines, *not_judged(self.evaluation)]
        return [*lines, *(note for section in self.sections.values() for note in section.notes)]

    @property
    def warnings(self) -> list[str]:
        """What is missing from the figures or makes them doubtful, a sentence each."""
        lines = doubts(self.evaluation, self.truth)
        lines += self._arm_warnings()
        return [*lines, *(warning for section in self.sections.values() for warning in section.warnings)]

    def _arm_warnings(self) -> Iterable[str]:
        if self.arms and self.arms.images < self.evaluation.images:
            yield (
                f"the arms are compared on {self.arms.images:,} of {self.evaluation.images:,} images: "
                "an arm whose request failed has not proposed nothing"
            )
        if self.arms and self.min_votes > 1:
            yield (
                f"the table was made with --min-votes {self.min_votes}: what fewer arms proposed is not in it, "
                "so that the errors of the arms seem more correlated than they are"
            )

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "table": str(self.table),
            "truth": self.truth.to_json(),
            **self.evaluation.to_json(),
            "missed_gates": self.missed,
            "arms": self.arms.to_json() if self.arms else None,
            "intervals": self.intervals.to_json() if self.intervals else None,
            **{key: section.to_json() for key, section in self.sections.items()},
        }

    def overall(self) -> Cells:
        """Return the overall figures as (column names, rows): one row, or with intervals one for each figure."""
        found = self.evaluation.to_json()
        if self.intervals is None:
            return tuple(_FIGURES.values()), [tuple(f"{found[key]:.4f}" for key in _FIGURES)]
        rows = [
            (name, f"{found[key]:.4f} {self.intervals.figures[key]}") for key, name in {**_FIGURES, **_MEANS}.items()
        ]
        return ("", f"value [95% of {self.intervals.rounds:,} resamples of the images]"), rows

    def per_label(self) -> Cells:
        """Return every label's figures as (column names, rows), the worst F1 first."""
        columns = ("label", "precision", "recall", "F1", "AP", "true", "predicted")
        ordered = sorted(self.evaluation.labels, key=lambda label: (label.support == 0, label.f1))
        rows = [
            (
                label.name,
                f"{label.precision:.3f}",
                f"{label.recall:.3f}",
                f"{label.f1:.3f}{self._f1_interval(label.name)}",
                "-" if label.ap is None else f"{label.ap:.3f}",
                f"{label.support:,}",
                f"{label.predicted:,}",
            )
            for label in ordered
        ]
        return columns, rows

    def _f1_interval(self, name: str) -> str:
        found = self.intervals.label_f1[name] if self.intervals else None
        return f" [{found.low:.3f}, {found.high:.3f}]" if found else ""

    def details(self) -> Sequence[tuple[str, Cells]]:
        """Return the tables between the headline and the labels: arms, then all sections."""
        arms = () if self.arms is None else arm_tables.tables(self.arms)
        return [*arms, *(table for section in self.sections.values() for table in section.tables())]


def evaluate_table(
    table: Path,
    truth: Path,
    *,
    gates: Sequence[str] = (),
    truth_options: TruthOptions = TruthOptions(),  # noqa: B008 (frozen)
    min_overlap: float = MIN_OVERLAP,
    options: EvaluateOptions = EvaluateOptions(),
) -> EvaluationSummary:
    """Measure a table on disk. It is read once, and matched with the truth once, as is each table set beside it.

    With gates, one more is that the share `min_overlap` of the truth's images are in the table. Raises UsageError for
    files, names or gates that cannot be used.
    """
    rounds = options.rounds or (DEFAULT_ROUNDS if need_intervals(gates) else 0)
    if not 0 <= min_overlap <= 1:
        raise UsageError(f"--min-overlap {min_overlap:g} is no share", "Give a number from 0 to 1.")
    opened = open_table(table)
    entries = entries_for(opened, human_only=truth_options.human_only)
    human = load_truth(truth, truth_options, TableContext(entries.ids, opened.info.vocabulary))
    stage, people = opened.info.stage, options.include_human
    comparison = compare(entries, opened.info.vocabulary, human, stage=stage, include_human=people)
    columns = columns_of(comparison)
    evaluation = evaluate(comparison, include_human=people, columns=columns)
    sample = resample(columns, rounds, options.seed) if rounds else None
    intervals = sample.intervals(comparison.entries.names, options.seed) if sample else None
    summary = TruthSummary.of(truth, human, comparison)
    missed = check_gates(evaluation, gates, intervals.figures if intervals else None)
    if gates:
        missed += check_overlap(summary.found, summary.images, min_overlap)
    return EvaluationSummary(
        *(table, summary, evaluation, missed),
        compare_arms(comparison, tuple(opened.info.plan.get("arms", ()))),
        opened.info.plan.get("min_votes", 1),
        intervals,
        _sections(table, opened.info.vocabulary, comparison, evaluation, human, options, truth_options.human_only),
    )


def _sections(
    table: Path,
    vocabulary: Vocabulary,
    comparison: Comparison,
    evaluation: Evaluation,
    truth: Truth,
    options: EvaluateOptions,
    human_only: bool,
) -> Mapping[str, Section]:
    found: dict[str, Section | None] = {}
    figures: dict[Path, Mapping[str, float | None]] = {table: evaluation.to_json()}
    if options.compare:
        others = [(path, _compared(path, truth, options, human_only)) for path in options.compare]
        rounds = options.rounds or DEFAULT_ROUNDS
        tables = [(table, comparison), *others]
        compared = compare_tables(tables, rounds, options.seed, include_human=options.include_human)
        found["compared"], figures = compared, {each.table: each.figures for each in compared.compared}
    found["cost"] = find_frontier(figures, options.prices, options.candidates)
    found["stages"] = audit_stages(comparison, requests_on_record(table, options.candidates))
    if options.details:
        found["slices"] = slice_comparison(comparison, options.rounds, options.seed)
        found["confusions"] = find_confusions(comparison)
        found["reliability"] = reliability(comparison)
    if options.suspects:
        found["suspects"] = find_suspects(comparison, vocabulary, options.suspects)
    return {key: section for key, section in found.items() if section is not None}


def _compared(path: Path, truth: Truth, options: EvaluateOptions, human_only: bool) -> Comparison:
    table = open_table(path)
    entries = entries_for(table, human_only=human_only)
    vocabulary, stage = table.info.vocabulary, table.info.stage
    return compare(entries, vocabulary, truth, stage=stage, include_human=options.include_human)
