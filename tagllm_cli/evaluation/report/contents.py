"""What a report shows beside its gallery: figures, labels, curves and tables, as plain JSON and as rows of text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tagllm_cli.evaluation.entries import HUMAN, PREDICTED, UNDECIDED, Array
from tagllm_cli.evaluation.metrics import Evaluation
from tagllm_cli.evaluation.metrics.bootstrap import Intervals
from tagllm_cli.evaluation.report.curves import BINS, histogram, precision_recall
from tagllm_cli.evaluation.report.rows import TableRows
from tagllm_cli.evaluation.report.subject import Subject
from tagllm_cli.evaluation.sections import Cells
from tagllm_cli.evaluation.truth.label_sets import sorted_set

_MOST_ANSWERS = 40
_NUMBER = re.compile(r"-|[-+]?[\d,]+(\.\d+)?(e[-+]\d+)?[+%kMG]?")
_MOST_POINTS = 40_000  # of all curves together
FIGURES = {
    "op": ("OP", "precision: of all labels given, the share that is right"),
    "or": ("OR", "recall: of all labels in the truth, the share that was given"),
    "of1": ("OF1", "harmonic mean of OP and OR"),
    "cp": ("CP", "mean of the labels' precisions"),
    "cr": ("CR", "mean of the labels' recalls"),
    "cf1": ("CF1", "harmonic mean of CP and CR"),
    "map": ("mAP", "mean of the labels' average precisions"),
    "exact_match": ("exact match", "share of images without any error"),
}


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: an anchor, a title, a sentence on how to read it, and tables with titles."""

    id: str
    title: str
    note: str
    tables: Sequence[tuple[str, Cells]]


def numeric(cells: Cells) -> list[bool]:
    """Return which columns hold numbers only, or nothing."""
    columns, rows = cells
    return [all(_NUMBER.fullmatch(row[place]) for row in rows) for place in range(len(columns))]


@dataclass(frozen=True, slots=True)
class Figure:
    """One headline figure as text: its value, its interval (""; none), and what it means."""

    name: str
    value: str
    interval: str
    meaning: str


def figures(evaluation: Evaluation, intervals: Intervals) -> list[Figure]:
    """Return the headline figures with their 95% intervals."""
    values = evaluation.to_json()
    return [
        Figure(
            name, f"{values[key]:.3f}", f"{intervals.figures[key].low:.3f} to {intervals.figures[key].high:.3f}", said
        )
        for key, (name, said) in FIGURES.items()
    ]


def label_rows(
    subject: Subject, evaluation: Evaluation | None = None, intervals: Intervals | None = None
) -> list[dict[str, Any]]:
    """Return each label's counts in the table, and its figures where the truth judges it, by label number."""
    entries, labels = subject.entries, len(subject.entries.names)
    given, unknown = ((entries.flags & flag) > 0 for flag in (PREDICTED, UNDECIDED))
    said = {"yes": given, "unknown": unknown, "no": ~given & ~unknown, "human": (entries.flags & HUMAN) > 0}
    counts = {name: np.bincount(entries.labels[which], minlength=labels).tolist() for name, which in said.items()}
    scores = {each.name: each for each in evaluation.labels} if evaluation else {}
    found = []
    for number, name in enumerate(entries.names):
        row: dict[str, Any] = {"name": name, **{kind: counted[number] for kind, counted in counts.items()}}
        if each := scores.get(name):
            ratios = {"precision": each.precision, "recall": each.recall, "f1": each.f1, "ap": each.ap}
            row |= {key: None if value is None else round(value, 4) for key, value in ratios.items()}
            row |= {"support": each.support, "predicted": each.predicted}
            if intervals is not None:
                row["interval"] = intervals.label_f1[name].to_json()
        found.append(row)
    return found


