"""The tables that are merged, each with its evidence, opened for reading: they may lie on a disk that takes no writes.

While a part is open, SQLite's own shared lock lies on its evidence: another tagllm that writes it ends the merge, and
one that wants to is told that the file is in use. Evidence of an older format, or with a log that a killed process
left, is read from a copy; the part itself stays as it is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tagllm_cli.errors import TableError
from tagllm_cli.store.atomic import file_state
from tagllm_cli.store.checksums import is_intact
from tagllm_cli.store.damage import damage_as_table_error, damaged
from tagllm_cli.store.evidence_layout import LAYOUT
from tagllm_cli.store.sqlite import SQLiteFile
from tagllm_cli.store.table import Table, open_table
from tagllm_cli.store.write_ahead_log import loses_commits

_PAGE = 200  # rows of one part in memory
_CACHE_KIB = 256  # of SQLite, for one part: there may be hundreds, and each is read from front to back
_ONCE_MORE = "Run its command once more, or restore it from a backup."

# Of an SQLite file: the bytes that readers lock (https://www.sqlite.org/src/file/src/os.h), and places in its header.
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510
_MAGIC, _FORMAT, _APPLICATION_ID = b"SQLite format 3\0", slice(60, 64), slice(68, 72)


@dataclass(frozen=True, slots=True)
class Part:
    """A table and its evidence; `query` runs a statement on the evidence. Only the output may lack a table."""

    path: Path
    evidence: Path
    table: Table | None
    query: Callable[[str, Sequence[Any]], list[Any]]

    def meta(self, key: str) -> Any:
        """Return the JSON value under `key`, None where there is none; raise TableError where it is damaged."""
        found = self.query(f"SELECT value, {is_intact('meta')} FROM meta WHERE key = ?", (key,))
        with damage_as_table_error(self.evidence):
            if found and not found[0][1]:
                raise ValueError(f"the entry {key!r} is not what was written")
            return json.loads(found[0][0]) if found else None

    def stream(self, table: str, key: str, columns: Sequence[str]) -> Iterator[Any]:
        """Yield (columns..., whether the row is intact) by `key`, the first column; writes behind it are safe."""
        select = f"SELECT {', '.join(columns)}, {is_intact(table)} FROM {table}"
        page = self.query(f"{select} ORDER BY {key} LIMIT {_PAGE}", ())
        while page:
            yield from page
            page = self.query(f"{select} WHERE {key} > ? ORDER BY {key} LIMIT {_PAGE}", (page[-1][0],))

    def count(self, table: str) -> int:
        """Return the number of rows in a table of the evidence."""
        return int(self.query(f"SELECT count(*) FROM {table}", ())[0][0])

    def check(self) -> None:
        """Raise TableError where the structure of the evidence is damaged; reads all of it."""
        if (found := self.query("PRAGMA quick_check(1)", ())[0][0]) != "ok":
            raise damaged(self.evidence, ValueError(found))

    @property
    def is_behind(self) -> bool:
        """Whether answers were recorded since the table was written."""
        last = self.meta("table")
        return bool(last) and last["revision"] != self.meta("revision")

    @property
    def state(self) -> list[Any]:
        """What tells one state of the table and its evidence from another, as plain JSON values."""
        return [file_state(self.path), file_state(self.evidence), file_state(_beside(self.evidence, "-wal"))]


def evidence_of(table: Path) -> Path:
    """Return the path of a table's evidence."""
    return table.with_name(f"{table.name.removesuffix('.parquet')}.evidence")


@contextlib.contextmanager
def open_part(path: Path, scratch: Path) -> Iterator[Part]:
    """Open a table with its evidence for reading; `scratch` is a folder for copies on a local disk.

    Raises TableError where one of them is missing, of another kind, damaged, newer, or being written.
    """
    table, evidence = open_table(path), evidence_of(path)
    with contextlib.ExitStack() as stack:
        header = stack.enter_context(_locked(evidence, path))
        _check_header(header, evidence)
        left = [_beside(evidence, ending) for ending in ("-wal", "-journal")]
        is_older = int.from_bytes(header[_FORMAT], "big") < LAYOUT.format
        if is_older or any(log.exists() and log.stat().st_size for log in left):
            query = stack.enter_context(_opened_copy(evidence, scratch))
        else:
            query = stack.enter_context(_opened(evidence))
        yield Part(path, evidence, table, query)


@contextlib.contextmanager
def _locked(evidence: Path, table: Path) -> Iterator[bytes]:
    """Lock a file against writers and yield its header. Closing any other descriptor of it ends the lock (POSIX)."""
    try:
        descriptor = os.open(evidence, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise TableError(
            f"{table} is there, but its evidence {evidence.name} is not",
            "Copy it beside the table: a table alone cannot be merged.",
        ) from error
    except OSError as error:
        raise TableError(f"cannot read {evidence}: {error.strerror}", "Check the path and its permissions.") from error
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
        except OSError as error:  # anything else: a file system without locks
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise TableError(
                    f"another tagllm is writing {evidence}", "Wait until it is done, then merge again."
                ) from error
        try:
            header = os.pread(descriptor, 100, 0)
        except OSError as error:
            raise TableError(f"{evidence} is not a regular file", "Copy the evidence beside the table.") from error
        yield header
    finally:
        os.close(descriptor)


def _check_header(header: bytes, evidence: Path) -> None:
    application_id = int.from_bytes(header[_APPLICATION_ID], "big")
    if not header.startswith(_MAGIC) or application_id != LAYOUT.application_id:
        raise TableError(f"{evidence} is not an evidence file of tagllm", _ONCE_MORE)
    if (found := int.from_bytes(header[_FORMAT], "big")) > LAYOUT.format:
        raise TableError(f"{evidence} was written by a newer tagllm (format {found})", "Upgrade tagllm.")


@contextlib.contextmanager
def _opened(evidence: Path) -> Iterator[Callable[[str, Sequence[Any]], list[Any]]]:
    # Immutable: SQLite makes no files beside it, and needs none of the locks that network file systems lack.
    uri = f"file:{quote(os.path.abspath(evidence))}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        for name, function in LAYOUT.functions.items():
            db.create_function(name, 1, function, deterministic=True)

        def query(statement: str, values: Sequence[Any] = ()) -> list[Any]:
            try:
                return db.execute(statement, values).fetchall()
            except (sqlite3.Error, UnicodeDecodeError) as error:
                raise damaged(evidence, error) from error

        query(f"PRAGMA cache_size = -{_CACHE_KIB}")
        yield query


@contextlib.contextmanager
def _opened_copy(evidence: Path, scratch: Path) -> Iterator[Callable[[str, Sequence[Any]], list[Any]]]:
    if loses_commits(evidence):
        raise TableError(f"the log {evidence.name}-wal is damaged: what was recorded last is lost", _ONCE_MORE)
    copy = scratch / f"{len(list(scratch.iterdir()))}.evidence"
    try:
        for ending in ("", "-wal", "-journal"):
            if (original := _beside(evidence, ending)).exists():
                shutil.copyfile(original, _beside(copy, ending))
    except OSError as error:
        raise TableError(f"cannot copy {evidence} to read it: {error.strerror}", "Free some space.") from error
    try:
        file = SQLiteFile(copy, LAYOUT)
    except TableError as error:
        raise TableError(error.message.replace(str(copy), str(evidence)), _ONCE_MORE) from error
    try:
        yield file.query
    finally:
        file.abandon()


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
