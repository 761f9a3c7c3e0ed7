"""The evidence: an SQLite file with everything that was paid for, and the checkpoint of every run.

Committed in batches by one writer, which holds the file exclusively: a second process is told so, and a dead one's
lock is gone with it. Replies are kept under the identity of their request, so the first recorded answer wins and
nothing is ever asked twice; a failed request is kept apart from them and is asked again.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tagllm_cli.errors import TableError
from tagllm_cli.schema import Failure, Image, LabelEntry, Reply, Seen, Subject

FORMAT = 1
APPLICATION_ID = 0x7461676C  # "tagl": how `file` and we tell our SQLite files from others
COMMIT_SECONDS = 1.0
PAGE = 2000

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE image (
    id TEXT PRIMARY KEY, position INTEGER NOT NULL, uri TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    fingerprint BLOB, width INTEGER, height INTEGER, error_kind TEXT, error TEXT, proposed TEXT, settled BLOB
) WITHOUT ROWID;
CREATE INDEX image_position ON image (position, id);
CREATE TABLE reply (
    key BLOB PRIMARY KEY, text TEXT NOT NULL, finish TEXT NOT NULL, logprobs TEXT, prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, run INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE failed_request (key BLOB PRIMARY KEY, kind TEXT NOT NULL, message TEXT NOT NULL, run INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE run (id INTEGER PRIMARY KEY, command TEXT NOT NULL, version TEXT NOT NULL, started REAL NOT NULL, ended REAL, report TEXT);
"""
_LISTED = """
CREATE TEMP TABLE listed (
    id TEXT PRIMARY KEY, position INTEGER NOT NULL, uri TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    fingerprint BLOB, width INTEGER, height INTEGER, error_kind TEXT, error TEXT, proposed TEXT
) WITHOUT ROWID;
"""
_COLUMNS = "id, position, uri, size, mtime_ns, fingerprint, width, height, error_kind, error, proposed"


@dataclass(frozen=True, slots=True)
class Listing:
    """How the images of a listing differ from those on record: counts of images."""

    total: int
    new: int
    changed: int
    gone: int
    known: int


