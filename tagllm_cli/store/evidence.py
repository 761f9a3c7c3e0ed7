"""The evidence: an SQLite file with everything that was paid for, and the checkpoint of every run.

Replies are kept under the identity of their request, so the first recorded answer wins and nothing is ever asked
twice; a failed request is kept apart from them and is asked again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tagllm_cli.records import Failure, Image, ImageInfo, Item, LabelEntry, Response
from tagllm_cli.store.sqlite import Layout, SQLiteFile

PAGE = 500  # rows in memory at a time
KEYS = 500  # keys in one query: older SQLite takes at most 999 variables

_LISTED = """
    id TEXT PRIMARY KEY, position INTEGER NOT NULL, uri TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    fingerprint BLOB, width INTEGER, height INTEGER, error_kind TEXT, error TEXT, proposed TEXT"""
_COLUMNS = "id, position, uri, size, mtime_ns, fingerprint, width, height, error_kind, error, proposed"
_LAYOUT = Layout(
    application_id=0x7461676C,  # "tagl"
    format=1,
    tables=(
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        f"CREATE TABLE image ({_LISTED}, settled BLOB) WITHOUT ROWID",
        "CREATE INDEX image_position ON image (position, id)",
        """CREATE TABLE reply (key BLOB PRIMARY KEY, text TEXT NOT NULL, finish TEXT NOT NULL, logprobs TEXT,
           prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
           run INTEGER NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE failed_request (key BLOB PRIMARY KEY, kind TEXT NOT NULL, message TEXT NOT NULL,
           run INTEGER NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE run (id INTEGER PRIMARY KEY, command TEXT NOT NULL, version TEXT NOT NULL,
           started REAL NOT NULL, ended REAL, report TEXT)""",
    ),
    temporary=(f"CREATE TEMP TABLE listed ({_LISTED}) WITHOUT ROWID",),
)

_TOUCHED = "(l.size, l.mtime_ns) IS NOT (i.size, i.mtime_ns)"
# A listing that brings its own findings (an earlier table) redoes an image when any of them differs.
_REDONE = """l.proposed IS NOT i.proposed OR (coalesce(l.fingerprint, l.error_kind) IS NOT NULL
    AND (l.fingerprint, l.error_kind, l.error) IS NOT (i.fingerprint, i.error_kind, i.error))"""


@dataclass(frozen=True, slots=True)
class Listing:
    """How the images of a listing differ from those on record: counts of images."""

    total: int
    new: int
    changed: int
    gone: int
    known: int


class Evidence:
    """The evidence file of one table, open for writing; use it as a context manager.

    Left with an exception it forgets what was not committed: input that cannot be used leaves no trace.
    """

    def __init__(self, path: Path | None) -> None:
        """Open or create the file (None: in memory, for a dry run). Raises TableError where that is not possible."""
        self._file = SQLiteFile(path, _LAYOUT)
        self._run = 0
        self._revised = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.commit()
            self._file.close()
        else:
            self._file.abandon()

    # -- transactions ---------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Make everything recorded so far durable against a killed process."""
        if self._revised:
            self.set_meta("revision", self.revision + 1, revises=False)
        self._file.commit()
        self._revised = False

    def rollback(self) -> None:
        """Forget everything since the last commit."""
        self._file.rollback()
        self._revised = False

    @property
    def revision(self) -> int:
        """How many commits have changed what a table could show; equal revisions derive equal tables."""
        return int(self.meta("revision") or 0)

    def meta(self, key: str) -> Any:
        """Return the JSON value under `key`, None where there is none."""
        found = self._file.query("SELECT value FROM meta WHERE key = ?", (key,))
        return json.loads(found[0][0]) if found else None

    def set_meta(self, key: str, value: Any, *, revises: bool = True) -> None:
        """Keep a JSON value under `key`; `revises` says whether a table could show the difference."""
        self._revised |= revises
        self._file.query("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value, sort_keys=True)))

    # -- images ---------------------------------------------------------------------------------------------------

    def list_images(self, items: Iterable[tuple[int, Item]]) -> None:
        """Take in a listing of (position in the source, subject), in a temporary table; nothing is merged yet."""
        self._file.query("DELETE FROM listed")
        stream = iter(items)
        statement = f"INSERT OR IGNORE INTO listed ({_COLUMNS}) VALUES ({', '.join('?' * 11)})"
        while chunk := list(islice(stream, PAGE)):
            self._file.insert(statement, [_image_values(position, item) for position, item in chunk])

    def compare(self, *, complete: bool) -> Listing:
        """Count how the listing differs from the record. Only a complete listing knows what is gone."""
        return Listing(
            total=self._count("listed"),
            new=self._count("listed WHERE id NOT IN (SELECT id FROM image)"),
            changed=self._count(f"listed l JOIN image i USING (id) WHERE {_TOUCHED} OR {_REDONE}"),
            gone=self._count("image WHERE id NOT IN (SELECT id FROM listed)") if complete else 0,
            known=self._count("image"),
        )

    def merge(self, *, complete: bool, by_hash: bool) -> None:
        """Bring the record up to the listing: add what is new, reopen what changed, drop what is gone.

        Changed is what has another size, time or finding; with `by_hash` every image is opened to see.
        """
        before, run = self._file.changes, self._file.query
        run(
            f"""UPDATE image AS i SET size = l.size, mtime_ns = l.mtime_ns, fingerprint = l.fingerprint,
                width = l.width, height = l.height, error_kind = l.error_kind, error = l.error,
                proposed = l.proposed, settled = NULL
                FROM listed AS l WHERE l.id = i.id AND ({int(by_hash)} OR {_TOUCHED} OR {_REDONE})"""
        )
        run(
            """UPDATE image AS i SET position = l.position, uri = l.uri
               FROM listed AS l WHERE l.id = i.id AND (l.position, l.uri) IS NOT (i.position, i.uri)"""
        )
        run(f"INSERT INTO image ({_COLUMNS}) SELECT {_COLUMNS} FROM listed WHERE id NOT IN (SELECT id FROM image)")
        if complete:
            run("DELETE FROM image WHERE id NOT IN (SELECT id FROM listed)")
        self._revised |= self._file.changes != before

    def iter_items(self, *, listed_only: bool = False) -> Iterator[tuple[Item, bytes | None]]:
        """Yield (subject, settled mark) in source order, a page in memory at a time; safe against writes in between."""
        only = "AND id IN (SELECT id FROM listed)" if listed_only else ""
        query = f"""SELECT {_COLUMNS}, settled FROM image WHERE (position, id) > (?, ?) {only}
            ORDER BY position, id LIMIT {PAGE}"""
        last: tuple[int, str] = (-1, "")
        while page := self._file.query(query, last):
            for values in page:
                yield _item(values), values[11]
            last = (page[-1][1], page[-1][0])

    def count_images(self) -> int:
        """Return the number of images on record."""
        return self._count("image")

    def set_info(self, image_id: str, info: ImageInfo) -> None:
        """Record what opening an image found out; what was settled about it no longer is."""
        self._file.query(
            """UPDATE image SET fingerprint = ?, width = ?, height = ?, error_kind = ?, error = ?, settled = NULL
               WHERE id = ?""",
            (info.fingerprint, info.width, info.height, *_failure_values(info.failure), image_id),
        )
        self._revised = True

    def set_settled(self, image_id: str, mark: bytes) -> None:
        """Remember that everything that `mark` stands for is answered about this image."""
        self._file.query("UPDATE image SET settled = ? WHERE id = ?", (mark, image_id))
        self._revised = True  # other questions than before, even where their answers were on record

    # -- requests -------------------------------------------------------------------------------------------------

    def has_responses(self) -> bool:
        """Tell whether anything was answered yet: until then, no plan is worth pinning."""
        return bool(self._file.query("SELECT 1 FROM reply LIMIT 1"))

    def answered(self, keys: Sequence[bytes]) -> frozenset[bytes]:
        """Return those of the requests that have an answer."""
        return frozenset(found[0] for found in self._by_key("SELECT key FROM reply", keys))

    def responses(self, keys: Sequence[bytes]) -> list[Response | None]:
        """Return what is on record for each request: an answer, a failure, or None where it was not asked yet."""
        answers = "SELECT key, text, finish, logprobs, prompt_tokens, cached_tokens, output_tokens FROM reply"
        found = {key: _response(values) for key, *values in self._by_key(answers, keys)}
        if lacking := [key for key in keys if key not in found]:
            failures = self._by_key("SELECT key, kind, message FROM failed_request", lacking)
            found.update({key: Response(failure=Failure(kind, message)) for key, kind, message in failures})
        return [found.get(key) for key in keys]

    def _by_key(self, select: str, keys: Sequence[bytes]) -> Iterator[Any]:
        for start in range(0, len(keys), KEYS):
            some = keys[start : start + KEYS]
            yield from self._file.query(f"{select} WHERE key IN ({', '.join('?' * len(some))})", some)

    def record(self, key: bytes, response: Response) -> None:
        """Record an answer (the first one wins) or a failure (kept until an answer comes)."""
        self._revised = True
        if response.failure is not None:
            values = (key, *_failure_values(response.failure), self._run)
            self._file.query("INSERT OR REPLACE INTO failed_request VALUES (?, ?, ?, ?)", values)
            return
        logprobs = {token: round(value, 4) for token, value in response.first_logprobs.items()}
        encoded = json.dumps(logprobs, separators=(",", ":")) if logprobs else None
        tokens = (response.prompt_tokens, response.cached_tokens, response.output_tokens)
        self._file.query(
            "INSERT OR IGNORE INTO reply VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (key, _text(response.text), response.finish, encoded, *tokens, self._run),
        )
        self._file.query("DELETE FROM failed_request WHERE key = ?", (key,))

    # -- runs -----------------------------------------------------------------------------------------------------

    def start_run(self, command: str, version: str) -> None:
        """Open a run report; later records are attributed to it."""
        values = (command, version, time.time())
        self._file.query("INSERT INTO run (command, version, started) VALUES (?, ?, ?)", values)
        self._run = self._file.query("SELECT last_insert_rowid()")[0][0]

    def end_run(self, report: Any) -> None:
        """Close the run report that `start_run` opened with a JSON value."""
        values = (time.time(), json.dumps(report, sort_keys=True), self._run)
        self._file.query("UPDATE run SET ended = ?, report = ? WHERE id = ?", values)

    def _count(self, what: str) -> int:
        return int(self._file.query(f"SELECT count(*) FROM {what}")[0][0])


def _image_values(position: int, item: Item) -> tuple[Any, ...]:
    image, info = item.image, item.info
    proposed = None
    if item.proposed is not None:
        entries = [(entry.name, entry.score, entry.arms, entry.groups) for entry in item.proposed]
        proposed = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
    found: tuple[Any, ...] = (None, None, None, None, None)
    if info is not None:
        found = (info.fingerprint or None, info.width, info.height, *_failure_values(info.failure))
    return (image.id, position, image.uri, image.size, image.mtime_ns, *found, proposed)


def _item(values: Sequence[Any]) -> Item:
    id_, _, uri, size, mtime_ns, fingerprint, width, height, error_kind, error, proposed, _ = values
    info = None
    if fingerprint is not None or error_kind is not None:
        failure = Failure(error_kind, error) if error_kind is not None else None
        info = ImageInfo(fingerprint or b"", width or 0, height or 0, failure)
    entries = None
    if proposed is not None:
        entries = tuple(
            LabelEntry(name, score=score, arms=tuple(arms), groups=tuple(groups))
            for name, score, arms, groups in json.loads(proposed)
        )
    return Item(Image(id_, uri, size, mtime_ns), info, entries)


def _response(values: Sequence[Any]) -> Response:
    text, finish, logprobs, *tokens = values
    return Response(text, finish, json.loads(logprobs) if logprobs else {}, *tokens)


def _failure_values(failure: Failure | None) -> tuple[str | None, str | None]:
    return (None, None) if failure is None else (failure.kind, _text(failure.message))


def _text(text: str) -> str:
    """Return text that can be stored: half a character, which a cut answer may end in, becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
