"""What a source shows now, in temporary tables, compared with the images on record and merged into them.

    listed          the images of shards that were listed, or are being read
    listed_shard    every shard of the source, and in which state its images are (KNOWN, LISTED, UNREAD)

The record of a shard (table `shard`) spares the next runs from listing it, as long as its version is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tagllm_cli.records import Item, Shard
from tagllm_cli.store.checksums import insert, insert_from, is_intact
from tagllm_cli.store.damage import damaged
from tagllm_cli.store.evidence_layout import IMAGE_COLUMNS, image_values
from tagllm_cli.store.sqlite import SQLiteFile

PAGE = 500  # rows in memory at a time

# States of a shard. `known`: its images are those on record; `listed`: those in the table `listed`; `unread`: nobody
# knows them before it is read.
KNOWN, LISTED, UNREAD = "known", "listed", "unread"

_CHANGED = "l.version IS NOT i.version"
# A listing that brings its own findings (an earlier table) redoes an image when any of them differs.
_REDONE = """(l.proposed IS NOT i.proposed OR (coalesce(l.fingerprint, l.error_kind) IS NOT NULL
    AND (l.fingerprint, l.error_kind, l.error) IS NOT (i.fingerprint, i.error_kind, i.error)))"""
_MOVED = "(l.position, l.shard, l.uri) IS NOT (i.position, i.shard, i.uri)"
_PAIRS = "listed l JOIN image i USING (id)"
_KNOWN_SHARDS = f"SELECT name FROM listed_shard WHERE state = '{KNOWN}'"
# Complete listings only. Of a shard that is not read yet, or that cannot be read to its end (so that an image of its
# name stands for the rest), nobody knows what is gone.
_GONE = f"""image WHERE id NOT IN (SELECT id FROM listed)
    AND shard NOT IN (SELECT name FROM listed_shard WHERE state != '{LISTED}')
    AND shard NOT IN (SELECT shard FROM listed WHERE id = shard)"""
_COLUMNS = IMAGE_COLUMNS.split(", ")
_INSERT = f"INSERT OR IGNORE INTO listed ({IMAGE_COLUMNS}) VALUES ({', '.join('?' * len(_COLUMNS))})"


@dataclass(frozen=True, slots=True)
class SourceChanges:
    """How the images of a source differ from those on record: counts of images.

    `unread` counts shards whose images become known when they are read; `total` and `new` are without them.
    `moved` are at another place in the source.
    """

    total: int
    new: int
    changed: int
    gone: int
    known: int
    unread: int = 0
    moved: int = 0

    @property
    def is_nothing(self) -> bool:
        """Whether the source is as it was."""
        return not (self.new or self.changed or self.gone or self.unread or self.moved)


def begin(file: SQLiteFile) -> None:
    """Forget an earlier listing."""
    file.query("DELETE FROM listed")
    file.query("DELETE FROM listed_shard")


def add_images(file: SQLiteFile, items: Iterable[tuple[int, Item]]) -> None:
    """Take in listed images with their positions within their shards; the first of an id counts."""
    stream = iter(items)
    while chunk := list(islice(stream, PAGE)):
        file.insert(_INSERT, [image_values(position, item) for position, item in chunk])


def add_shard(file: SQLiteFile, shard: Shard, state: str) -> None:
    """Take in a shard; see KNOWN, LISTED and UNREAD."""
    file.query("INSERT OR REPLACE INTO listed_shard VALUES (?, ?, ?)", (shard.name, shard.version, state))


def knows_shard(file: SQLiteFile, shard: Shard) -> bool:
    """Tell whether all images of a shard are on record, as they are in this version."""
    query = f"SELECT 1 FROM shard WHERE name = ? AND version = ? AND {is_intact('shard')}"
    return bool(shard.version and file.query(query, (shard.name, shard.version)))


def is_damaged(file: SQLiteFile, shard: Shard) -> bool:
    """Tell whether the row of an image of a shard is not what was written."""
    broken = f"image WHERE shard = ? AND NOT {is_intact('image')}"
    return bool(file.query(f"SELECT EXISTS (SELECT 1 FROM {broken})", (shard.name,))[0][0])


def forget_shards(file: SQLiteFile) -> None:
    """Forget which shards are known: all have to be listed again."""
    if count_of(file, "shard"):
        file.query("DELETE FROM shard")


def check(file: SQLiteFile, *, complete: bool) -> int:
    """Forget images whose rows are damaged and come anew with the listing; return how many there are.

    Those of known shards are not looked at; see `damaged_shards`. Raises TableError for one that is not listed, where
    the listing is not `complete` (so that it may be there).
    """
    broken = f"image WHERE shard NOT IN ({_KNOWN_SHARDS}) AND NOT {is_intact('image')}"
    count = count_of(file, broken)
    if count:
        if not complete and count_of(file, f"{broken} AND id NOT IN (SELECT id FROM listed)"):
            raise damaged(file.path, ValueError("the row of an image is not what was written"))
        file.query(f"DELETE FROM {broken}")
    return count


def damaged_shards(file: SQLiteFile) -> list[Shard]:
    """Return the known shards in which the row of an image is damaged: they have to be listed again."""
    broken = f"image WHERE shard IN ({_KNOWN_SHARDS}) AND NOT {is_intact('image')}"
    names = f"SELECT DISTINCT shard FROM {broken}"
    found = file.query(f"SELECT name, version FROM listed_shard WHERE name IN ({names}) ORDER BY name")
    return [Shard(*values) for values in found]


def compare(file: SQLiteFile, *, complete: bool) -> SourceChanges:
    """Count how the listed images differ from the record. Only a complete listing knows what is gone."""
    return SourceChanges(
        total=count_of(file, "listed") + count_of(file, f"image WHERE shard IN ({_KNOWN_SHARDS})"),
        new=count_of(file, "listed WHERE id NOT IN (SELECT id FROM image)"),
        changed=count_of(file, f"{_PAIRS} WHERE {_CHANGED} OR {_REDONE}"),
        gone=count_of(file, _GONE) if complete else 0,
        known=count_of(file, "image"),
        unread=count_of(file, f"listed_shard WHERE state = '{UNREAD}'"),
        moved=count_of(file, f"{_PAIRS} WHERE {_MOVED}"),
    )


def merge(file: SQLiteFile, revision: int, *, complete: bool, by_hash: bool) -> bool:
    """Bring the record up to what is listed: add what is new, mark what to verify, drop what is gone.

    An image of another version is read again, with `by_hash` every image; its row stays until then. Where the listing
    brings findings, other ones replace those on record at once. Changed images get this `revision`. Returns whether
    anything has changed.
    """
    merger = _Merger(file, revision)
    if not complete:
        merger.forget_changed_shards()
    unverified = f"""listed WHERE fingerprint IS NULL AND error_kind IS NULL
        AND id IN (SELECT id FROM {_PAIRS} WHERE {int(by_hash)} OR {_CHANGED})"""
    file.query(f"UPDATE listed SET unverified = 1 WHERE id IN (SELECT id FROM {unverified})")
    findings = "fingerprint, width, height, error_kind, error, proposed"
    merger.take_over(findings, _REDONE, f", completed = NULL, revision = {revision}")
    merger.take_over("version", f"{_CHANGED} AND NOT l.unverified")
    merger.take_over("position, shard", "(l.position, l.shard) IS NOT (i.position, i.shard)")
    merger.take_over("uri", "l.uri IS NOT i.uri", f", revision = {revision}")
    merger.add("listed WHERE id NOT IN (SELECT id FROM image)")
    if complete:
        merger.change(_GONE, f"DELETE FROM {_GONE}")
        merger.record_shards()
    return merger.has_changed


def add_streamed(file: SQLiteFile, revision: int, position: int, item: Item, *, by_hash: bool) -> bool:
    """Take in an image that was found while its shard is read; return whether a table could show the difference.

    One of another version than on record, with `by_hash` every one, has to be verified, as after a listing.
    """
    image = item.image
    file.query(_INSERT, image_values(position, item))
    recorded = file.query("SELECT version, position, uri, shard FROM image WHERE id = ?", (image.id,))
    merger = _Merger(file, revision)
    if not recorded:
        merger.add("listed WHERE id = ?", (image.id,))
        return True
    version, *place = recorded[0]
    if by_hash or version != image.version:
        file.query("UPDATE listed SET unverified = 1 WHERE id = ?", (image.id,))
    if place == [position, image.uri, image.shard]:
        return False
    file.query(
        "UPDATE image SET position = ?, uri = ?, shard = ?, revision = ? WHERE id = ?",
        (position, image.uri, image.shard, revision, image.id),
    )
    return True


def finish_shard(file: SQLiteFile, shard: Shard) -> bool:
    """Record that all images of a shard that was read are known now; forget those that are gone from it."""
    gone = "image WHERE shard = ? AND id NOT IN (SELECT id FROM listed)"
    has_gone = bool(file.query(f"SELECT EXISTS (SELECT 1 FROM {gone})", (shard.name,))[0][0])
    if has_gone:
        file.query(f"DELETE FROM {gone}", (shard.name,))
    unverified = "image i CROSS JOIN listed l USING (id) WHERE i.shard = ? AND l.unverified"  # this order: one shard's
    if shard.version and not file.query(f"SELECT EXISTS (SELECT 1 FROM {unverified})", (shard.name,))[0][0]:
        file.query(insert("shard", "REPLACE"), (shard.name, shard.version))
    add_shard(file, shard, KNOWN)
    return has_gone


def record_verified(file: SQLiteFile) -> None:
    """Record the shards of which all images are on record in the listed version.

    A shard whose images are still to be verified stays out: the next run, which would not list it again, would take
    them for unchanged. So does one that could not be read to its end.
    """
    whole = f"""listed_shard WHERE state != '{UNREAD}' AND version != '' AND name NOT IN (SELECT name FROM shard)
        AND name NOT IN (SELECT id FROM listed) AND name NOT IN (SELECT shard FROM listed WHERE unverified)"""
    if count_of(file, whole):
        file.query(insert_from("shard", {"name": "name", "version": "version"}, whole))


def count_of(file: SQLiteFile, what: str) -> int:
    """Return the number of rows in a table, with a condition."""
    return int(file.query(f"SELECT count(*) FROM {what}")[0][0])


class _Merger:
    """Changes of the record by one revision. A file that can only be read refuses even a statement without effect."""

    def __init__(self, file: SQLiteFile, revision: int) -> None:
        self._file, self._revision = file, revision
        self.has_changed = False

    def take_over(self, columns: str, where: str, also: str = "") -> None:
        """Set `columns` to what is listed, for the pairs (l, i) of a listed and a recorded image that meet `where`."""
        pairs = f"{_PAIRS} WHERE {where}"
        self.change(
            pairs,
            f"""UPDATE image SET ({columns}) = (SELECT {columns} FROM listed WHERE listed.id = image.id){also}
                WHERE id IN (SELECT id FROM {pairs})""",
        )

    def add(self, rows: str, values: Sequence[Any] = ()) -> None:
        """Record images of the table `listed`."""
        given = {**{column: column for column in _COLUMNS}, "completed": "NULL", "revision": str(self._revision)}
        self.change(rows, insert_from("image", given, rows), values)

    def change(self, rows: str, statement: str, values: Sequence[Any] = ()) -> None:
        """Run a statement if there are `rows` for it."""
        if self._file.query(f"SELECT EXISTS (SELECT 1 FROM {rows})", values)[0][0]:
            self._file.query(statement, values)
            self.has_changed = True

    def forget_changed_shards(self) -> None:
        """Forget the record of shards in which other images were listed than it is about."""
        others = f"""SELECT shard FROM listed WHERE id NOT IN (SELECT id FROM image)
            UNION SELECT l.shard FROM {_PAIRS} WHERE {_CHANGED} OR {_MOVED}"""
        lost = f"shard WHERE name IN ({others})"
        if count_of(self._file, lost):
            self._file.query(f"DELETE FROM {lost}")

    def record_shards(self) -> None:
        """Record the listed shards as far as their images are verified, and forget those that are gone."""
        file = self._file
        lost = f"shard WHERE name NOT IN ({_KNOWN_SHARDS})"
        if count_of(file, lost):
            file.query(f"DELETE FROM {lost}")
        record_verified(file)
