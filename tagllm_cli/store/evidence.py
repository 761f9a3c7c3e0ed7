"""The evidence: an SQLite file with everything that was paid for, and the checkpoint of every run.

Responses are kept under the identity of their request, so the first recorded answer wins and nothing is asked twice; a
failed request is kept apart from them and is asked again.

An image whose version changed keeps its fingerprint and its responses until its bytes have been read and differ.
`revision` numbers the commits that a table could show; each image carries that of its last change, so a table knows
which of its rows are still right.
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

from tagllm_cli.records import Failure, ImageInfo, Item, Response
from tagllm_cli.store.checksums import insert, is_intact
from tagllm_cli.store.damage import damage_as_table_error, damaged
from tagllm_cli.store.evidence_layout import (
    IMAGE_COLUMNS,
    LAYOUT,
    RecordedImage,
    failure_values,
    image_values,
    response_of,
    storable,
)
from tagllm_cli.store.sqlite import SQLiteFile

PAGE = 500  # rows in memory at a time
KEYS = 500  # keys in one query: older SQLite takes at most 999 variables

_CHANGED = "l.version IS NOT i.version"
# A listing that brings its own findings (an earlier table) redoes an image when any of them differs.
_REDONE = """(l.proposed IS NOT i.proposed OR (coalesce(l.fingerprint, l.error_kind) IS NOT NULL
    AND (l.fingerprint, l.error_kind, l.error) IS NOT (i.fingerprint, i.error_kind, i.error)))"""
_PAIRS = "listed l JOIN image i USING (id)"


@dataclass(frozen=True, slots=True)
class SourceChanges:
    """How the images of a source differ from those on record: counts of images."""

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
        """Open or create the file (None: in memory, for a dry run), migrating an older format.

        Raises TableError for a file that is not ours, damaged, newer, or in use, and for places where none can be.
        """
        self._file = SQLiteFile(path, LAYOUT)
        self._run = 0
        self._revised = False
        self._revision: int | None = None

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
            revision = self.revision + 1
            self.set_meta("revision", revision, revises=False)
            self._file.commit()
            self._revision = revision
        else:
            self._file.commit()
        self._revised = False

    def rollback(self) -> None:
        """Forget everything since the last commit."""
        self._file.rollback()
        self._revised = False

    @property
    def revision(self) -> int:
        """How many commits have changed what a table could show; equal revisions make equal tables."""
        if self._revision is None:
            with damage_as_table_error(self._file.path):
                self._revision = int(self.meta("revision") or 0)
        return self._revision

    def meta(self, key: str, *, derived: bool = False) -> Any:
        """Return the JSON value under `key`, None where there is none.

        A damaged one raises TableError; with `derived`, where it can be found out again, it counts as none.
        """
        found = self._file.query(f"SELECT value FROM meta WHERE key = ? AND {is_intact('meta')}", (key,))
        if not found and not derived and self._file.query("SELECT 1 FROM meta WHERE key = ?", (key,)):
            raise damaged(self._file.path, ValueError(f"the entry {key!r} is not what was written"))
        with damage_as_table_error(self._file.path):
            return json.loads(found[0][0]) if found else None

    def set_meta(self, key: str, value: Any, *, revises: bool = True) -> None:
        """Keep a JSON value under `key`; `revises` says whether a table could show the difference."""
        self._revised |= revises
        self._file.query(insert("meta", "REPLACE"), (key, json.dumps(value, sort_keys=True)))

    # -- images ---------------------------------------------------------------------------------------------------

    def list_images(self, items: Iterable[tuple[int, Item]]) -> None:
        """Take in what a source lists as (position, item), in a temporary table; nothing is merged yet."""
        self._file.query("DELETE FROM listed")
        stream = iter(items)
        statement = f"INSERT OR IGNORE INTO listed ({IMAGE_COLUMNS}) VALUES ({', '.join('?' * 10)})"
        while chunk := list(islice(stream, PAGE)):
            self._file.insert(statement, [image_values(position, item) for position, item in chunk])

    def check_images(self, *, complete: bool) -> int:
        """Forget images whose rows are damaged and come anew with the listing; return how many there are.

        Raises TableError for one that is not listed, where the listing is not `complete` (so that it may be there).
        """
        broken = f"image WHERE NOT {is_intact('image')}"
        if count := self._count(broken):
            if not complete and self._count(f"{broken} AND id NOT IN (SELECT id FROM listed)"):
                raise damaged(self._file.path, ValueError("the row of an image is not what was written"))
            self._change(broken, f"DELETE FROM {broken}")
        return count

    def compare(self, *, complete: bool) -> SourceChanges:
        """Count how the listed images differ from the record. Only a complete listing knows what is gone."""
        return SourceChanges(
            total=self._count("listed"),
            new=self._count("listed WHERE id NOT IN (SELECT id FROM image)"),
            changed=self._count(f"{_PAIRS} WHERE {_CHANGED} OR {_REDONE}"),
            gone=self._count("image WHERE id NOT IN (SELECT id FROM listed)") if complete else 0,
            known=self._count("image"),
        )

    def merge(self, *, complete: bool, by_hash: bool) -> None:
        """Bring the record up to what is listed: add what is new, mark what to verify, drop what is gone.

        An image of another version is read again, with `by_hash` every image; its row stays until then. Where the
        listing brings findings, other ones replace those on record at once.
        """
        self._file.query(
            f"""UPDATE listed SET unverified = 1 WHERE fingerprint IS NULL AND error_kind IS NULL
                AND id IN (SELECT id FROM {_PAIRS} WHERE {int(by_hash)} OR {_CHANGED})"""
        )
        findings = "fingerprint, width, height, error_kind, error, proposed"
        self._take_over(findings, _REDONE, f", completed = NULL, revision = {self.revision + 1}")
        self._take_over("version", f"{_CHANGED} AND NOT l.unverified")
        self._take_over("position", "l.position IS NOT i.position")
        self._take_over("uri", "l.uri IS NOT i.uri", f", revision = {self.revision + 1}")
        new = "listed WHERE id NOT IN (SELECT id FROM image)"
        self._change(
            new, f"INSERT INTO image ({IMAGE_COLUMNS}, revision) SELECT {IMAGE_COLUMNS}, {self.revision + 1} FROM {new}"
        )
        if complete:
            gone = "image WHERE id NOT IN (SELECT id FROM listed)"
            self._change(gone, f"DELETE FROM {gone}")

    def _take_over(self, columns: str, where: str, also: str = "") -> None:
        """Set `columns` to what is listed, for the pairs (l, i) of a listed and a recorded image that meet `where`."""
        pairs = f"{_PAIRS} WHERE {where}"
        self._change(
            pairs,
            f"""UPDATE image SET ({columns}) = (SELECT {columns} FROM listed WHERE listed.id = image.id){also}
                WHERE id IN (SELECT id FROM {pairs})""",
        )

    def _change(self, rows: str, statement: str) -> None:
        """Run a statement if there are `rows` for it: a file that can only be read refuses even one without effect."""
        if self._file.query(f"SELECT EXISTS (SELECT 1 FROM {rows})")[0][0]:
            self._file.query(statement)
            self._revised = True

    def iter_items(self, *, listed_only: bool = False) -> Iterator[tuple[Item, bytes | None]]:
        """Yield (item, hash of the completed requests) in source order, a page in memory at a time.

        An image that has to be verified comes as one that was never opened. Writes in between are safe.
        """
        join = "CROSS JOIN" if listed_only else "LEFT JOIN"  # both keep the order of the loops: images outside
        for image in self._images("coalesce(l.version, i.version)", f"{join} listed l USING (id)", "l.unverified"):
            item = image.item()
            yield (Item(item.image, None, item.proposed), None) if image.values[-1] else (item, image.completed)

    def iter_recorded(self) -> Iterator[RecordedImage]:
        """Yield the images as on record in source order, a page in memory at a time; writes in between are safe."""
        return self._images("i.version", "", "0")

    def _images(self, version: str, join: str, unverified: str) -> Iterator[RecordedImage]:
        query = f"""SELECT i.id, i.position, i.uri, {version}, i.fingerprint, i.width, i.height, i.error_kind, i.error,
            i.proposed, i.completed, i.revision, {unverified} FROM image i {join}
            WHERE (i.position, i.id) > (?, ?) ORDER BY i.position, i.id LIMIT {PAGE}"""
        last: tuple[int, str] = (-1, "")
        while page := self._file.query(query, last):
            for values in page:
                yield RecordedImage(values[0], values[11], values[10], values[7] is not None, self._file.path, values)
            last = (page[-1][1], page[-1][0])

    def has_image(self, image_id: str) -> bool:
        """Tell whether an image is on record."""
        return bool(self._file.query("SELECT 1 FROM image WHERE id = ?", (image_id,)))

    def count_images(self) -> int:
        """Return the number of images on record."""
        return self._count("image")

    def set_info(self, image_id: str, info: ImageInfo) -> None:
        """Record what reading an image found. The same as on record confirms it; anything else reopens the image."""
        query, before = self._file.query, self._file.changes
        found = (info.fingerprint or None, info.width, info.height, *failure_values(info.failure))
        query(
            """UPDATE image SET fingerprint = ?, width = ?, height = ?, error_kind = ?, error = ?, completed = NULL,
               revision = ? WHERE id = ? AND (fingerprint, width, height, error_kind, error) IS NOT (?, ?, ?, ?, ?)""",
            (*found, self.revision + 1, image_id, *found),
        )
        self._revised |= self._file.changes != before
        query(
            """UPDATE image SET version = (SELECT version FROM listed WHERE listed.id = image.id)
               WHERE id = ? AND EXISTS (SELECT 1 FROM listed WHERE listed.id = image.id AND unverified)""",
            (image_id,),
        )
        query("UPDATE listed SET unverified = 0 WHERE id = ? AND unverified", (image_id,))

    def set_completed(self, image_id: str, requests: bytes | None) -> None:
        """Remember the hash of the requests that are all answered about an image; None: look at it again."""
        before = self._file.changes
        values = (requests, image_id, requests)
        self._file.query("UPDATE image SET completed = ? WHERE id = ? AND completed IS NOT ?", values)
        self._revised |= self._file.changes != before

    # -- requests -------------------------------------------------------------------------------------------------

    def has_responses(self) -> bool:
        """Tell whether anything was answered yet: until then, no plan is worth pinning."""
        return bool(self._file.query("SELECT 1 FROM response LIMIT 1"))

    def answered(self, keys: Sequence[bytes]) -> frozenset[bytes]:
        """Return those of the requests that have an answer."""
        return frozenset(found[0] for found in self._by_key("key", "response", keys))

    def responses(self, keys: Sequence[bytes]) -> list[Response | None]:
        """Return what is on record for each request: a response, a failure, or None where it was not asked yet."""
        columns = "key, text, finish, logprobs, prompt_tokens, cached_tokens, output_tokens"
        with damage_as_table_error(self._file.path):
            found = {key: response_of(values) for key, *values in self._by_key(columns, "response", keys)}
        if lacking := [key for key in keys if key not in found]:
            failures = self._by_key("key, kind, message", "failed_request", lacking)
            found.update({key: Response(failure=Failure(kind, message)) for key, kind, message in failures})
        return [found.get(key) for key in keys]

    def _by_key(self, columns: str, table: str, keys: Sequence[bytes]) -> Iterator[Any]:
        """Yield the intact rows; one that is damaged counts as not on record."""
        for start in range(0, len(keys), KEYS):
            some = keys[start : start + KEYS]
            found = f"key IN ({', '.join('?' * len(some))}) AND {is_intact(table)}"
            yield from self._file.query(f"SELECT {columns} FROM {table} WHERE {found}", some)

    def record(self, key: bytes, response: Response) -> None:
        """Record an answer (the first one wins) or a failure (kept until an answer comes)."""
        self._revised = True
        if response.failure is not None:
            failed = (key, *failure_values(response.failure), self._run)
            self._file.query(insert("failed_request", "REPLACE"), failed)
            return
        logprobs = {token: round(value, 4) for token, value in response.first_logprobs.items()}
        encoded = json.dumps(logprobs, separators=(",", ":")) if logprobs else None
        tokens = (response.prompt_tokens, response.cached_tokens, response.output_tokens)
        values = (key, storable(response.text), response.finish, encoded, *tokens, self._run)
        before = self._file.changes
        self._file.query(insert("response", "IGNORE"), values)
        if self._file.changes == before:  # there is one, which stays unless it is damaged
            self._file.query(f"DELETE FROM response WHERE key = ? AND NOT {is_intact('response')}", (key,))
            self._file.query(insert("response", "IGNORE"), values)
        self._file.query("DELETE FROM failed_request WHERE key = ?", (key,))

    # -- runs -----------------------------------------------------------------------------------------------------

    def start_run(self, command: str, version: str, engine: str | None = None) -> None:
        """Open a run record; later responses are attributed to it. `version` is tagllm's, `engine` the engine's."""
        values = (command, version, time.time(), engine)
        self._file.query("INSERT INTO run (command, version, started, engine) VALUES (?, ?, ?, ?)", values)
        self._run = self._file.query("SELECT last_insert_rowid()")[0][0]

    def set_run_engine(self, version: str) -> None:
        """Add the engine's version to the run record: it is known once the engine has started."""
        self._file.query("UPDATE run SET engine = ? WHERE id = ?", (version, self._run))

    def end_run(self, report: Any) -> None:
        """Close the run record that `start_run` opened with a report, a JSON value."""
        values = (time.time(), json.dumps(report, sort_keys=True), self._run)
        self._file.query("UPDATE run SET ended = ?, report = ? WHERE id = ?", values)

    def _count(self, what: str) -> int:
        return int(self._file.query(f"SELECT count(*) FROM {what}")[0][0])
