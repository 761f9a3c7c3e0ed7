"""The table brought up to what people decided, without a model and without the images.

The decisions are committed first, then the table takes its place. Killed in between, the evidence holds them and the
table does not: the next run, or the next import, makes these rows anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from tagllm_cli.errors import TableError
from tagllm_cli.labeling.human import HumanOverlay
from tagllm_cli.labeling.human_changes import Changes
from tagllm_cli.records import Decision
from tagllm_cli.store.atomic import file_state, replacing
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.store.human_labels import in_force
from tagllm_cli.store.schema import table_schema
from tagllm_cli.store.table import Table, write_file

Report = Callable[[str, int, int], None]  # what is done now, and how much of how much

_BATCH = 8192
_FEW = 500  # images whose decisions are looked up one by one


def changes_in(table: Table, evidence: Evidence, fingerprints: Collection[bytes], report: Report) -> Changes:
    """Return what the decisions that are recorded, committed or not, change in the rows with these fingerprints."""
    changes = Changes()
    if not fingerprints:
        return changes
    overlay = HumanOverlay(table.info)
    for _ in overlay.tables(_pieces(table, report), fingerprints, _decided(evidence, fingerprints), changes):
        pass
    return changes


def _decided(evidence: Evidence, fingerprints: Collection[bytes]) -> Callable[[bytes], Mapping[str, Decision]]:
    """Return what tells the decisions about an image; of many images they are read at once."""
    if len(fingerprints) < _FEW:
        return evidence.human.in_force
    found = {some[0].fingerprint: in_force(some) for some in evidence.human}
    return lambda fingerprint: found.get(fingerprint, {})


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
            fingerprints = evidence.human.fingerprints()
            if not changes_in(table, evidence, fingerprints, report).rows:
                fingerprints = ()
        if fingerprints:
            overlay = HumanOverlay(table.info)
            rows = overlay.tables(_pieces(table, report), fingerprints, _decided(evidence, fingerprints), changes)
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
    """Yield the rows; the next ones are read while the last ones are written."""
    done, schema, batches = 0, table_schema(), table.batches(_BATCH)
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(next, batches, None)
        while (batch := waiting.result()) is not None:
            waiting = reader.submit(next, batches, None)
            yield pa.Table.from_batches([batch]).cast(schema)
            done += len(batch)
            report("rows", done, len(table))
