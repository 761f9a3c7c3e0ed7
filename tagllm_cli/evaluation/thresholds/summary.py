"""What `tagllm calibrate` does and prints: thresholds from a table and a truth, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.calibration import decided
from tagllm_cli.evaluation.entries import (
    ABSENT,
    HUMAN,
    PREDICTED,
    PRESENT,
    UNDECIDED,
    Comparison,
    Entries,
    compare,
    read_entries,
)
from tagllm_cli.evaluation.model_entries import entries_for
from tagllm_cli.evaluation.sections import Cells
from tagllm_cli.evaluation.thresholds.as_file import as_file
from tagllm_cli.evaluation.thresholds.counts import count, grid_of
from tagllm_cli.evaluation.thresholds.crossfit import cross_fit
from tagllm_cli.evaluation.thresholds.figures import HeldOut, held_out, is_predicted
from tagllm_cli.evaluation.thresholds.imputed import check_selection, of_all_images, with_imputed
from tagllm_cli.evaluation.thresholds.metric import Metric
from tagllm_cli.evaluation.truth.base import TableContext, Truth, TruthOptions
from tagllm_cli.evaluation.truth.registry import load_truth
from tagllm_cli.evaluation.truth_summary import TruthSummary
from tagllm_cli.labeling.threshold_file import ThresholdFile, check_thresholds_path, table_questions, write_thresholds
from tagllm_cli.store.table import open_table
from tagllm_cli.text import shortened
from tagllm_cli.vocabulary.model import Vocabulary

MIN_IMAGES = 10


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of image and label in the whole table that are yes `before` and `after`; `undecided` ones are neither.

    What people decided is not among them.
    """

    before: int
    after: int
    undecided: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """What came of a calibration: the `file` that was written, and its worth on `held` out images.

    `ceiling` in [0, 1] is the recall of the candidates, which no threshold can exceed; None where it is not known, for
    nobody judged what was no candidate. `refused`: nothing is changed, since it would be no better. `imputed` pairs
    were judged by nobody, and drawn from what people said of others; `selection` says what makes that doubtful.
    """

    table: Path
    metric: Metric
    truth: TruthSummary
    file: ThresholdFile
    held: HeldOut
    names: Sequence[str]
    pairs: Pairs
    images: int
    ceiling: float | None
    refused: bool
    imputed: int = 0
    selection: str = ""

    @property
    def changed(self) -> int:
        """How many labels have a threshold of their own."""
        return sum(label.threshold is not None and not label.why for label in self.file.labels)

    @property
    def notes(self) -> list[str]:
        """What was read, and what was made of it, a line each."""
        if not self.imputed:
            return self.truth.lines
        by = "by their probability, as corrected by the answers; the figures are expectations, of candidates alone"
        return [*self.truth.lines, f"pairs that nobody judged count as present or absent {by}: {self.imputed:,}"]

    @property
    def warnings(self) -> list[str]:
        """What makes the result doubtful, a sentence each."""
        lines = [*self.truth.warnings, *([self.selection] if self.selection else [])]
        few = [label.name for label in self.file.labels if label.why.startswith("fewer than")]
        if few:
            lines.append(f"labels with too few positives for a threshold of their own: {len(few):,} ({shortened(few)})")
        target, kind = self.metric.target, self.metric.kind
        reached = self.held.after[{"precision": "OP", "recall": "OR"}.get(kind, "OF1")]
        if kind == "recall" and self.ceiling is not None and self.ceiling < target:
            lines.append(
                f"recall={target:g} cannot be reached: only {self.ceiling:.4f} of the labels present were candidates"
            )
        elif kind != "f1" and reached.value < target:
            lines.append(f"{self.metric} is missed on held-out images: {reached}")
        if self.refused:
            lines.append("no threshold is changed: on held-out images the new ones are no better")
        return lines

    def lines(self) -> Iterator[str]:
        """Yield what the thresholds mean for the table, and what to run next."""
        own = f"{self.changed:,} of {len(self.file.labels):,} labels have their own"
        yield f"{self.file.path}: common threshold {self.file.threshold:.4g}; {own}"
        if self.metric.kind == "recall":
            yield f"to review, in the whole table: {self.pairs.after:,} labels (now: {self.pairs.before:,})"
            lost = "unknown" if self.ceiling is None else f"{1 - self.ceiling:.4f}"
            yield f"recall that is lost with the candidates: {lost}"
        else:
            yield f"labels in the whole table: {self.pairs.after:,} (now: {self.pairs.before:,})"
        if "bias" in self.file.measured:
            yield f"bias of the questions: {self.file.measured['bias']}"
        if self.metric.kind == "precision":
            yield f"recall that remains, on held-out images: {self.held.after['OR']}"
        if self.pairs.undecided:
            yield f"undecided labels, which no threshold decides: {self.pairs.undecided:,}"
        if not self.refused:
            yield f"next: the command that made {self.table}, with --thresholds {self.file.path}; nothing is asked"

    def overall(self) -> Cells:
        """Return the figures on held-out images as (column names, rows)."""
        sides = (self.held.before, self.held.after, self.held.gain)
        rows = [(name, *(str(side[name]) for side in sides)) for name in self.held.before]
        return ("figure", "before", "after", "difference"), rows

    def per_label(self) -> Cells:
        """Return every label as (column names, rows), those with their own threshold first."""
        place = {name: number for number, name in enumerate(self.names)}
        rows = [
            (
                label.name,
                "-" if label.threshold is None else f"{label.threshold:.4f}",
                "-" if label.low is None else f"{label.low:.4f}-{label.high:.4f}",
                f"{label.positives:,}",
                *(self._measured(place[label.name]) if label.name in place else ("-",) * 3),
                label.why,
            )
            for label in sorted(self.file.labels, key=lambda label: bool(label.why))
        ]
        return ("label", "threshold", "interval", "true", "precision", "recall", "F1", "why not"), rows

    def _measured(self, place: int) -> Sequence[str]:
        tp, fp, support = self.held.tp[:, place], self.held.fp[:, place], self.held.support[place]
        ratios = ((tp, tp + fp), (tp, support), (2 * tp, tp + fp + support))
        return [" > ".join(f"{ratio:.3f}" for ratio in top / np.maximum(low, 1)) for top, low in ratios]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        held = self.held
        sides = {"before": held.before, "after": held.after, "difference": held.gain}
        counts = [
            {"name": name, "tp": held.tp[:, number].tolist(), "fp": held.fp[:, number].tolist()}
            for number, name in enumerate(self.names)
        ]
        return {
            "table": str(self.table),
            "truth": self.truth.to_json(),
            "metric": str(self.metric),
            "images": self.images,
            "held_out": {name: {key: each.to_json() for key, each in side.items()} for name, side in sides.items()},
            "held_out_labels": counts,
            "pairs": asdict(self.pairs),
            "candidate_recall": None if self.ceiling is None else round(self.ceiling, 6),
            "changed": self.changed,
            "refused": self.refused,
            "imputed": self.imputed,
            "threshold": self.file.threshold,
            "labels": [asdict(label) for label in self.file.labels],
            "out": str(self.file.path),
            "warnings": self.warnings,
        }


