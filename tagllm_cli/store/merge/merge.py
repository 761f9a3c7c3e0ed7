"""Tables of parts of a dataset become one: `merge_tables`.

    parts (read only) -> index of rows -> evidence of OUT (one transaction) -> table of OUT -> commit, rename

A merge that is killed leaves OUT as it was, or with the evidence of the parts and its old table; the same merge again
comes to the same end. What was merged is on record, so that only parts that are new or have changed are read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from tagllm_cli.errors import TableError
from tagllm_cli.records import Decision
from tagllm_cli.store import human_labels
from tagllm_cli.store.atomic import check_writable_path, file_state, private_folder, replacing
from tagllm_cli.store.checksums import insert
from tagllm_cli.store.damage import damage_as_table_error
from tagllm_cli.store.evidence_layout import LAYOUT
from tagllm_cli.store.merge.agreement import check_agreement, check_whole, other_places
from tagllm_cli.store.merge.evidence import (
    PLACES,
    Added,
    order_by_path,
    unite_decisions,
    unite_images,
    unite_requests,
    unite_shards,
)
from tagllm_cli.store.merge.parts import Part, evidence_of, open_part
from tagllm_cli.store.merge.rows import ROW_INDEX, MergedRows, index_rows
from tagllm_cli.store.merge.summary import MergeSummary
from tagllm_cli.store.sqlite import SQLiteFile
from tagllm_cli.store.table import TableInfo, open_table, write_file

Report = Callable[[str, int, int], None]  # what is done now, and how much of how much

_LAYOUT = replace(LAYOUT, temporary=(ROW_INDEX, PLACES))
_FILES_PER_PART = 3
_OTHER_FILES = 64


class Overlay(Protocol):
    """What puts decisions of people over rows: `labeling.human.HumanOverlay`."""

    def tables(
        self,
        pieces: Iterable[pa.Table],
        fingerprints: Collection[bytes],
        decided: Callable[[bytes], Mapping[str, Decision]],
    ) -> Iterator[pa.Table]:
        """Yield the rows with what was decided about images with these fingerprints."""
        ...


def merge_tables(
    out: Path,
    tables: Sequence[Path],
    report: Report = lambda *_: None,
    overlay: Callable[[TableInfo], Overlay] | None = None,
) -> MergeSummary:
    """Merge tables with their evidence into `out`, which is made, or added to where it exists.

    `overlay` is needed where people decided anything.

    Raises TableError, with everything as it was, where one of them cannot be used or they do not belong together.
    """
    began = time.monotonic()
    inputs = _distinct(out, tables)
    _raise_file_limit(len(inputs))
    _check_out(out)
    file = SQLiteFile(evidence_of(out), _LAYOUT)
    try:
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(private_folder(Path(os.path.realpath(out))))
            parts = [stack.enter_context(open_part(path, scratch)) for path in inputs]
            target = Part(out, evidence_of(out), open_table(out) if out.exists() else None, file.query)
            summary = _Merge(file, target, parts, overlay, report).run()
    except BaseException:
        file.abandon()
        raise
    file.close()
    summary.seconds = time.monotonic() - began
    return summary


class _Merge:
    """One merge of parts into an open evidence file; `target` is the output as it was, with a table or without."""

    def __init__(
        self,
        file: SQLiteFile,
        target: Part,
        parts: Sequence[Part],
        overlay: Callable[[TableInfo], Overlay] | None,
        report: Report,
    ) -> None:
        self._file, self._target, self._parts = file, target, parts
        self._overlay, self._report = overlay, report
        self._is_new = target.meta("plan") is None
        if self._is_new and target.table is not None:
            raise TableError(f"{target.path} is there, but its evidence is empty", "Put it back, or name another OUT.")
        self._first = parts[0] if target.table is None else target
        with damage_as_table_error(target.evidence):
            before = (target.meta("merged") if target.table is not None else None) or {"parts": {}, "table": None}
            known = before["parts"]
            self._changed = [part for part in parts if known.get(_key(part)) != part.state]
            self._remembered = {**known, **{_key(part): part.state for part in parts}}
            self._is_done = not self._changed and before["table"] == file_state(target.path)

    def run(self) -> MergeSummary:
        """Do it; what is not committed yet is forgotten by the caller where this raises."""
        warnings = self._check()
        count = len(self._parts)
        if self._is_done:
            rows = Counter(_statuses(self._target))
            return MergeSummary(self._target.path, count, count, self._info().stage, rows, Added(), 0.0, warnings)
        inputs = self._index()
        added, is_moved = self._unite(inputs)
        rows = self._bring_up_to_date(inputs, added, is_moved)
        self._remember()
        if added.damaged_responses:
            warnings.append(f"{added.damaged_responses:,} damaged responses were left out: they are asked for again")
        if added.conflicts:
            warnings.append(
                f"{added.conflicts:,} images differ between tables: the row that says most counts, else the first one"
            )
        unchanged = count - len(inputs) + 1
        return MergeSummary(self._target.path, count, unchanged, self._info().stage, rows, added, 0.0, warnings)

    def _check(self) -> list[str]:
        """Raise TableError where the parts do not belong together; return what is worth a warning."""
        for part in self._parts:
            check_whole(part)
        known = self._parts[0] if self._is_new else self._target
        for part in self._parts:
            if part is not known:
                check_agreement(known, part)
        warnings = [
            f"{part.path} is older than its evidence: the next run over the images brings its rows up to date"
            for part in self._changed
            if part.is_behind
        ]
        source = self._info().source
        if others := other_places(source, self._parts):
            more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
            warnings.append(f"the images were also read from {others[0]}{more}; the merged table names {source.uri}")
        return warnings

    def _info(self) -> TableInfo:
        table = self._first.table
        assert table is not None  # only the output may lack one
        return table.info

    def _index(self) -> list[Part]:
        """Note where each row is; return the output and the parts to read: those that are new or have changed."""
        for part in self._changed:
            part.check()
        inputs = [self._target, *self._changed]
        self._index_all(inputs)
        if len(self._changed) < len(self._parts) and self._lacks_rows():
            # The output lost rows that it had: take them from the parts again.
            inputs = [self._target, *self._parts]
            self._file.query("DELETE FROM part_row")
            self._index_all(inputs)
        return inputs

    def _index_all(self, inputs: Sequence[Part]) -> None:
        step = self._step("tables", inputs, None)
        for number, part in enumerate(inputs):
            index_rows(self._file, number, part, step)

    def _unite(self, inputs: Sequence[Part]) -> tuple[Added, bool]:
        """Take the evidence over, uncommitted; return what is new, and whether images moved within the order."""
        added = Added()
        unite_requests(self._file, inputs, added, self._step("responses", inputs[1:], "response"))
        revision = int(self._target.meta("revision") or 0) + 1
        unite_images(self._file, inputs, revision, added, self._step("images", inputs[1:], "image"))
        unite_decisions(self._file, inputs, added)
        is_moved = self._info().stage != "candidates" and order_by_path(self._file)
        unite_shards(self._file, inputs, added)
        self._set_meta(revision, changes=not added.is_nothing or is_moved)
        return added, is_moved

    def _bring_up_to_date(self, inputs: Sequence[Part], added: Added, is_moved: bool) -> Counter[str]:
        """Put the table in place where it is another one, and commit; return its rows by status."""
        if not self._must_write(added, is_moved):
            self._file.commit()
            return Counter(_statuses(self._target))
        rows = MergedRows(self._file, inputs, self._step("rows", [self._target], "image"))
        with contextlib.closing(rows), replacing(self._target.path, TableError) as new:
            write_file(new, self._info(), self._overlaid(rows.pieces()))
            self._file.commit()  # the new table is whole, and takes its place next
        return rows.counts

    def _overlaid(self, pieces: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Yield the rows with what people decided in any of the tables."""
        if not human_labels.has_decisions(self._file):
            return pieces
        if self._overlay is None:
            raise ValueError("what people decided cannot be put over the rows")

        def decided(fingerprint: bytes) -> Mapping[str, Decision]:
            return human_labels.in_force(human_labels.decisions_about(self._file, fingerprint))

        return self._overlay(self._info()).tables(pieces, human_labels.fingerprints(self._file), decided)

    def _lacks_rows(self) -> bool:
        query = "SELECT EXISTS (SELECT 1 FROM image WHERE id NOT IN (SELECT id FROM part_row))"
        return bool(self._file.query(query)[0][0])

    def _must_write(self, added: Added, is_moved: bool) -> bool:
        table = self._target.table
        taken = self._file.query("SELECT EXISTS (SELECT 1 FROM part_row WHERE part != 0)")[0][0]
        if table is None or taken or is_moved or added.images or added.replaced or added.decisions:
            return True
        return self._lacks_rows() or len(table) != self._target.count("image")

    def _set_meta(self, revision: int, *, changes: bool) -> None:
        """Bring the entries of the output up to date: the next run makes the table anew from the evidence."""
        first = self._parts[0] if self._is_new else self._target
        wanted: dict[str, Any] = {"plan": first.meta("plan"), "source": first.meta("source")}
        everything = [*([] if self._is_new else [self._target]), *self._parts]
        shares = {part.meta("part") for part in everything}
        wanted["part"] = shares.pop() if len(shares) == 1 else None
        if changes:
            wanted |= {"revision": revision, "table": None}
        for key, value in wanted.items():
            before = self._target.meta(key)
            if value is None and before is not None:
                self._file.query("DELETE FROM meta WHERE key = ?", (key,))
            elif value != before:
                _set_meta(self._file, key, value)

    def _remember(self) -> None:
        merged = {"parts": self._remembered, "table": file_state(self._target.path)}
        if self._target.meta("merged") != merged:
            _set_meta(self._file, "merged", merged)

    def _step(self, what: str, parts: Sequence[Part], table: str | None) -> Callable[[int], None]:
        """Return what to call with each number of rows that are done."""
        sizes = (part.count(table) if table else len(part.table or ()) for part in parts)
        total, done = sum(sizes), 0

        def step(count: int) -> None:
            nonlocal done
            done += count
            self._report(what, done, total)

        return step