class Evidence:
    """The evidence file of one table, open for writing; use it as a context manager."""

    def __init__(self, path: Path | None) -> None:
        """Open or create the file (None: in memory, for a dry run). Raises TableError where that is not possible."""
        self.path = path
        self._run = 0
        self._revised = False
        self._committed = time.monotonic()
        existed = self._kept = path is not None and path.exists()
        try:
            self._db = sqlite3.connect(":memory:" if path is None else path, timeout=0, isolation_level=None)
            self._prepare(existed)
        except sqlite3.DatabaseError as error:
            self._explain(error)

    def _prepare(self, existed: bool) -> None:
        db = self._db
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        if existed:
            identity = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            # A process killed while it created the file leaves an empty database: that one may be taken over.
            empty = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not empty and identity != APPLICATION_ID:
                raise TableError(f"{self.path} is an SQLite file, but no evidence of tagllm", "Choose another --out.")
            if version > FORMAT:
                raise TableError(f"{self.path} was written by a newer tagllm (format {version})", "Upgrade tagllm.")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA temp_store = FILE")
        db.execute("BEGIN IMMEDIATE")
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {FORMAT}")
            for statement in _TABLES.split(";\n"):
                db.execute(statement)
        db.execute("COMMIT")
        db.execute(_LISTED)
        db.execute("BEGIN")

    def _explain(self, error: sqlite3.DatabaseError) -> None:
        with contextlib.suppress(AttributeError):
            self._db.close()
        if "locked" in str(error):
            raise TableError(
                f"another tagllm is writing {self.path}", "Wait until it is done, or choose another --out."
            ) from error
        if "not a database" in str(error):
            raise TableError(f"{self.path} is not an evidence file", "Choose another --out.") from error
        raise TableError(
            f"cannot open {self.path}: {error}", "Check the path, its permissions and the free space."
        ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self._kept:
            self._discard()
        else:
            self.close()

    def _discard(self) -> None:
        """Leave no trace of a file that was made for a run that could not begin."""
        self._db.close()
        if self.path is not None:
            for suffix in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """Commit what is pending and give the file back."""
        self.commit()
        self._db.close()

    # -- transactions ---------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Make everything recorded so far durable against a killed process."""
        if self._revised:
            self.set_meta("revision", self.revision + 1, revises=False)
        self._db.execute("COMMIT")
        self._db.execute("BEGIN")
        self._revised = False
        self._kept = True
        self._committed = time.monotonic()

    def commit_when_due(self) -> None:
        """Commit when the last one is more than a second ago."""
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def rollback(self) -> None:
        """Forget everything since the last commit."""
        self._db.execute("ROLLBACK")
        self._db.execute("BEGIN")
        self._revised = False

    @property
    def revision(self) -> int:
        """How many commits have changed what a table could show; equal revisions derive equal tables."""
        return int(self.meta("revision") or 0)

    def meta(self, key: str) -> Any:
        """Return the JSON value under `key`, None where there is none."""
        found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else json.loads(found[0])

    def set_meta(self, key: str, value: Any, *, revises: bool = True) -> None:
        """Keep a JSON value under `key`; `revises` says whether a table could show the difference."""
        self._revised |= revises
        text = json.dumps(value, ensure_ascii=False, sort_keys=True)
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, text))

    # -- images ---------------------------------------------------------------------------------------------------

    def list_images(self, subjects: Iterable[tuple[int, Subject]]) -> None:
        """Take in a listing of (position in the source, subject), in a temporary table; nothing is merged yet."""
        self._db.execute("DELETE FROM listed")
        stream = iter(subjects)
        statement = f"INSERT OR IGNORE INTO listed ({_COLUMNS}) VALUES ({', '.join('?' * 11)})"
        while chunk := list(islice(stream, PAGE)):
            self._db.executemany(statement, (_image_values(position, subject) for position, subject in chunk))

    def compare(self, *, complete: bool, by_hash: bool) -> Listing:
        """Count how the listing differs from the record. Only a complete listing knows what is gone."""
        known = self._count("SELECT count(*) FROM image")
        new = self._count("SELECT count(*) FROM listed WHERE id NOT IN (SELECT id FROM image)")
        gone = self._count("SELECT count(*) FROM image WHERE id NOT IN (SELECT id FROM listed)") if complete else 0
        total = self._count("SELECT count(*) FROM listed")
        differs = "1" if by_hash else "(l.size, l.mtime_ns) IS NOT (i.size, i.mtime_ns)"
        changed = self._count(f"SELECT count(*) FROM listed l JOIN image i USING (id) WHERE {differs} OR {_REDONE}")
        return Listing(total, new, changed, gone, known)

    def merge(self, *, complete: bool, by_hash: bool) -> None:
        """Bring the record up to the listing: add what is new, reopen what changed, drop what is gone."""
        before = self._db.total_changes
        differs = "1" if by_hash else "(l.size, l.mtime_ns) IS NOT (i.size, i.mtime_ns)"
        self._db.execute(
            f"""UPDATE image AS i SET size = l.size, mtime_ns = l.mtime_ns, fingerprint = l.fingerprint, width = l.width,
                height = l.height, error_kind = l.error_kind, error = l.error, proposed = l.proposed, settled = NULL
                FROM listed AS l WHERE l.id = i.id AND ({differs} OR {_REDONE})"""
        )
        self._db.execute(
            """UPDATE image AS i SET position = l.position, uri = l.uri
               FROM listed AS l WHERE l.id = i.id AND (l.position, l.uri) IS NOT (i.position, i.uri)"""
        )
        self._db.execute(
            f"INSERT INTO image ({_COLUMNS}) SELECT {_COLUMNS} FROM listed WHERE id NOT IN (SELECT id FROM image)"
        )
        if complete:
            self._db.execute("DELETE FROM image WHERE id NOT IN (SELECT id FROM listed)")
        self._revised |= self._db.total_changes != before

    def subjects(self, *, listed_only: bool = False) -> Iterator[tuple[Subject, bytes | None]]:
        """Yield (subject, settled mark) in source order, a page in memory at a time; safe against writes in between."""
        only = "AND id IN (SELECT id FROM listed)" if listed_only else ""
        query = f"SELECT {_COLUMNS}, settled FROM image WHERE (position, id) > (?, ?) {only} ORDER BY position, id LIMIT {PAGE}"
        last: tuple[int, str] = (-1, "")
        while page := self._db.execute(query, last).fetchall():
            for values in page:
                yield _subject(values), values[11]
            last = (page[-1][1], page[-1][0])

    def count_images(self) -> int:
        """Return the number of images on record."""
        return self._count("SELECT count(*) FROM image")

    def set_seen(self, image_id: str, seen: Seen) -> None:
        """Record what opening an image found out."""
        kind, message = (seen.failure.kind, seen.failure.message) if seen.failure else (None, None)
        self._db.execute(
            "UPDATE image SET fingerprint = ?, width = ?, height = ?, error_kind = ?, error = ? WHERE id = ?",
            (seen.fingerprint, seen.width, seen.height, kind, message, image_id),
        )
        self._revised = True

    def set_settled(self, image_id: str, mark: bytes) -> None:
        """Remember that everything that `mark` stands for is answered about this image."""
        self._db.execute("UPDATE image SET settled = ? WHERE id = ?", (mark, image_id))

    # -- requests -------------------------------------------------------------------------------------------------

    def has_replies(self) -> bool:
        """Tell whether anything was answered yet: until then, no plan is worth pinning."""
        return self._db.execute("SELECT 1 FROM reply LIMIT 1").fetchone() is not None

    def has(self, key: bytes) -> bool:
        """Tell whether this request was answered."""
        return self._db.execute("SELECT 1 FROM reply WHERE key = ?", (key,)).fetchone() is not None

    def replies(self, keys: Sequence[bytes]) -> list[Reply | None]:
        """Return what is on record for each request: an answer, a failure, or None where it was not asked yet."""
        return [self._reply(key) for key in keys]

    def _reply(self, key: bytes) -> Reply | None:
        found = self._db.execute(
            "SELECT text, finish, logprobs, prompt_tokens, cached_tokens, output_tokens FROM reply WHERE key = ?",
            (key,),
        ).fetchone()
        if found is not None:
            text, finish, logprobs, *tokens = found
            return Reply(text, finish, json.loads(logprobs) if logprobs else {}, *tokens)
        failed = self._db.execute("SELECT kind, message FROM failed_request WHERE key = ?", (key,)).fetchone()
        return None if failed is None else Reply(failure=Failure(*failed))

    def record(self, key: bytes, reply: Reply) -> None:
        """Record an answer (the first one wins) or a failure (kept until an answer comes)."""
        self._revised = True
        if reply.failure is not None:
            values = (key, reply.failure.kind, reply.failure.message, self._run)
            self._db.execute("INSERT OR REPLACE INTO failed_request VALUES (?, ?, ?, ?)", values)
            return
        logprobs = {token: round(value, 4) for token, value in reply.first_logprobs.items()}
        encoded = json.dumps(logprobs, ensure_ascii=False, separators=(",", ":")) if logprobs else None
        tokens = (reply.prompt_tokens, reply.cached_tokens, reply.output_tokens)
        self._db.execute(
            "INSERT OR IGNORE INTO reply VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (key, reply.text, reply.finish, encoded, *tokens, self._run),
        )
        self._db.execute("DELETE FROM failed_request WHERE key = ?", (key,))

    # -- runs -----------------------------------------------------------------------------------------------------

    def start_run(self, command: str, version: str) -> None:
        """Open a run report; later records are attributed to it."""
        cursor = self._db.execute(
            "INSERT INTO run (command, version, started) VALUES (?, ?, ?)", (command, version, time.time())
        )
        self._run = int(cursor.lastrowid or 0)

    def end_run(self, report: Any) -> None:
        """Close the run report that `start_run` opened."""
        text = json.dumps(report if isinstance(report, dict) else asdict(report), sort_keys=True)
        self._db.execute("UPDATE run SET ended = ?, report = ? WHERE id = ?", (time.time(), text, self._run))

    def _count(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])


