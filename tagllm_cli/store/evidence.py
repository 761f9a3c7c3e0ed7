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
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tagllm_cli.records import Failure, Image, ImageInfo, Item, Response, Shard
from tagllm_cli.store import human_labels, listing
from tagllm_cli.store.checksums import insert, is_intact
from tagllm_cli.store.damage import damage_as_table_error, damaged
from tagllm_cli.store.evidence_layout import (
    LAYOUT,
    RecordedImage,
    failure_values,
    item_of,
    response_of,
    storable,
)
from tagllm_cli.store.human_labels import HumanDecision
from tagllm_cli.store.listing import PAGE, SourceChanges
from tagllm_cli.store.recorded_decisions import RecordedDecisions
from tagllm_cli.store.run_records import RunProgress
from tagllm_cli.store.sqlite import SQLiteFile

KEYS = 500  # keys in one query: older SQLite takes at most 999 variables


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
        self._progress: RunProgress | None = None  # of a run that has not ended
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
        self._keep_progress()
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
        if self._progress is not None:
            self._progress.rollback()

    @property
    def revision(self) -> int:
        """How many commits have changed what a table could show; equal revisions make equal tables."""
        if self._revision is None:
            with damage_as_table_error(self._file.path):
                self._revision = int(self.meta("revision") or 0)
        return self._revision

    @property
    def has_changes(self) -> bool:
        """Whether something that a table could show is not committed yet."""
        return self._revised

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

    # -- the listing ----------------------------------------------------------------------------------------------

    def begin_listing(self) -> None:
        """Begin to take in what a source lists now, in temporary tables; nothing is merged yet."""
        listing.begin(self._file)

    def knows_shard(self, shard: Shard) -> bool:
        """Tell whether all images of a shard are on record, as they are in this version."""
        return listing.knows_shard(self._file, shard)

    def is_damaged(self, shard: Shard) -> bool:
        """Tell whether what is on record about the images of a shard is not what was written."""
        return listing.is_damaged(self._file, shard)

    def forget_shards(self) -> None:
        """Forget which shards are known, so that all are listed again."""
        listing.forget_shards(self._file)

    def list_shard(self, shard: Shard, items: Iterable[tuple[int, Item]]) -> None:
        """Take in a shard with its images as (position in the shard, item)."""
        listing.add_shard(self._file, shard, listing.LISTED)
        self.list_images(items)

    def list_images(self, items: Iterable[tuple[int, Item]]) -> None:
        """Take in some images of any shards."""
        listing.add_images(self._file, items)

    def keep_shard(self, shard: Shard) -> None:
        """Take in a shard whose images are those on record."""
        listing.add_shard(self._file, shard, listing.KNOWN)

    def leave_unread(self, shard: Shard) -> None:
        """Take in a shard whose images become known when it is read."""
        listing.add_shard(self._file, shard, listing.UNREAD)

    def check_images(self, *, complete: bool) -> int:
        """Forget images whose rows are damaged and come anew with the listing; return how many there are.

        Raises TableError for one that is not listed, where the listing is not `complete` (so that it may be there).
        """
        forgotten = listing.check(self._file, complete=complete)
        self._revised |= bool(forgotten)
        return forgotten

    def damaged_shards(self) -> list[Shard]:
        """Return the shards that are kept, and whose images on record are damaged: they have to be listed again."""
        return listing.damaged_shards(self._file)

    def compare(self, *, complete: bool) -> SourceChanges:
        """Count how the listed images differ from the record. Only a complete listing knows what is gone."""
        return listing.compare(self._file, complete=complete)

    def merge(self, *, complete: bool, by_hash: bool) -> None:
        """Bring the record up to what is listed; see `listing.merge`."""
        self._revised |= listing.merge(self._file, self.revision + 1, complete=complete, by_hash=by_hash)

    def add_streamed(self, position: int, image: Image, *, by_hash: bool = False) -> None:
        """Take in an image that was found while its shard is read; see `listing.add_streamed`."""
        self._revised |= listing.add_streamed(self._file, self.revision + 1, position, Item(image), by_hash=by_hash)

    def finish_shard(self, shard: Shard) -> None:
        """Record that all images of a shard that was read are known now; forget those that are gone from it."""
        self._revised |= listing.finish_shard(self._file, shard)

    def record_verified(self) -> None:
        """Record the shards whose listed images are all verified by now; see `listing.record_verified`."""
        listing.record_verified(self._file)

    # -- images ---------------------------------------------------------------------------------------------------

    def shards(self, *, listed_only: bool = False) -> list[tuple[Shard, bool]]:
        """Return the shards that hold images, or may hold some, in order, and whether each is still to be read.

        `listed_only`: those of the images that were listed.
        """
        if listed_only:
            return [
                (Shard(name), False) for (name,) in self._file.query("SELECT DISTINCT shard FROM listed ORDER BY 1")
            ]
        unread = self._file.query(f"SELECT name, version FROM listed_shard WHERE state = '{listing.UNREAD}'")
        found = {name: (Shard(name), False) for name in self._recorded_shards()}
        found.update({name: (Shard(name, version), True) for name, version in unread})
        return [found[name] for name in sorted(found)]

    def _recorded_shards(self) -> Iterator[str]:
        query = "SELECT min(shard) FROM image WHERE shard > ?"  # one step in the index for each shard
        name = "" if self._file.query("SELECT EXISTS (SELECT 1 FROM image WHERE shard = '')")[0][0] else None
        if name is not None:
            yield name
        while (name := self._file.query(query, (name or "",))[0][0]) is not None:
            yield name

    def iter_items(self, *, listed_only: bool = False, shard: str | None = None) -> Iterator[tuple[Item, bytes | None]]:
        """Yield (item, hash of the completed requests) in source order, a page in memory at a time.

        `shard`: of this one only. An image that has to be verified comes as one that was never opened. Writes in
        between are safe.
        """
        join = "CROSS JOIN" if listed_only else "LEFT JOIN"  # both keep the order of the loops: images outside
        columns = "coalesce(l.version, i.version)", f"{join} listed l USING (id)", "l.unverified"
        for image in self._images(*columns, shard):
            item = image.item()
            yield (Item(item.image, None, item.proposed), None) if image.values[-1] else (item, image.completed)

    def iter_recorded(self, shard: str | None = None) -> Iterator[RecordedImage]:
        """Yield the images as on record in source order, a page in memory at a time; writes in between are safe."""
        return self._images("i.version", "", "0", shard)

    def _images(self, version: str, join: str, unverified: str, shard: str | None = None) -> Iterator[RecordedImage]:
        only = "" if shard is None else "i.shard = ?4 AND "
        query = f"""SELECT i.id, i.position, i.uri, {version}, i.fingerprint, i.width, i.height, i.error_kind, i.error,
            i.proposed, i.shard, i.completed, i.revision, {unverified} FROM image i {join}
            WHERE {only}(i.shard, i.position, i.id) > (?1, ?2, ?3)
            ORDER BY i.shard, i.position, i.id LIMIT {PAGE}"""
        last: tuple[str, int, str] = (shard or "", -1, "")
        while page := self._file.query(query, last if shard is None else (*last, shard)):
            for values in page:
                yield RecordedImage(values[0], values[12], values[11], values[7] is not None, self._file.path, values)
            last = (page[-1][10], page[-1][1], page[-1][0])

    def item_to_ask(self, image_id: str) -> tuple[Item, bytes | None]:
        """Return an image that is on record as `iter_items` yields it."""
        query = """SELECT i.id, i.position, i.uri, coalesce(l.version, i.version), i.fingerprint, i.width, i.height,
            i.error_kind, i.error, i.proposed, i.shard, i.completed, l.unverified
            FROM image i LEFT JOIN listed l USING (id) WHERE i.id = ?"""
        (values,) = self._file.query(query, (image_id,))
        with damage_as_table_error(self._file.path):
            item = item_of(values)
        return (Item(item.image, None, item.proposed), None) if values[12] else (item, values[11])

    def has_image(self, image_id: str) -> bool:
        """Tell whether an image is on record."""
        return bool(self._file.query("SELECT 1 FROM image WHERE id = ?", (image_id,)))

    def count_images(self) -> int:
        """Return the number of images on record."""
        return listing.count_of(self._file, "image")

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

    def is_settled(self, retried: Collection[str]) -> bool:
        """Tell whether a run would find nothing to do: no failed request, no image that lacks answers.

        `retried`: kinds of failures that are tried again although the bytes are the same.
        """
        lacking = f"""image WHERE completed IS NULL AND proposed IS NOT '[]' AND
            (error_kind IS NULL OR fingerprint IS NULL OR error_kind IN ({", ".join("?" * len(retried))}))"""
        query = f"SELECT EXISTS (SELECT 1 FROM failed_request) OR EXISTS (SELECT 1 FROM {lacking})"
        return not self._file.query(query, tuple(retried))[0][0]

    # -- requests -------------------------------------------------------------------------------------------------

    def has_responses(self) -> bool:
        """Tell whether anything was answered yet: until then, no plan is worth pinning."""
        return bool(self._file.query("SELECT 1 FROM response LIMIT 1"))

    def answered(self, keys: Sequence[bytes]) -> frozenset[bytes]:
        """Return those of the requests that have an answer."""
        return frozenset(found[0] for found in self._by_key("key", "response", keys))

    def answers(self, keys: Sequence[bytes]) -> dict[bytes, Response]:
        """Return the answers that are on record."""
        columns = "key, text, finish, logprobs, prompt_tokens, cached_tokens, output_tokens"
        with damage_as_table_error(self._file.path):
            return {key: response_of(values) for key, *values in self._by_key(columns, "response", keys)}

    def responses(self, keys: Sequence[bytes]) -> list[Response | None]:
        """Return what is on record for each request: a response, a failure, or None where it was not asked yet."""
        found = self.answers(keys)
        if lacking := [key for key in keys if key not in found]:
            failures = self._by_key("key, kind, message", "failed_request", lacking)
            found.update({key: Response(failure=Failure(kind, message)) for key, kind, message in failures})
        return [found.get(key) for key in keys]

    def have_failed(self, keys: Sequence[bytes]) -> bool:
        """Tell whether each of these requests, none of which has an answer, has failed in the run that is open."""
        if self._progress is None or not self._progress.has_failures:
            return False
        found = {key for key, run in self._by_key("key, run", "failed_request", keys) if run == self._run}
        return found.issuperset(keys)

    def _by_key(self, columns: str, table: str, keys: Sequence[bytes]) -> Iterator[Any]:
        """Yield the intact rows; one that is damaged counts as not on record."""
        for start in range(0, len(keys), KEYS):
            some = keys[start : start + KEYS]
            found = f"key IN ({', '.join('?' * len(some))}) AND {is_intact(table)}"
            yield from self._file.query(f"SELECT {columns} FROM {table} WHERE {found}", some)

    def record(self, key: bytes, response: Response) -> None:
        """Record an answer (the first one wins) or a failure (kept until an answer comes)."""
        self._revised = True
        if self._progress is not None:
            self._progress.add(response)
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

    # -- people -------------------------------------------------------------------------------------------------------

    @property
    def human(self) -> RecordedDecisions:
        """What people decided, to read."""
        return RecordedDecisions(self._file)

    def record_decisions(self, decisions: Sequence[HumanDecision]) -> int:
        """Add what people decided; return how much of it was not on record. The rows of these images come anew."""
        added = human_labels.record(self._file, decisions)
        if added:
            self._revised = True
            human_labels.mark_images(self._file, {each.fingerprint for each in decisions}, self.revision + 1)
        return added

    # -- runs -----------------------------------------------------------------------------------------------------

    def start_run(self, command: str, version: str, engine: str | None = None, *, has_clock: bool = True) -> None:
        """Open a run record; later responses are attributed to it. `version` is tagllm's, `engine` the engine's.

        A second pass of the same run, before `end_run`, goes on with its record. `has_clock`: its time is not counted
        elsewhere, by the run of another stage that goes on at the same time.
        """
        if self._progress is not None:
            return
        values = (command, version, time.time(), engine)
        self._file.query("INSERT INTO run (command, version, started, engine) VALUES (?, ?, ?, ?)", values)
        self._run = self._file.query("SELECT last_insert_rowid()")[0][0]
        self._progress = RunProgress(has_clock=has_clock)

    def set_run_engine(self, version: str) -> None:
        """Add the engine's version to the run record: it is known once the engine has started."""
        self._file.query("UPDATE run SET engine = ? WHERE id = ?", (version, self._run))

    def _keep_progress(self) -> None:
        """Bring the record of a run that has not ended up to its responses, with which it is committed."""
        if self._progress is not None and self._progress.is_new:
            report = json.dumps(self._progress.to_json(), sort_keys=True)
            self._file.query("UPDATE run SET report = ? WHERE id = ?", (report, self._run))

    def end_run(self, report: Any) -> None:
        """Close the run record that `start_run` opened, if it did, with a report, a JSON value."""
        if self._progress is None:
            return
        self._progress = None
        values = (time.time(), json.dumps(report, sort_keys=True), self._run)
        self._file.query("UPDATE run SET ended = ?, report = ? WHERE id = ?", values)
