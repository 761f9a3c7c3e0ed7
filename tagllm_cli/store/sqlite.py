"""An SQLite file that one process holds: locked while it is open, committed in batches, migrated or refused.

The lock is SQLite's own on the file, so a dead process leaves none behind. Whatever SQLite raises becomes a TableError
here. A file created for a run that could not begin is removed again, with the folders that were created for it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tagllm_cli.errors import TableError
from tagllm_cli.store.damage import damaged
from tagllm_cli.store.mounts import refuse_network_mount

# RHEL 8; all statements keep to it: no UPDATE ... FROM (3.33), no RETURNING (3.35), no DROP COLUMN (3.35).
OLDEST_SQLITE = (3, 26, 0)

_MAGIC = b"SQLite format 3\0"
_APPLICATION_ID = slice(68, 72)  # of an SQLite file's header: https://www.sqlite.org/fileformat.html


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file holds: `application_id` (32 bits) tells our files from others.

    `tables` are the statements that make an empty file, `temporary` those for what ends with the process.
    `migrations[n - 1]` turns format n into n + 1; the format is one more than there are. `functions` take one value and
    are known to all statements by their name.
    """

    application_id: int
    tables: Sequence[str]
    temporary: Sequence[str] = ()
    migrations: Sequence[Callable[[sqlite3.Connection], None]] = ()
    functions: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)

    @property
    def format(self) -> int:
        """The format that `tables` make."""
        return len(self.migrations) + 1


class SQLiteFile:
    """The open file; a transaction is always under way. `path` None is a database in memory.

    A file on a disk that cannot be written is opened for reading, and whatever would change it raises TableError.
    """

    def __init__(self, path: Path | None, layout: Layout) -> None:
        """Open or create the file. Raises TableError, leaving everything as it was, where that is not possible."""
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            needed = ".".join(map(str, OLDEST_SQLITE))
            raise TableError(
                f"Python uses SQLite {sqlite3.sqlite_version}, and tagllm needs {needed}", "Use a newer Python."
            )
        self._path = path
        self._keep = True
        self._made: list[Path] = []
        self._reads_only = path is not None and _is_read_only(path)
        if path is not None:
            if not self._reads_only:
                refuse_network_mount(path)
            self._made = make_folders(path)
            _check_header(path, layout)
        try:
            with self._errors():
                self._db = self._connect()
        except TableError:
            remove_folders(self._made)
            raise
        try:
            with self._errors():
                self._prepare(layout)
        except TableError:
            self.abandon()
            raise

    def _connect(self) -> sqlite3.Connection:
        target = ":memory:" if self._path is None else str(self._path)
        if self._reads_only and self._path is not None:
            wal = self._path.with_name(f"{self._path.name}-wal")
            # Immutable: SQLite makes no files beside it. A log that is left over has to be read, or answers are missed.
            immutable = "" if wal.exists() and wal.stat().st_size else "&immutable=1"
            target = f"file:{quote(os.path.abspath(self._path))}?mode=ro{immutable}"
        return sqlite3.connect(target, timeout=0, isolation_level=None, uri=self._reads_only)

    def _prepare(self, layout: Layout) -> None:
        execute = self._db.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA synchronous = NORMAL")
        execute("PRAGMA temp_store = FILE")
        for name, function in layout.functions.items():
            self._db.create_function(name, 1, function, deterministic=True)
        execute("BEGIN" if self._reads_only else "BEGIN IMMEDIATE")
        if not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._keep = False
            # Before WAL, so that the header in the file itself says whose it is, whenever we are killed.
            execute(f"PRAGMA application_id = {layout.application_id}")
            execute(f"PRAGMA user_version = {layout.format}")
            for statement in layout.tables:
                execute(statement)
        elif (found := execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
            raise damaged(self._path, ValueError(found))
        self._migrate(layout)
        execute("COMMIT")
        if not self._reads_only:
            execute("PRAGMA journal_mode = WAL")
        for statement in layout.temporary:
            execute(statement)
        execute("BEGIN")

    def _migrate(self, layout: Layout) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > layout.format:
            raise TableError(f"{self._path} was written by a newer tagllm (format {version})", "Upgrade tagllm.")
        if version < 1:
            raise damaged(self._path, ValueError(f"it has format {version}"))
        if version < layout.format and self._reads_only:
            raise TableError(
                f"{self._path} was written by an older tagllm and cannot be changed here, which the new format needs",
                "Copy it, with its table, to a disk that can be written.",
            )
        for migrate in layout.migrations[version - 1 :]:
            migrate(self._db)
        if version < layout.format:
            self._db.execute(f"PRAGMA user_version = {layout.format}")

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run one statement and return its rows."""
        with self._errors():
            return self._db.execute(statement, values).fetchall()

    def insert(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row of values."""
        with self._errors():
            self._db.executemany(statement, rows)

    @property
    def path(self) -> Path | None:
        """Where the file is, None in memory."""
        return self._path

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
        """Commit and close."""
        self.commit()
        self._db.close()

    def abandon(self) -> None:
        """Forget everything since the last commit and close; remove the file itself if nothing was ever committed."""
        self._db.close()
        if self._path is not None and not self._keep:
            with contextlib.suppress(OSError):
                for suffix in ("", "-wal", "-shm", "-journal"):
                    self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
                remove_folders(self._made)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> TableError:
        said = str(error)
        if "locked" in said:
            return TableError(
                f"another tagllm is writing {self._path}", "Wait until it is done, or choose another --out."
            )
        senseless = ("not a database", "malformed", "no such table", "no such column", "decode")
        if any(words in said for words in senseless):
            return damaged(self._path, error)
        if "readonly" in said or (self._reads_only and "unable to open" in said):
            return TableError(
                f"{self._path} cannot be written, and there is something to record",
                "Copy it, with its table, to a disk that can be written.",
            )
        return TableError(f"cannot use {self._path}: {said}", "Check the path, its permissions and the free space.")


def _is_read_only(path: Path) -> bool:
    """Tell whether a file is there that cannot be written, or no log beside it."""
    return path.is_file() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def make_folders(path: Path) -> list[Path]:
    """Make the folders that a file will lie in; return those that were not there, the innermost first."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TableError(f"cannot make the folder {path.parent}: {error.strerror}", "Choose another --out.") from error
    return missing


def remove_folders(folders: Iterable[Path]) -> None:
    """Remove folders that `make_folders` made, as long as they are empty."""
    with contextlib.suppress(OSError):  # someone else has put something there meanwhile
        for folder in folders:
            folder.rmdir()


def _check_header(path: Path, layout: Layout) -> None:
    """Refuse a file that is not ours, before SQLite opens it: that alone may change a file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO waits for a writer
            raise TableError(f"{path} is not a regular file", "Move it away, or choose another --out.")
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