def plots(subject: Subject) -> dict[str, Any]:
    """Return the curves and the histogram; curves only with a truth."""
    entries, judged = subject.entries, subject.judged
    said: Array | None = None
    curves = None
    if judged is not None:
        said = judged.of(entries.rows, entries.labels)
        labels = len(judged.comparison.entries.names)
        points = max(8, min(60, _MOST_POINTS // max(1, labels)))
        together, of_labels = precision_recall(judged.comparison.entries, judged.comparison.judgments, points)
        curves = {
            "all": together.to_json(),
            "labels": {name: curve.to_json() for name, curve in of_labels.items()},
        }
    return {"bins": BINS, "histogram": histogram(entries, said), "curves": curves}


def failures(rows: TableRows) -> Section | None:
    """Return what failed, by reason; None where nothing did."""
    if not rows.failures:
        return None
    listed = [(kind, f"{count:,}", rows.examples[kind]) for kind, count in rows.failures.most_common()]
    return Section(
        "failures",
        "Failures",
        "A failed image has no labels, which is not the same as having none; the same command asks again.",
        [("", (("reason", "images", "for example"), listed))],
    )


def unknown_answers(rows: TableRows) -> Section | None:
    """Return the answers that the vocabulary lacks, the frequent ones first; None without any."""
    if not rows.unmatched:
        return None
    most = rows.unmatched.most_common(_MOST_ANSWERS)
    rest = len(rows.unmatched) - len(most)
    more = f" {rest:,} more are rarer." if rest else ""
    return Section(
        "outside",
        "Outside the vocabulary",
        f"What the model named and no label stands for: a frequent one may be worth a label or a synonym.{more}",
        [("", (("answer", "images"), [(answer, f"{count:,}") for answer, count in most]))],
    )


def agreement(subject: Subject) -> Section | None:
    """Return how the labels of other tables differ, label by label; None without other tables.

    Counted are cells of images that both tables have answered, of labels that both know.
    """
    tables = []
    entries, width = subject.entries, len(subject.entries.names)
    own = sorted_set(entries.cells[(entries.flags & PREDICTED) > 0])
    answered = np.zeros(len(entries.ids), bool)
    answered[subject.answered] = True
    for other in subject.others:
        shared = answered & other.covers
        ours, theirs = (cells[shared[cells // width] & other.knows[cells % width]] for cells in (own, other.cells))
        both = np.intersect1d(ours, theirs, assume_unique=True)
        counts = [np.bincount(cells % width, minlength=width) for cells in (ours, theirs, both)]
        title = f"{other.name}: {int(shared.sum()):,} images in both, {_agreed(counts)}"
        tables.append((title, _by_label(entries.names, other.knows, counts)))
    note = "Labels on which the tables differ most come first; agreement is the share of labels given by both."
    return Section("agreement", "Beside other tables", note, tables) if tables else None


def _agreed(counts: Sequence[Array]) -> str:
    ours, theirs, both = (int(each.sum()) for each in counts)
    return f"{both / max(1, ours + theirs - both):.1%} of the labels given by either are given by both"


def _by_label(names: Sequence[str], knows: Array, counts: Sequence[Array]) -> Cells:
    ours, theirs, both = counts
    union = ours + theirs - both
    order = np.lexsort((np.arange(len(names)), -(union - both)))
    rows = [
        (
            *(names[label], f"{both[label]:,}", f"{ours[label] - both[label]:,}", f"{theirs[label] - both[label]:,}"),
            f"{both[label] / union[label]:.1%}",
        )
        for label in order.tolist()
        if union[label] and knows[label]
    ]
    return ("label", "both", "only here", "only there", "agreement"), rows


def suspects(subject: Subject) -> Section | None:
    """Return who is wrong where model and people disagree; None without a truth or a disagreement."""
    if subject.judged is None or not len(subject.judged.suspects):
        return None
    note = "By confident learning: how often people agree with such an answer elsewhere. A ranking, not a proof."
    tables = [table for table in subject.judged.suspects.tables() if table[1][1]]
    return Section("suspects", "Who is wrong", note, tables)


def cards_of(subject: Subject) -> dict[str, dict[str, Any]]:
    """Return the concept cards of the labels that have one, by name."""
    return {
        label.name: {"description": label.description, "similar": list(label.similar)}
        for label in subject.table.info.vocabulary.labels
        if label.description or label.similar
    }


def status_counts(subject: Subject) -> dict[str, int]:
    """Return the rows by status."""
    counted = Counter(subject.entries.statuses)
    return {status.value: count for status, count in sorted(counted.items(), key=lambda item: -item[1])}


def present(sections: Iterable[Section | None]) -> list[Section]:
    """Return the sections that there are."""
    return [section for section in sections if section is not None]