def _distinct(out: Path, tables: Sequence[Path]) -> list[Path]:
    """Return the tables, each once. Raises TableError where the output is among them."""
    found = {os.path.realpath(path): path for path in reversed(tables)}
    if os.path.realpath(out) in found:
        raise TableError(
            f"{out} is OUT and one of the tables to merge", "Leave it out: what it holds stays, and is added to."
        )
    return list(reversed(found.values()))


def _check_out(out: Path) -> None:
    check_writable_path(out, TableError)
    evidence = evidence_of(out)
    if out.exists() and not (evidence.exists() and evidence.stat().st_size):
        raise TableError(
            f"{out} is there, but its evidence {evidence.name} is not", "Put it back, or name another OUT."
        )


def _raise_file_limit(parts: int) -> None:
    """Let the process have all parts open at once, as far as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _OTHER_FILES + _FILES_PER_PART * parts
    if soft != resource.RLIM_INFINITY and soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _key(part: Part) -> str:
    """Return what tells a part from others on record: a hash of its path."""
    return hashlib.blake2b(os.fsencode(os.path.realpath(part.path)), digest_size=8).hexdigest()


def _set_meta(file: SQLiteFile, key: str, value: Any) -> None:
    file.query(insert("meta", "REPLACE"), (key, json.dumps(value, sort_keys=True)))


def _statuses(part: Part) -> Iterator[str]:
    if part.table is not None:
        for batch in part.table.batches(8192, ["status"]):
            yield from batch["status"].to_pylist()
