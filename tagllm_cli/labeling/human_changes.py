"""What decisions of people change in the rows of a table, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tagllm_cli.labeling.row_counts import RowCounts
from tagllm_cli.records import Decision, LabelEntry, Row

HUMAN = "human"
IN_DOUBT = 0.0  # the mass of an entry that the model left in doubt without an answer, once a person decided
KINDS = ("added", "removed", "settled", "confirmed", "released")

# Codes of what a table says about a pair: not listed (which is no), listed without a decision (a candidate), decided.
NOT_LISTED, PROPOSED, NO, YES, UNKNOWN = -1, 0, 1, 2, 3
CODES = {None: PROPOSED, Decision.NO: NO, Decision.YES: YES, Decision.UNKNOWN: UNKNOWN}

Codes = npt.NDArray[np.int8]


@dataclass(slots=True)
class Changes:
    """What decisions change in a table.

    `rows` that differ; pairs of image and label that became yes (`added`), are yes no more (`removed`), became unknown
    or no otherwise (`settled`), are what the model said and a person says too (`confirmed`), or are the model's again
    (`released`). A candidate counts as a yes. `counts`: what the rows add to those of the table.
    """

    rows: int = 0
    pairs: Counter[str] = field(default_factory=Counter)
    counts: RowCounts = field(default_factory=RowCounts)

    def add(self, before: Row, after: Row) -> None:
        """Take in a row as it was and as it is."""
        if before == after:
            return
        self.rows += 1
        self.counts.add(before, times=-1)
        self.counts.add(after)
        old = {entry.name: entry for entry in before.labels or ()}
        new = {entry.name: entry for entry in after.labels or ()}
        for name in old.keys() | new.keys():
            if kind := _kind(old.get(name), new.get(name)):
                self.pairs[kind] += 1

    def add_pairs(self, rows: int, before: Codes, after: Codes) -> None:
        """Take in rows that nobody had decided about before: of their decided pairs, what was said and what is."""
        was_yes, is_yes = (before == PROPOSED) | (before == YES), after == YES
        said = np.where(was_yes, YES, np.where(before == NOT_LISTED, NO, before))
        self.rows += rows
        self.counts.labels += int(is_yes.sum()) - int(was_yes.sum())
        self.counts.unknown += int((after == UNKNOWN).sum()) - int((before == UNKNOWN).sum())
        differs = said != after
        found = {
            "added": differs & is_yes,
            "removed": differs & was_yes,
            "settled": differs & ~is_yes & ~was_yes,
            "confirmed": ~differs,
        }
        self.pairs.update({kind: count for kind, marks in found.items() if (count := int(marks.sum()))})

    def to_json(self) -> dict[str, int]:
        """Return the counts by name."""
        return {"rows": self.rows, **{kind: self.pairs[kind] for kind in KINDS}}


def _kind(old: LabelEntry | None, new: LabelEntry | None) -> str | None:
    before, after = (Decision.NO if each is None else each.decision or Decision.YES for each in (old, new))
    is_human, was_human = (each is not None and each.source == HUMAN for each in (new, old))
    if not (is_human or was_human):
        return None
    if before != after:
        if after is Decision.YES:
            return "added"
        return "removed" if before is Decision.YES else "settled"
    if is_human == was_human:
        return None
    return "confirmed" if is_human else "released"