def calibrate_table(
    path: Path,
    truth: Path,
    metric: Metric,
    out: Path,
    *,
    truth_options: TruthOptions = TruthOptions(),  # noqa: B008 (frozen)
    folds: int = 5,
    seed: int = 0,
    offsets: Mapping[str, float] | None = None,
) -> Calibration:
    """Choose thresholds for a label table by a truth, and write them to `out`.

    `offsets` are logits by label that may be known beforehand (`as_file.of_offsets`); used where they help.

    Raises UsageError where the table has no probabilities, the truth has too few images, or judges nothing absent.
    """
    check_thresholds_path(out)
    table = open_table(path)
    table_questions(table)  # before the work
    entries = read_entries(table)
    human = load_truth(truth, truth_options, TableContext(entries.ids, table.info.vocabulary))
    by_model = entries_for(table, human_only=truth_options.human_only)
    comparison = compare(by_model, table.info.vocabulary, human)
    _check_enough(comparison, metric, folds)
    summary, imputed, selection = TruthSummary.of(truth, human, comparison), 0, ""
    if truth_options.human_only:
        selection = check_selection(comparison)
        comparison, imputed = _with_all_pairs(comparison, by_model, table.info.vocabulary, human, seed)
    compared = comparison.entries
    known = compared.probabilities[decided(compared)]
    grid = grid_of(known, len(compared.names), table.info.plan.get("threshold", 0.5))
    fold = np.random.default_rng(seed).permutation(len(compared.ids)) % folds
    counts = count(comparison, fold, grid)
    shifts = None if offsets is None else np.array([offsets.get(name, 0.0) for name in compared.names])
    found = cross_fit(counts, metric, seed, shifts)
    held = held_out(comparison, is_predicted(comparison, grid, found.held_out, fold), seed)
    totals = [metric.overall(held.tp[side], held.fp[side], held.support) for side in (0, 1)]
    refused = not totals[1] > totals[0]
    measured: dict[str, Any] = {"truth": str(truth), "images": len(compared.ids), "folds": folds, "seed": seed}
    if offsets is not None:
        measured["bias"] = "used" if found.chosen.with_offsets and not refused else "no better on held-out images"
    for side, figures in (("before", held.before), ("after", held.after)):
        measured[side] = {name: str(each) for name, each in figures.items()}
    file = as_file(table, out, metric, comparison, grid, None if refused else found.chosen, measured)
    write_thresholds(file)
    ceiling = None if truth_options.human_only else float(counts.present.sum() / counts.support.sum())
    pairs = _pairs(entries, file)
    found_on = (len(compared.ids), ceiling, refused, imputed, selection)
    return Calibration(path, metric, summary, file, held, compared.names, pairs, *found_on)


