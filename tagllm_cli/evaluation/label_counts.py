"""Rows by status and labels by name, counted without making Python objects of a table's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.labeling.human import HUMAN
from tagllm_cli.records import Decision, Status
from tagllm_cli.store.damage import damage_as_table_error
from tagllm_cli.store.table import Table

_ROWS = 8192


@dataclass(slots=True)
class TableCounts:
    """What a table holds. `labels` are candidates, or decisions `yes`, by name; labels that never occur are missing.

    `no` and `unknown` are decisions, `human` all those of people, `unmatched` answers that map to no label.
    """

    rows: Counter[Status] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    no: int = 0
    unknown: int = 0
    human: int = 0
    unmatched: int = 0

    @property
    def labeled(self) -> int:
        """The images about which something is known."""
        return self.rows[Status.OK] + self.rows[Status.PARTIAL]


def count_table(table: Table) -> TableCounts:
    """Count what a table holds; reads two and a half of its columns. Raises TableError where it is damaged."""
    counts = TableCounts()
    for batch in table.batches(_ROWS, ["status", "labels", "unmatched"]):
        with damage_as_table_error(table.path):
            counts.rows.update({Status(name): count for name, count in _values(batch["status"])})
        entries = pc.list_flatten(batch["labels"])
        names, decisions = (pc.struct_field(entries, name) for name in ("name", "decision"))
        counts.no += pc.sum(pc.equal(decisions, Decision.NO.value)).as_py() or 0
        counts.unknown += pc.sum(pc.equal(decisions, Decision.UNKNOWN.value)).as_py() or 0
        sources = pc.struct_field(entries, "source")
        counts.human += pc.sum(pc.equal(sources, HUMAN)).as_py() or 0
        taken = names.filter(pc.is_in(decisions, pa.array([None, Decision.YES.value], pa.string())))
        counts.labels.update(dict(_values(taken)))
        counts.unmatched += pc.sum(pc.list_value_length(batch["unmatched"])).as_py() or 0
    return counts


def _values(column: pa.Array) -> Iterator[tuple[str, int]]:
    for each in pc.value_counts(column).to_pylist():
        yield each["values"], each["counts"]
