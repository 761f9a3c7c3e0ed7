"""`tagllm evaluate`: a table and a truth from disk, measured, gated, and laid out for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagllm_cli.evaluation.arm_agreement import Agreement, measure_agreement
from tagllm_cli.evaluation.metrics import Evaluation, MissedGate, check_gates, evaluate_rows, parse_gates
from tagllm_cli.evaluation.truth import TruthOptions, load_truth
from tagllm_cli.store.table import open_table
from tagllm_cli.text import some

Cells = tuple[Sequence[str], Sequence[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation with the gates that it missed.

    `arms` compares the arms of a candidate table, None where there is nothing to compare; `min_votes` is how many of
    them had to propose a candidate.
    """

    table: Path
    evaluation: Evaluation
    missed_gates: Sequence[MissedGate]
    arms: Agreement | None = None
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
    def warnings(self) -> list[str]:
        """What the figures leave out, a sentence each."""
        found = self.evaluation
        counted = {
            "images of the table that the truth lacks": found.images_not_in_truth,
            "images of the truth that the table lacks": found.images_not_in_table,
            "images that failed and were left out": found.failed,
            "images that are pending and were left out": found.pending,
            "images with failed requests": found.partial,
        }
        lines = [f"{what}: {count:,}" for what, count in counted.items() if count]
        if found.labels_not_in_vocabulary:
            lines.append(f"labels of the truth that the vocabulary lacks: {some(found.labels_not_in_vocabulary, 8)}")
        if found.labels_not_in_truth:
            lines.append(f"labels of the vocabulary that the truth lacks: {some(found.labels_not_in_truth, 8)}")
        if self.arms and self.arms.images < found.images:
            lines.append(
                f"the arms are compared on {self.arms.images:,} of {found.images:,} images: "
                "an arm whose request failed has not seen nothing"
            )
        if self.arms and self.min_votes > 1:
            lines.append(
                f"the table was made with --min-votes {self.min_votes}: what fewer arms proposed is not in it, "
                "so that the arms seem to err together more than they do"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        arms = self.arms.to_json() if self.arms else None
        return {"table": str(self.table), **self.evaluation.to_json(), "missed_gates": self.missed, "arms": arms}

    def overall(self) -> Cells:
        """Return the overall figures as (column names, one row)."""
        found = self.evaluation
        ratios = (found.op, found.or_, found.of1, found.cp, found.cr, found.cf1, found.map)
        cells = tuple(f"{ratio:.4f}" for ratio in ratios)
        return ("OP", "OR", "OF1", "CP", "CR", "CF1", "mAP"), [cells]

    def per_label(self) -> Cells:
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

    def per_arm(self) -> Sequence[tuple[str, Cells]]:
        """Return what is known about the arms as titles with (column names, rows); () where there is nothing."""
        return () if self.arms is None else (_alone(self.arms), _together(self.arms), _voted(self.arms))


def evaluate_table(
    table: Path,
    truth: Path,
    *,
    gates: Sequence[str] = (),
    include_human: bool = False,
    truth_options: TruthOptions = TruthOptions(),  # noqa: B008 (frozen)
    min_overlap: float = 0.9,
) -> Report:
    """Measure a table on disk. Raises UsageError for files, names or gates that cannot be used."""
    parse_gates(gates)  # before the work, not after it
    opened, human = open_table(table), load_truth(truth)
    evaluation = evaluate_rows(
        opened.rows(), opened.info.vocabulary, human, stage=opened.info.stage, include_human=include_human
    )
    min_votes = opened.info.plan.get("min_votes", 1)
    return Report(table, evaluation, check_gates(evaluation, gates), measure_agreement(opened, human), min_votes)


def _alone(found: Agreement) -> tuple[str, Cells]:
    rows = [(arm.name, f"{arm.proposed:,}", f"{arm.precision:.4f}", f"{arm.recall:.4f}") for arm in found.arms]
    return "each arm alone", (("arm", "proposed", "precision", "recall"), rows)


def _together(found: Agreement) -> tuple[str, Cells]:
    columns = ("arms", "error", "first", "second", "both", "by chance", "ratio", "ratio by label", "in common", "phi")
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
    return "how often two arms err together, and how often they would by chance", (columns, rows)


def _voted(found: Agreement) -> tuple[str, Cells]:
    columns = ("min votes", "precision", "recall", "per image")
    rows = [
        (str(each.min_votes), f"{each.precision:.4f}", f"{each.recall:.4f}", f"{each.per_image:.2f}")
        for each in found.votes
    ]
    return "candidates by the number of arms that must propose them", (columns, rows)
