"""What a report is about: a table, what a truth says about its cells, and which labels other tables give them.

A cell is a pair of image and label, numbered row times labels plus label by the table's own rows and vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.entries import (
    NOT_JUDGED,
    PREDICTED,
    PRESENT,
    Array,
    Comparison,
    Entries,
    Judgments,
    compare,
    places,
    read_entries,
)
from tagllm_cli.evaluation.model_entries import read_model_entries
from tagllm_cli.evaluation.noise import find_suspects
from tagllm_cli.evaluation.suspects import Suspects
from tagllm_cli.evaluation.truth.base import TableContext, Truth, TruthOptions
from tagllm_cli.evaluation.truth.label_sets import sorted_set
from tagllm_cli.evaluation.truth.registry import load_truth
from tagllm_cli.evaluation.truth_summary import TruthSummary
from tagllm_cli.records import Status
from tagllm_cli.store.table import Table, open_table

DEFAULT_THRESHOLD = 0.5
SUSPECTS = 50  # pairs of image and label in the list


@dataclass(frozen=True, slots=True)
class JudgedCells:
    """A comparison in the numbers of the whole table. `row_of` and `label_of` are where the comparison has them.

    Both are int64, [images] and [labels] of the table; -1 where the comparison leaves one out. `suspects` are the
    disagreements of table and truth, in the numbers of the comparison.
    """

    comparison: Comparison
    truth: TruthSummary
    suspects: Suspects
    row_of: Array
    label_of: Array

    def of(self, rows: Array, labels: Array) -> Array:
        """Return the judgment of each pair, int8: PRESENT, ABSENT or NOT_JUDGED."""
        own_rows, own_labels = self.row_of[rows], self.label_of[labels]
        known = (own_rows >= 0) & (own_labels >= 0)
        cells = own_rows * len(self.comparison.entries.names) + own_labels
        return np.where(known, self.comparison.judgments.of(cells), np.int8(NOT_JUDGED))

    def present(self) -> tuple[Array, Array]:
        """Return rows and labels, int64, of all cells that the truth says are present."""
        judgments, width = self.comparison.judgments, len(self.comparison.entries.names)
        cells = _listed(judgments, PRESENT)
        return self._numbered(cells // width, cells % width)

    def disputed(self) -> tuple[Array, Array]:
        """Return rows and labels, int64, of the disagreements, in the order of `suspects`."""
        return self._numbered(self.suspects.rows, self.suspects.labels)

    def _numbered(self, rows: Array, labels: Array) -> tuple[Array, Array]:
        return np.flatnonzero(self.row_of >= 0)[rows], np.flatnonzero(self.label_of >= 0)[labels]


@dataclass(frozen=True, slots=True)
class OtherTable:
    """Another table of the same images: the cells to which it gives a label, int64, sorted; `covers` [images].

    `covers` tells which images it has answered about, `knows` [labels] which labels it can give. `comparison` is that
    with the truth, None without one.
    """

    path: Path
    name: str
    cells: Array
    covers: Array
    knows: Array
    comparison: Comparison | None


@dataclass(frozen=True, slots=True)
class Subject:
    """A table with all that the report compares it with. `entries` are sorted by row."""

    table: Table
    entries: Entries
    judged: JudgedCells | None
    others: Sequence[OtherTable]

    @property
    def thresholds(self) -> Array:
        """The probability above which the table says yes, of each label, float64 [labels], as its plan has it."""
        return thresholds_of(self.table)

    @property
    def answered(self) -> Array:
        """The rows about whose images something is known, int64."""
        return answered_rows(self.entries)


def thresholds_of(table: Table) -> Array:
    """Return the probability above which a table says yes, of each label, float64 [labels], as its plan has it."""
    plan = table.info.plan
    common, own = float(plan.get("threshold", DEFAULT_THRESHOLD)), plan.get("label_thresholds") or {}
    return np.array([own.get(name, common) for name in table.info.vocabulary.names], np.float64)


def answered_rows(entries: Entries) -> Array:
    """Return the rows that are `ok` or `partial`, int64."""
    known = (Status.OK, Status.PARTIAL)
    return np.flatnonzero(np.fromiter((each in known for each in entries.statuses), bool, len(entries.statuses)))


def read_subject(
    path: Path,
    truth: Path | None,
    others: Sequence[Path],
    truth_options: TruthOptions = TruthOptions(),  # noqa: B008 (frozen)
    *,
    include_human: bool = False,
) -> Subject:
    """Read a table, a truth and other tables. Raises UsageError where they have nothing in common."""
    table = open_table(path)
    entries = read_entries(table)
    judged, human, alone = None, None, truth_options.human_only
    if truth is not None:
        vocabulary = table.info.vocabulary
        human = load_truth(truth, truth_options, TableContext(entries.ids, vocabulary))
        compared = read_model_entries(table) if alone else entries
        comparison = compare(compared, vocabulary, human, stage=table.info.stage, include_human=include_human)
        judged = JudgedCells(
            comparison,
            TruthSummary.of(truth, human, comparison),
            find_suspects(comparison, vocabulary, SUSPECTS),
            places(entries.ids, comparison.entries.ids),
            places(entries.names, comparison.entries.names),
        )
    names = _told_apart(others)
    read = [_other(each, name, entries, human, include_human, alone) for each, name in zip(others, names, strict=True)]
    return Subject(table, entries, judged, read)


def _other(
    path: Path, name: str, entries: Entries, truth: Truth | None, include_human: bool, alone: bool
) -> OtherTable:
    table = open_table(path)
    theirs, info = read_entries(table), table.info
    rows, labels = places(theirs.ids, entries.ids), places(theirs.names, entries.names)
    covers = np.zeros(len(entries.ids), bool)
    answered = rows[answered_rows(theirs)]
    covers[answered[answered >= 0]] = True
    if not covers.any():
        raise UsageError(f"{path} has no image of the table with an answer", "Compare tables of the same images.")
    knows = np.zeros(len(entries.names), bool)
    knows[labels[labels >= 0]] = True
    said = (theirs.flags & PREDICTED) > 0
    own_rows, own_labels = rows[theirs.rows[said]], labels[theirs.labels[said]]
    kept = (own_rows >= 0) & (own_labels >= 0)
    cells = own_rows[kept] * len(entries.names) + own_labels[kept]
    found = None
    if truth is not None:
        compared = read_model_entries(table) if alone else theirs
        found = compare(compared, info.vocabulary, truth, stage=info.stage, include_human=include_human)
    return OtherTable(path, name, sorted_set(cells), covers, knows, found)


def _listed(judgments: Judgments, value: int) -> Array:
    return np.asarray(judgments.cells[judgments.values == value])


def _told_apart(paths: Sequence[Path]) -> list[str]:
    """Return the names of files, with their folders where two have the same name."""
    names = [path.name for path in paths]
    return [path.name if names.count(path.name) == 1 else str(path) for path in paths]
