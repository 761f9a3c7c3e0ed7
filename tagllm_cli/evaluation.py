"""`tagllm evaluate`: a table and a truth from disk, measured, gated, and laid out for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagllm_cli.metrics import Evaluation, MissedGate, check_gates, evaluate_rows, parse_gates
from tagllm_cli.tables import open_table
from tagllm_cli.truth import load_truth

Cells = tuple[Sequence[str], Sequence[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation with the gates that it missed."""

    table: Path
    evaluation: Evaluation
    missed_gates: Sequence[MissedGate]

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
            lines.append(f"labels of the truth that the vocabulary lacks: {_some(found.labels_not_in_vocabulary)}")
        if found.labels_not_in_truth:
            lines.append(f"labels of the vocabulary that the truth lacks: {_some(found.labels_not_in_truth)}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {"table": str(self.table), **self.evaluation.to_json(), "missed_gates": self.missed}

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


def evaluate_table(table: Path, truth: Path, *, gates: Sequence[str] = (), include_human: bool = False) -> Report:
    """Measure a table on disk. Raises UsageError for files, names or gates that cannot be used."""
    parse_gates(gates)  # before the work, not after it
    opened = open_table(table)
    evaluation = evaluate_rows(
        opened.rows(), opened.info.vocabulary, load_truth(truth), stage=opened.info.stage, include_human=include_human
    )
    return Report(table, evaluation, check_gates(evaluation, gates))


def _some(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