def _with_all_pairs(
    judged: Comparison, entries: Entries, vocabulary: Vocabulary, truth: Truth, seed: int
) -> tuple[Comparison, int]:
    """Return the comparison of all images with pairs that nobody judged imputed, and how many these are."""
    whole = compare(entries, vocabulary, of_all_images(truth, judged.images))
    filled = with_imputed(whole, seed)
    return filled, len(filled.judgments.cells) - len(whole.judgments.cells)


def _check_enough(comparison: Comparison, metric: Metric, folds: int) -> None:
    images, labels = len(comparison.entries.ids), len(comparison.entries.names)
    if images < max(MIN_IMAGES, folds):
        raise UsageError(
            f"the truth judges {images:,} images of the table, and thresholds need at least {max(MIN_IMAGES, folds)}",
            "Judge more images; some hundreds give most labels a threshold of their own.",
        )
    if not comparison.judgments.count(PRESENT, images, labels).any():
        raise UsageError("the truth has no label in any image of the table", "Check that it is the right truth.")
    if metric.kind != "recall" and not comparison.judgments.count(ABSENT, images, labels).any():
        raise UsageError(
            f"the truth judges no label absent: {metric} cannot be measured",
            "Write 0 where a label is absent, or choose --metric recall=R.",
        )


def _pairs(entries: Entries, file: ThresholdFile) -> Pairs:
    """Count the whole table's labels as it has them and as the file decides them."""
    limits = file.limits()
    thresholds = np.array([limits.of(name) for name in entries.names], np.float32)
    by_model = (entries.flags & HUMAN) == 0
    with np.errstate(invalid="ignore"):
        after = by_model & decided(entries) & (entries.probabilities > thresholds[entries.labels])
    before, undecided = (by_model & ((entries.flags & flag) > 0) for flag in (PREDICTED, UNDECIDED))
    return Pairs(*(int(np.count_nonzero(each)) for each in (before, after, undecided)))
