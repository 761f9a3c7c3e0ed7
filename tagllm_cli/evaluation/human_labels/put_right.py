"""The table brought up to what people decided, without a model and without the images.

The decisions are committed first, then the table takes its place. Killed in between, the evidence holds them and the
table does not: the next run, or the next import, makes these rows anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.errors import TableError
from tagllm_cli.labeling.human import HUMAN, HumanOverlay
from tagllm_cli.labeling.row_counts import RowCounts
from tagllm_cli.records import Decision, LabelEntry, Row
from tagllm_cli.store.atomic import file_state, replacing
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.store.schema import table_schema
from tagllm_cli.store.table import Table, write_file

Report = Callable[[str, int, int], None]  # what is done now, and how much of how much

_BATCH = 8192


@dataclass(slots=True)
class Changes:
    """What decisions change in a table.

    `rows` that differ; pairs of image and label that became yes (`added`), are yes no more (`removed`), became unknown
    or no otherwise (`settled`), are what the model said and a person says too (`confirmed`), or are the model's again
    (`released`).
    """

    rows: int = 0
    pairs: Counter[str] = field(default_factory=Counter)
    counts: RowCounts = field(default_factory=RowCounts)  # what the rows add to those of the table

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

    def to_json(self) -> dict[str, int]:
        """Return the counts by name."""
        return {"rows": self.rows, **{kind: self.pairs[kind] for kind in KINDS}}


KINDS = ("added", "removed", "settled", "confirmed", "released")


def _kind(old: LabelEntry | None, new: LabelEntry | None) -> str | None:
    before, after = (Decision.NO if each is None else each.decision for each in (old, new))
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


def changes_in(table: Table, evidence: Evidence, fingerprints: Collection[bytes], report: Report) -> Changes:
    """Return what the decisions that are recorded, committed or not, change in the rows with these fingerprints."""
    changes = Changes()
    if not fingerprints:
        return changes
    known = pa.array(fingerprints, pa.binary())
    pieces = (piece.filter(pc.is_in(piece["fingerprint"], value_set=known)) for piece in _pieces(table, report))
    overlaid = HumanOverlay(table.info).tables(pieces, fingerprints, evidence.decided, changes.add)
    for _ in overlaid:
        pass
    return changes


class TableState:
    """How the table and its evidence stand to each other before anything is recorded."""

    def __init__(self, table: Table, evidence: Evidence) -> None:
        self._table, self._evidence = table, evidence
        self._file = file_state(table.path)
        self._known: dict[str, Any] = evidence.meta("table", derived=True) or {}
        self._is_comparable = self._known.get("file") == self._file
        self.is_up_to_date = self._is_comparable and self._known["revision"] == evidence.revision

    def put_right(self, fingerprints: Collection[bytes], report: Report) -> Changes:
        """Commit what is recorded and write the table with it, in one rename; where no row is concerned, no write.

        `fingerprints` are those in the table that new decisions are about; where the table was not up to date, all
        that people ever decided anything about are looked at.
        """
        evidence, table = self._evidence, self._table
        evidence.commit()
        changes = Changes()
        if not self.is_up_to_date:
            fingerprints = evidence.decided_fingerprints()
            if not changes_in(table, evidence, fingerprints, report).rows:
                fingerprints = ()
        if fingerprints:
            overlay = HumanOverlay(table.info)
            rows = overlay.tables(_pieces(table, report), fingerprints, evidence.decided, changes.add)
            with replacing(table.path, TableError) as new:
                write_file(new, table.info, rows)
        self._remember(changes)
        return changes

    def _remember(self, changes: Changes) -> None:
        """Say in the evidence that the new file is what the old one was, but for the decisions."""
        evidence, after = self._evidence, file_state(self._table.path)
        if self._is_comparable:
            counts = {key: value + self._known["counts"].get(key, 0) for key, value in changes.counts.to_json().items()}
            revision = evidence.revision if self.is_up_to_date else self._known["revision"]
            evidence.set_meta(
                "table", {**self._known, "revision": revision, "file": after, "counts": counts}, revises=False
            )
        merged = evidence.meta("merged", derived=True)
        if merged is not None and merged.get("table") == self._file:
            evidence.set_meta("merged", {**merged, "table": after}, revises=False)
        evidence.commit()


def _pieces(table: Table, report: Report) -> Iterator[pa.Table]:
    done, schema = 0, table_schema()
    for batch in table.batches(_BATCH):
        yield pa.Table.from_batches([batch]).cast(schema)
        done += len(batch)
        report("rows", done, len(table))
