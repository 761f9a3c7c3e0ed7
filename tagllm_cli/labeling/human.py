"""What people decided wins over what the model says; what the model alone said can be told from the table.

Of a human entry only `decision` and `source` are the person's: probability, mass, score, arms and groups stay the
model's. An entry that no model proposed has the score 1 (yes) or 0. One that the model left in doubt, without an
answer to show for it, gets the mass 0: it tells such an entry from one that no model listed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.labeling.answers.parse_yes_no import as_stored, is_yes
from tagllm_cli.labeling.human_changes import HUMAN, IN_DOUBT, Changes
from tagllm_cli.labeling.human_columns import fits, overlaid
from tagllm_cli.labeling.thresholds import Thresholds
from tagllm_cli.records import Decision, LabelEntry, Row, Status
from tagllm_cli.store.row_records import row_from_record
from tagllm_cli.store.table import Table, TableInfo, arrow_tables

_ROWS = 8192


class HumanOverlay:
    """Puts what people decided over the rows of one table; made anew for each table."""

    def __init__(self, info: TableInfo) -> None:
        plan = info.plan
        self._position = {name: index for index, name in enumerate(info.vocabulary.names)}
        self._is_label_table = info.stage == "labels"
        self._min_votes = plan.get("min_votes", 1)
        self._thresholds = thresholds_of(info)

    def row(self, row: Row, decisions: Mapping[str, Decision]) -> Row:
        """Return a row with these decisions and no others; what is not in the vocabulary is left out.

        An image without answers (failed, pending) keeps its status and error: its labels are what people decided, and
        all others are unknown.
        """
        said = self.model_row(row)
        known = {name: decision for name, decision in decisions.items() if name in self._position}
        if not known:
            return said
        if said.labels is None:
            entries = {name: LabelEntry(name, Decision.UNKNOWN) for name in self._position}
        else:
            entries = {entry.name: entry for entry in said.labels}
        for name, decision in known.items():
            own = entries.get(name)
            if own is None or said.labels is None:
                own = LabelEntry(name, score=float(decision is Decision.YES))
            elif not _has_trace(own):
                own = replace(own, mass=IN_DOUBT)
            entries[name] = replace(own, decision=decision, source=HUMAN)
        return replace(said, labels=tuple(sorted(entries.values(), key=lambda entry: self._position[entry.name])))

    def model_row(self, row: Row) -> Row:
        """Return what the model alone said about an image."""
        if row.labels is None or not any(entry.source == HUMAN for entry in row.labels):
            return row
        if row.status in (Status.FAILED, Status.PENDING):
            return replace(row, labels=None)
        views = [self.model_entry(entry) for entry in row.labels]
        return replace(row, labels=tuple(entry for entry in views if entry is not None))

    def model_entry(self, entry: LabelEntry) -> LabelEntry | None:
        """Return what the model alone said about a label, None where it did not list it."""
        if entry.source != HUMAN:
            return entry
        if not _has_trace(entry):
            return None
        if entry.mass == IN_DOUBT and entry.probability is None and not entry.arms:
            entry = replace(entry, mass=None)
        return replace(entry, decision=self._decide(entry), source="model")

    def _decide(self, entry: LabelEntry) -> Decision | None:
        if self._is_label_table:
            if entry.probability is None:
                return Decision.UNKNOWN
            limit = as_stored(self._thresholds.of(entry.name))
            return Decision.YES if is_yes(entry.probability, limit) else Decision.NO
        if entry.arms:
            return None if len(entry.arms) >= self._min_votes else Decision.UNKNOWN
        return Decision.UNKNOWN if entry.probability is None else Decision.NO

    def tables(
        self,
        pieces: Iterable[pa.Table],
        fingerprints: Collection[bytes],
        decided: Callable[[bytes], Mapping[str, Decision]],
        changes: Changes | None = None,
    ) -> Iterator[pa.Table]:
        """Yield Arrow tables of our schema with the decisions about their images; only such rows are looked into.

        `fingerprints` are those of all images that people ever decided anything about. What differs is counted into
        `changes`.
        """
        changes = Changes() if changes is None else changes
        known = fingerprints if isinstance(fingerprints, (set, frozenset)) else set(fingerprints)
        for piece in pieces:
            marks = np.array([each in known for each in piece["fingerprint"].to_pylist()], bool)
            if not marks.any():
                yield piece
                continue
            concerned = piece.filter(pa.array(marks))
            as_columns = fits(concerned)
            many, few = (concerned.filter(pa.array(which)) for which in (as_columns, ~as_columns))
            said = [decided(each) for each in many["fingerprint"].to_pylist()]
            parts = [
                piece.filter(pa.array(~marks)),
                overlaid(many, said, self._position, changes),
                *arrow_tables(self._changed(each, decided, changes) for each in few.to_pylist()),
            ]
            places = np.flatnonzero(marks)
            order = np.concatenate([np.flatnonzero(~marks), places[as_columns], places[~as_columns]])
            yield pa.concat_tables(parts).combine_chunks().take(pa.array(np.argsort(order)))

    def _changed(
        self, record: Mapping[str, Any], decided: Callable[[bytes], Mapping[str, Decision]], changes: Changes
    ) -> Row:
        before = row_from_record(record)
        after = self.row(before, decided(before.fingerprint))
        changes.add(before, after)
        return after


def shows_decisions(table: Table) -> bool:
    """Tell whether a person decided anything in a table."""
    for batch in table.batches(_ROWS, ["labels.list.element.source"]):
        sources = pc.struct_field(pc.list_flatten(batch["labels"]), "source")
        if pc.any(pc.equal(sources, HUMAN)).as_py():
            return True
    return False


def _has_trace(entry: LabelEntry) -> bool:
    return entry.probability is not None or entry.mass is not None or bool(entry.arms)


def thresholds_of(info: TableInfo) -> Thresholds:
    """Return what decided in a table."""
    plan = info.plan
    default = Thresholds()
    return Thresholds(
        plan.get("threshold", default.threshold),
        plan.get("min_mass", default.min_mass),
        plan.get("label_thresholds") or {},
    )