# A listing that brings its own findings (an earlier table) redoes an image when any of them differs.
_REDONE = """(l.fingerprint IS NOT NULL AND l.fingerprint IS NOT i.fingerprint) OR l.proposed IS NOT i.proposed
    OR (l.proposed IS NOT NULL AND l.error_kind IS NOT i.error_kind) OR (l.error_kind IS NOT NULL AND l.error IS NOT i.error)"""


def _image_values(position: int, subject: Subject) -> tuple[Any, ...]:
    image, seen = subject.image, subject.seen
    proposed = None
    if subject.proposed is not None:
        entries = [(entry.name, entry.score, entry.arms, entry.groups) for entry in subject.proposed]
        proposed = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
    found: tuple[Any, ...] = (None, None, None, None, None)
    if seen is not None:
        failure = (seen.failure.kind, seen.failure.message) if seen.failure else (None, None)
        found = (seen.fingerprint or None, seen.width, seen.height, *failure)
    return (image.id, position, image.uri, image.size, image.mtime_ns, *found, proposed)


def _subject(values: Sequence[Any]) -> Subject:
    id_, _, uri, size, mtime_ns, fingerprint, width, height, error_kind, error, proposed, _ = values
    seen = None
    if fingerprint is not None or error_kind is not None:
        failure = Failure(error_kind, error) if error_kind is not None else None
        seen = Seen(fingerprint or b"", width or 0, height or 0, failure)
    entries = None
    if proposed is not None:
        entries = tuple(
            LabelEntry(name, score=score, arms=tuple(arms), groups=tuple(groups))
            for name, score, arms, groups in json.loads(proposed)
        )
    return Subject(Image(id_, uri, size, mtime_ns), seen, entries)
