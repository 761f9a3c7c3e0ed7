"""What `tagllm evaluate` prints: a table and a truth from disk, measured, gated, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation import arm_tables
from tagllm_cli.evaluation.arm_agreement import ArmComparison, compare_arms
from tagllm_cli.evaluation.entries import Comparison, compare, read_entries
from tagllm_cli.evaluation.gates import (
    MIN_OVERLAP,
    MissedGate,
    check_gates,
    check_overlap,
    parse_gates,
)
from tagllm_cli.evaluation.metrics import Evaluation, evaluate
from tagllm_cli.evaluation.truth.base import TableContext, Truth, TruthOptions
from tagllm_cli.evaluation.truth.registry import load_truth
from tagllm_cli.store.table import open_table
from tagllm_cli.text import shortened

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class TruthSummary:
    """What was read of the truth, and how its images met those of the table.

    `found` of its `images` are in the table, the share `overlap`. `matched` are examples as (id in the table, key in
    the truth), the others examples of what only one side has. Of the `human_labels` of the images found, `lost` are of
    labels that the vocabulary lacks.
    """

    path: Path
    dialect: str
    images: int
    labels: int
    found: int
    overlap: float
    human_labels: int
    lost: int
    matched: tuple[tuple[str, str], ...]
    only_in_truth: tuple[str, ...]
    only_in_table: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, truth: Truth, comparison: Comparison) -> TruthSummary:
        """Return the summary of a truth as it was matched."""
        images, known = comparison.images, comparison.names.in_vocabulary
        found = [truth.labels[key] for key in images.keys.values()]
        lost = sum(name not in known for names in found for name in names)
        return cls(
            *(path, truth.dialect, len(truth.labels), len(truth.names), len(images.keys), images.overlap),
            *(sum(map(len, found)), lost),
            tuple(islice(images.keys.items(), _EXAMPLES)),
            images.not_in_table[:_EXAMPLES],
            images.not_in_truth[:_EXAMPLES],
            truth.notes,
            truth.warnings,
        )

    @property
    def lines(self) -> list[str]:
        """What was read, in a line, then the examples."""
        what = f"{self.path}: {self.dialect}; {self.images:,} images, {self.labels:,} labels"
        found = f"found in the table: {self.found:,} of {self.images:,} images"
        pairs = [image if image == key else f"{image} = {key}" for image, key in self.matched]
        examples = {
            "matched, for example": pairs,
            "only in the truth, for example": self.only_in_truth,
            "only in the table, for example": self.only_in_table,
        }
        return [
            f"{what}; {found}",
            *(f"{side}: {', '.join(names)}" for side, names in examples.items() if names),
            *self.notes,
        ]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "path": str(self.path),
            "dialect": self.dialect,
            "images": self.images,
            "labels": self.labels,
            "found": self.found,
            "overlap": round(self.overlap, 6),
            "human_labels": self.human_labels,
            "lost": self.lost,
            "matched": [{"table": image, "truth": key} for image, key in self.matched],
            "only_in_truth": list(self.only_in_truth),
            "only_in_table": list(self.only_in_table),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class EvaluationSummary:
    """An evaluation with the gates that it missed.

    `arms` compares the arms of a candidate table, None where there is nothing to compare; `min_votes` is how many of
    them had to propose a candidate.
    """

    table: Path
    truth: TruthSummary
    evaluation: Evaluation
    missed_gates: Sequence[MissedGate]
    arms: ArmComparison | None = None
    min_votes: int = 1

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
        found = self.evaluation
        lines = self.truth.lines
        if found.unjudged:
            pairs = found.images * len(found.labels)
            lines.append(
                f"pairs of image and label that are not judged and count in no figure: {found.unjudged:,} of {pairs:,}"
            )
        return lines

    @property
    def warnings(self) -> list[str]:
        """What is missing from the figures or makes them doubtful, a sentence each."""
        found = self.evaluation
        counted = {
            "images of the table that the truth lacks": found.images_not_in_truth,
            "images of the truth that the table lacks": found.images_not_in_table,
            "images that failed and were left out": found.failed,
            "images that are pending and were left out": found.pending,
            "images with failed requests": found.partial,
        }
        lines = [*self.truth.warnings, *(f"{what}: {count:,}" for what, count in counted.items() if count)]
        if found.judges_no_absence:
            lines.append(
                "the truth judges no label absent, so that only recall means anything: write 0 where one is absent"
            )
        if found.labels_not_in_vocabulary:
            lost = f"{self.truth.lost:,} of {self.truth.human_labels:,} human labels"
            names = shortened(found.labels_not_in_vocabulary, 8)
            lines.append(f"labels of the truth that the vocabulary lacks: {names} ({lost})")
        if found.labels_not_in_truth:
            lines.append(f"labels of the vocabulary that the truth lacks: {shortened(found.labels_not_in_truth, 8)}")
        return [*lines, *self._arm_warnings()]

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
        }

    def overall(self) -> arm_tables.Cells:
        """Return the overall figures as (column names, one row)."""
        found = self.evaluation
        ratios = (found.op, found.or_, found.of1, found.cp, found.cr, found.cf1, found.map)
        cells = tuple("-" if ratio is None else f"{ratio:.4f}" for ratio in ratios)
        return ("OP", "OR", "OF1", "CP", "CR", "CF1", "mAP"), [cells]

    def per_label(self) -> arm_tables.Cells:
        """Return every label's figures as (column names, rows), the worst F1 first."""
        columns = ("label", "precision", "recall", "F1", "AP", "true", "predicted")
        ordered = sorted(self.evaluation.labels, key=lambda label: (label.support == 0, label.f1))
        rows = [
            (
                label.name,
                f"{label.precision:.3f}",
                f"{label.recall:.3f}",
                f"{label.f1:.3f}",
                "-" if label.ap is None else f"{label.ap:.3f}",
                f"{label.support:,}",
                f"{label.predicted:,}",
            )
            for label in ordered
        ]
        return columns, rows

    def per_arm(self) -> Sequence[tuple[str, arm_tables.Cells]]:
        """Return what is known about the arms as titles with (column names, rows); () where there is nothing."""
        return () if self.arms is None else arm_tables.tables(self.arms)


def evaluate_table(
    table: Path,
    truth: Path,
    *,
    gates: Sequence[str] = (),
    include_human: bool = False,
    truth_options: TruthOptions = TruthOptions(),  # noqa: B008 (frozen)
    min_overlap: float = MIN_OVERLAP,
) -> EvaluationSummary:
    """Measure a table on disk, which is read once.

    With gates, one more is that the share `min_overlap` of the truth's images are in the table. Raises UsageError for
    files, names or gates that cannot be used.
    """
    parse_gates(gates)  # before the work, not after it
    if not 0 <= min_overlap <= 1:
        raise UsageError(f"--min-overlap {min_overlap:g} is no share", "Give a number from 0 to 1.")
    opened = open_table(table)
    vocabulary, plan, stage = opened.info.vocabulary, opened.info.plan, opened.info.stage
    arms = tuple(plan.get("arms", ()))
    entries = read_entries(opened)
    human = load_truth(truth, truth_options, TableContext(entries.ids, vocabulary))
    comparison = compare(entries, vocabulary, human, stage=stage, include_human=include_human)
    evaluation = evaluate(comparison, include_human=include_human)
    summary = TruthSummary.of(truth, human, comparison)
    missed = check_gates(evaluation, gates)
    if gates:
        missed += check_overlap(summary.found, summary.images, min_overlap)
    min_votes = plan.get("min_votes", 1)
    return EvaluationSummary(table, summary, evaluation, missed, compare_arms(comparison, arms), min_votes)
