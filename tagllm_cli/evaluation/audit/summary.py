"""What `tagllm evaluate --audit` prints: a table measured by the answers of an audit, as text and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.audit import answers as answer_files
from tagllm_cli.evaluation.audit.answers import read_answers
from tagllm_cli.evaluation.audit.current import BY_PEOPLE, GONE, current_pairs
from tagllm_cli.evaluation.audit.design import load_design
from tagllm_cli.evaluation.audit.estimate import Estimate, LabelEstimate, estimate_all, estimate_labels, points
from tagllm_cli.evaluation.audit.shares import PREDICTED, Answered
from tagllm_cli.evaluation.entries import Array
from tagllm_cli.evaluation.sections import Cells

_NAMES = {"op": "OP (precision)", "or": "OR (recall)", "of1": "OF1", "cp": "CP", "cr": "CR", "cf1": "CF1"}
_MEAN_TRUE = "labels per image"


@dataclass(frozen=True, slots=True)
class AuditEvaluation:
    """A table measured by an audit. `figures` are `op`, `or`, `of1`, `cp`, `cr`, `cf1` and `mean_true` (per image).

    `bounds` of a figure are its lowest and highest estimate whatever the unsure pairs are. Of the audit's `pairs`,
    `yes`, `no` and `unsure` were answered and used; `gone` are answers about images or labels that the table no longer
    has, `human` about pairs that people have decided since.
    """

    table: Path
    audit: Path
    stage: str
    images: int
    pairs: int
    yes: int
    no: int
    unsure: int
    gone: int
    human: int
    figures: dict[str, Estimate]
    bounds: dict[str, tuple[float, float]]
    labels: tuple[LabelEstimate, ...]
    warnings: tuple[str, ...]

    @property
    def title(self) -> str:
        """What was measured, in a line."""
        return (
            f"{self.table}: {self.stage} of {self.images:,} images, estimated from {self.yes + self.no:,} answers "
            f"({self.yes:,} yes, {self.no:,} no) about {self.pairs:,} pairs of {self.audit}"
        )

    @property
    def notes(self) -> list[str]:
        """What the figures rest on, a line each."""
        lines = []
        open_ = self.pairs - self.yes - self.no - self.unsure - self.gone - self.human
        if open_:
            lines.append(f"pairs that are not answered, taken for missing at random: {open_:,} of {self.pairs:,}")
        if self.unsure:
            lines.append(
                f"pairs answered with unsure, left out; `if unsure` bounds what they could change: {self.unsure:,}"
            )
        lacking = sum(each.recall.value is None for each in self.labels)
        if lacking:
            lines.append(f"labels with too few answers for a recall, so that CR and CF1 are missing: {lacking:,}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "table": str(self.table),
            "audit": str(self.audit),
            "stage": self.stage,
            "images": self.images,
            **{name: getattr(self, name) for name in ("pairs", "yes", "no", "unsure", "gone", "human")},
            **{
                name: {**each.to_json(), "if_unsure": [round(bound, 6) for bound in self.bounds.get(name, ())]}
                for name, each in self.figures.items()
            },
            "labels": [
                {
                    "name": each.name,
                    "prevalence": each.prevalence.to_json(),
                    "precision": each.precision.to_json(),
                    "recall": each.recall.to_json(),
                    "predicted": each.predicted,
                    "answered": each.answered,
                    "present": each.present,
                }
                for each in self.labels
            ],
            "warnings": list(self.warnings),
        }

    def overall(self) -> Cells:
        """Return the overall figures as (column names, rows)."""
        rows = []
        for name, each in self.figures.items():
            digits = 2 if name == "mean_true" else 3
            bounds = self.bounds.get(name)
            row = [
                _NAMES.get(name, _MEAN_TRUE),
                *(_number(each_, digits) for each_ in (each.value, each.low, each.high)),
            ]
            if self.unsure:
                row.append("-" if bounds is None else f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}")
            rows.append((*row, "-" if each.more_answers is None else f"{each.more_answers:,}"))
        columns = ["", "estimate", "95% from", "to", *["if unsure"] * bool(self.unsure), "more answers to halve it"]
        return columns, rows

    def per_label(self) -> Cells:
        """Return every label's figures as (column names, rows), the most frequent first."""
        ordered = sorted(self.labels, key=lambda each: (each.prevalence.value is None, -(each.prevalence.value or 0)))
        rows = [
            (
                *(each.name, _percent(each.prevalence), *_span(each.prevalence, 100, "%")),
                *(_number(each.precision.value, 2), *_span(each.precision)),
                *(_number(each.recall.value, 2), *_span(each.recall)),
                *(f"{each.predicted:,}", f"{each.answered:,}"),
            )
            for each in ordered
        ]
        columns = ("label", "prevalence", "95%", "precision", "95%", "recall", "95%", "predicted", "answers")
        return columns, rows

    def tables(self) -> Sequence[tuple[str, Cells]]:
        """Return titles with (column names, rows): overall, then each label."""
        return (self.title, self.overall()), ("each label, the most frequent first", self.per_label())


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(found: Estimate) -> str:
    return "-" if found.value is None else f"{found.value:.2%}"


