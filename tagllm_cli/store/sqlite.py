"""An SQLite file that one process holds: locked while it is open, committed in batches, refused if it is not ours.

The lock is SQLite's own on the file, so a dead process leaves none behind. Whatever SQLite raises becomes a TableError
here. A file made for a run that could not begin is taken away again, with the folders that were made for it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagllm_cli.errors import TableError

_MAGIC = b"SQLite format 3\0"
_APPLICATION_ID = slice(68, 72)  # of an SQLite file's header: https://www.sqlite.org/fileformat.html


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file holds: `application_id` (32 bits) tells our files from others, `format` counts their versions.

    `tables` are the statements that make an empty file, `temporary` those for tables that end with the process.
    """

    application_id: int
    format: int
    tables: Sequence[str]
    temporary: Sequence[str] = ()


class SQLiteFile:
    """The open file; a transaction is always under way. `path` None is a database in memory."""

    def __init__(self, path: Path | None, layout: Layout) -> None:
        """Open or create the file. Raises TableError, leaving everything as it was, where that is not possible."""
        self._path = path
        self._keep = True
        self._made: list[Path] = []
        if path is not None:
            self._made = _make_folders(path)
            _check_header(path, layout)
        try:
            self._db = sqlite3.connect(":memory:" if path is None else path, timeout=0, isolation_level=None)
        except sqlite3.Error as error:
            _remove_folders(self._made)
            raise self._explained(error) from error
        try:
            self._prepare(layout)
        except sqlite3.Error as error:
            self.abandon()
            raise self._explained(error) from error
        except TableError:
            self.abandon()
            raise

    def _prepare(self, layout: Layout) -> None:
        execute = self._db.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA synchronous = NORMAL")
        execute("PRAGMA temp_store = FILE")
        execute("BEGIN IMMEDIATE")
        if not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._keep = False
            # Before WAL, so that the header in the file itself says whose it is, whenever we are killed.
            execute(f"PRAGMA application_id = {layout.application_id}")
            execute(f"PRAGMA user_version = {layout.format}")
            for statement in layout.tables:
                execute(statement)
        execute("COMMIT")
        version = execute("PRAGMA user_version").fetchone()[0]
        if version > layout.format:
            raise TableError(f"{self._path} was written by a newer tagllm (format {version})", "Upgrade tagllm.")
        execute("PRAGMA journal_mode = WAL")
        for statement in layout.temporary:
            execute(statement)
        execute("BEGIN")

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run one statement and return its rows."""
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def insert(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row of values."""
        try:
            self._db.executemany(statement, rows)
        except sqlite3.Error as error:
            raise self._explained(error) from error

    @property
    def changes(self) -> int:
        """How many rows were changed since the file was opened."""
        return self._db.total_changes

    def commit(self) -> None:
        """Make everything so far durable against a killed process; from now on the file stays."""
        if self._db.in_transaction:  # SQLite itself ends one when the disk is full, and the error was raised then
            self.query("COMMIT")
        self.query("BEGIN")
        self._keep = True

    def rollback(self) -> None:
        """Forget everything since the last commit."""
        if self._db.in_transaction:
            self.query("ROLLBACK")
        self.query("BEGIN")

    def close(self) -> None:
        """Commit, and give the file back."""
        self.commit()
        self._db.close()

    def abandon(self) -> None:
        """Forget everything since the last commit, and the file itself if nothing was ever committed to it."""
        self._db.close()
        if self._path is not None and not self._keep:
            with contextlib.suppress(OSError):
                for suffix in ("", "-wal", "-shm", "-journal"):
                    self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
                _remove_folders(self._made)

    def _explained(self, error: sqlite3.Error) -> TableError:
        said = str(error)
        if "locked" in said:
            return TableError(
                f"another tagllm is writing {self._path}", "Wait until it is done, or choose another --out."
            )
        if "not a database" in said or "malformed" in said:
            return TableError(f"{self._path} is damaged: {said}", "Restore it from a backup, or choose another --out.")
        return TableError(f"cannot use {self._path}: {said}", "Check the path, its permissions and the free space.")


def _make_folders(path: Path) -> list[Path]:
    """Make the folders that a file will lie in; return those that were not there, the innermost first."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TableError(f"cannot make the folder {path.parent}: {error.strerror}", "Choose another --out.") from error
    return missing


def _remove_folders(folders: Iterable[Path]) -> None:
    with contextlib.suppress(OSError):  # someone else has put something there meanwhile
        for folder in folders:
            folder.rmdir()


def _check_header(path: Path, layout: Layout) -> None:
    """Refuse a file that is not ours, before SQLite opens it: that alone may change a file."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return
    except OSError as error:
        raise TableError(f"cannot read {path}: {error.strerror}", "Choose another --out.") from error
    if not header:  # a process was killed while it created the file
        return
    if not header.startswith(_MAGIC):
        raise TableError(f"{path} is not an evidence file", "Choose another --out.")
    if int.from_bytes(header[_APPLICATION_ID], "big") != layout.application_id:
        raise TableError(f"{path} is an SQLite file, but no evidence of tagllm", "Choose another --out.")