def _span(found: Estimate, times: float = 1, unit: str = "") -> tuple[str]:
    if found.low is None or found.high is None:
        return ("-",)
    return (f"{found.low * times:.2f} to {found.high * times:.2f}{unit}",)


def evaluate_audit(table: Path, audit: Path) -> AuditEvaluation:
    """Measure a table on disk by the answers of an audit: its CSV, or the folder that holds it.

    Raises UsageError for files that cannot be used, and where the table has none of the audit's images or labels.
    """
    path = audit / answer_files.FILE if audit.is_dir() else audit
    if not path.exists():
        raise UsageError(f"there is no file {path}", "Name the CSV with the answers; `tagllm audit` draws the pairs.")
    design = load_design(path.parent)
    now = current_pairs(table, design)
    answers = read_answers(path, design)
    given = [answers.given.get(pair.id, ...) for pair in design.pairs]
    marks = _Marks(*(np.array([each is value for each in given]) for value in (True, False, None)))
    probabilities = np.array([pair.probability for pair in design.pairs])

    def answered(yes: Array, no: Array) -> Answered:
        used = (yes | no) & (now.groups >= 0)
        return Answered(now.labels[used], now.groups[used], yes[used], probabilities[used])

    found, totals, width = answered(marks.yes, marks.no), now.sizes.sum(axis=0), len(now.names)
    labels, means = estimate_labels(found, now.sizes, now.names)
    figures = _figures(estimate_all(found, totals), means, width)
    usable = now.groups >= 0
    done = marks.yes | marks.no | marks.unsure
    gone, by_people = (int((done & (now.groups == each)).sum()) for each in (GONE, BY_PEOPLE))
    return AuditEvaluation(
        table=table,
        audit=path,
        stage=design.table.stage,
        images=now.images,
        pairs=len(design.pairs),
        yes=int((marks.yes & usable).sum()),
        no=int((marks.no & usable).sum()),
        unsure=int((marks.unsure & usable).sum()),
        gone=gone,
        human=by_people,
        figures=figures,
        bounds=_around(figures, _bounds(answered, marks, now.groups, totals, width)),
        labels=tuple(labels),
        warnings=(*answers.warnings, *now.warnings, *_left_out(gone, by_people)),
    )


@dataclass(frozen=True, slots=True)
class _Marks:
    """Which pairs were answered with what, bool [pairs]."""

    yes: Array
    no: Array
    unsure: Array


def _bounds(
    answered: Callable[[Array, Array], Answered], marks: _Marks, groups: Array, totals: Array, width: int
) -> dict[str, tuple[float, float]]:
    """Return the lowest and the highest estimate of each figure over what the unsure pairs may be."""
    if not marks.unsure.any():
        return {}
    said, unsure = groups == PREDICTED, marks.unsure
    # Precision, recall and F1 are worst where what is predicted is wrong and what is not predicted is there.
    present = {"worst": unsure & ~said, "best": unsure & said, "least": unsure & False, "most": unsure}
    found = {
        name: points(answered(marks.yes | there, marks.no | (unsure & ~there)), totals)
        for name, there in present.items()
    }
    spans = {
        key: (found["worst"][name], found["best"][name])
        for key, name in (("op", "precision"), ("or", "recall"), ("of1", "f1"))
    }
    if (least := found["least"]["prevalence"]) is not None and (most := found["most"]["prevalence"]) is not None:
        spans["mean_true"] = (least * width, most * width)
    return {key: (low, high) for key, (low, high) in spans.items() if low is not None and high is not None}


def _around(
    figures: Mapping[str, Estimate], bounds: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Return bounds that hold the estimates: together with its unsure pairs, a group may come to stand alone."""
    found = {}
    for name, (low, high) in bounds.items():
        value = figures[name].value
        found[name] = (low, high) if value is None else (min(low, value), max(high, value))
    return found


def _figures(overall: Mapping[str, Estimate], means: Mapping[str, Estimate], labels: int) -> dict[str, Estimate]:
    share = overall["prevalence"]
    value, low, high = (None if each is None else each * labels for each in (share.value, share.low, share.high))
    per_image = replace(share, value=value, low=low, high=high)
    of_pairs = {"op": overall["precision"], "or": overall["recall"], "of1": overall["f1"]}
    return {**of_pairs, **means, "mean_true": per_image}


def _left_out(gone: int, by_people: int) -> list[str]:
    counted = {
        "answers about images or labels that the table no longer has, left out": gone,
        "answers about labels that people have decided since, left out": by_people,
    }
    return [f"{what}: {found:,}" for what, found in counted.items() if found]
