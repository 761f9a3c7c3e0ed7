"""The evidence of several parts united: responses by request key, images by id.

All parts are read at once in the order of their keys, so that rows are written in the order of the file and nothing is
held in memory. Part 0 is the output as it was: of equals, the first one counts.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from tagllm_cli.store import human_labels
from tagllm_cli.store.checksums import COLUMNS, insert, is_intact, set_checksums
from tagllm_cli.store.damage import damaged
from tagllm_cli.store.merge.parts import Part
from tagllm_cli.store.sqlite import SQLiteFile

# Where `order_by_path` puts images.
PLACES = "CREATE TEMP TABLE part_place (id TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID"
_CHUNK = 500  # rows written by one call
_IMAGE = COLUMNS["image"]
_POSITION, _REVISION, _SHARD = (_IMAGE.index(name) for name in ("position", "revision", "shard"))
_FINGERPRINT = _IMAGE.index("fingerprint")
_TAKEN = ("text", "finish", "logprobs", "prompt_tokens", "cached_tokens", "output_tokens", "run", "checksum")
# The first recorded answer wins, unless it is damaged.
_RESPONSE = f"""{insert("response", "ABORT")} ON CONFLICT (key) DO UPDATE SET
    ({", ".join(_TAKEN)}) = ({", ".join(f"excluded.{name}" for name in _TAKEN)}) WHERE NOT {is_intact("response")}"""


@dataclass(slots=True)
class Added:
    """What a merge has added: counts of rows. `conflicts`: images whose bytes differ between parts."""

    images: int = 0
    replaced: int = 0
    conflicts: int = 0
    responses: int = 0
    damaged_responses: int = 0
    failed_requests: int = 0
    runs: int = 0
    decisions: int = 0
    touched_shards: set[str] = field(default_factory=set)

    @property
    def is_nothing(self) -> bool:
        """Whether the table would be the same."""
        return not (self.images or self.replaced or self.responses or self.failed_requests or self.decisions)


def unite_requests(file: SQLiteFile, parts: Sequence[Part], added: Added, report: Callable[[int], None]) -> None:
    """Take over runs, responses and failed requests of all parts but the first, which is the file itself."""
    before = file.changes
    runs = [{}, *(_unite_runs(file, part) for part in parts[1:])]
    added.runs = file.changes - before
    before = file.changes
    rows = _responses(parts[1:], runs[1:], added)
    while chunk := list(islice(rows, _CHUNK)):
        file.insert(_RESPONSE, chunk)
        report(len(chunk))
    added.responses = file.changes - before
    before = file.changes
    for part, renumbered in zip(parts[1:], runs[1:], strict=True):
        for *values, run, intact in part.stream("failed_request", "key", COLUMNS["failed_request"]):
            if intact and not file.query("SELECT 1 FROM response WHERE key = ?", values[:1]):
                file.query(insert("failed_request", "IGNORE"), (*values, renumbered.get(run, 0)))
    added.failed_requests = file.changes - before
    file.query("DELETE FROM failed_request WHERE EXISTS (SELECT 1 FROM response WHERE key = failed_request.key)")


def _unite_runs(file: SQLiteFile, part: Part) -> dict[int, int]:
    """Take over the run records of a part; return their new ids. A record is known by command, version and start."""
    ids = {}
    for id_, *run in part.query("SELECT id, command, version, started, ended, report, engine FROM run ORDER BY id", ()):
        same = "command = ? AND version = ? AND started = ?"
        found = file.query(f"SELECT id, ended FROM run WHERE {same}", run[:3])
        if not found:
            names = "command, version, started, ended, report, engine"
            file.query(f"INSERT INTO run ({names}) VALUES (?, ?, ?, ?, ?, ?)", run)
            found = file.query(f"SELECT id, ended FROM run WHERE {same}", run[:3])
        elif found[0][1] is None and run[3] is not None:  # it was under way when it was merged before
            file.query("UPDATE run SET ended = ?, report = ?, engine = ? WHERE id = ?", (*run[3:], found[0][0]))
        ids[id_] = found[0][0]
    return ids


def _responses(parts: Sequence[Part], runs: Sequence[dict[int, int]], added: Added) -> Iterator[tuple[Any, ...]]:
    """Yield the values of each intact response once, by key."""

    def intact(number: int) -> Iterator[tuple[Any, ...]]:
        for key, *values, run, is_whole in parts[number].stream("response", "key", COLUMNS["response"]):
            if is_whole:
                yield (key, number, *values, runs[number].get(run, 0))
            else:
                added.damaged_responses += 1

    last = None
    for key, _, *values in heapq.merge(*map(intact, range(len(parts)))):
        if key != last:
            yield (key, *values)
        last = key


def unite_images(
    file: SQLiteFile, parts: Sequence[Part], revision: int, added: Added, report: Callable[[int], None]
) -> None:
    """Take over the images of all parts, each from the part whose row the table gets; changed ones get `revision`.

    Raises TableError where the row of an image is damaged.
    """
    statement = insert("image", "REPLACE")
    chosen = _chosen_images(file, parts, added, report)
    while chunk := list(islice(chosen, _CHUNK)):
        for values in chunk:
            values[_REVISION] = revision
        file.insert(statement, chunk)


def _chosen_images(
    file: SQLiteFile, parts: Sequence[Part], added: Added, report: Callable[[int], None]
) -> Iterator[list[Any]]:
    """Yield the values of each image that is new or says something else than the output's."""
    streams = [_images(number, part) for number, part in enumerate(parts[1:], 1)]
    groups = groupby(heapq.merge(*streams), itemgetter(0))
    while chunk := [(id_, {number: values for _, number, values in group}) for id_, group in islice(groups, _CHUNK)]:
        report(sum(len(found) for _, found in chunk))
        known = _known(file, parts[0], [id_ for id_, _ in chunk])
        for id_, found in chunk:
            number, before = known.get(id_, (None, None))
            if before is not None:
                found[0] = before
            if number not in found:  # its row is of an image that is gone since the table was written, or there is none
                number = min(found)
                file.query("DELETE FROM part_row WHERE id = ?", (id_,))
            added.conflicts += len({values[_FINGERPRINT] for values in found.values()} - {None}) > 1
            values = list(found[number])
            if number == 0 or (before is not None and _said(before) == _said(values)):
                continue
            added.images += before is None
            added.replaced += before is not None
            added.touched_shards |= {each[_SHARD] for each in (values, before) if each is not None}
            yield values


def _known(file: SQLiteFile, target: Part, ids: Sequence[str]) -> dict[str, tuple[int | None, Sequence[Any] | None]]:
    """Return for some images which part's row is taken, and what the output says about them."""
    some = f"IN ({', '.join('?' * len(ids))})"
    rows = dict(file.query(f"SELECT id, part FROM part_row WHERE id {some}", ids))
    query = f"SELECT {', '.join(_IMAGE)}, {is_intact('image')} FROM image WHERE id {some}"
    images = {values[0]: _checked(target, values) for values in file.query(query, ids)}
    return {id_: (rows.get(id_), images.get(id_)) for id_ in ids}


def _images(number: int, part: Part) -> Iterator[tuple[str, int, Any]]:
    for values in part.stream("image", "id", _IMAGE):
        yield values[0], number, _checked(part, values)


def _checked(part: Part, values: Sequence[Any]) -> Sequence[Any]:
    """Return the values of an image without the last one, which says whether they are intact."""
    if not values[-1]:
        raise damaged(part.evidence, ValueError("the row of an image is not what was written"))
    return values[:-1]


def _said(values: Sequence[Any]) -> list[Any]:
    """Return what counts of an image: all but its revision, which each evidence numbers by itself, and its position."""
    return [value for number, value in enumerate(values) if number not in (_REVISION, _POSITION)]


def unite_decisions(file: SQLiteFile, parts: Sequence[Part], added: Added) -> None:
    """Take over what people decided in all parts but the first."""
    for part in parts[1:]:
        for some in human_labels.all_decisions(part):
            added.decisions += human_labels.record(file, some)


def order_by_path(file: SQLiteFile) -> bool:
    """Renumber the images that lie in no shard by their paths' segments, if two of them have the same position.

    That is so in label tables of several candidate tables, each of which numbers its rows from 0. Return whether
    anything was renumbered.
    """
    same = "SELECT 1 FROM image WHERE shard = '' GROUP BY position HAVING count(*) > 1"
    if not file.query(f"SELECT EXISTS ({same})")[0][0]:
        return False
    file.query(
        """INSERT INTO part_place
           SELECT id, row_number() OVER (ORDER BY CAST(replace(uri, '/', char(0)) AS BLOB), id) - 1
           FROM image WHERE shard = ''"""
    )
    moved = "shard = '' AND position IS NOT (SELECT position FROM part_place WHERE part_place.id = image.id)"
    before = file.changes
    file.query(
        f"""UPDATE image SET checksum = NULL,
            position = (SELECT position FROM part_place WHERE part_place.id = image.id) WHERE {moved}"""
    )
    file.query(f"{set_checksums('image')} WHERE checksum IS NULL")
    return file.changes != before


def unite_shards(file: SQLiteFile, parts: Sequence[Part], added: Added) -> None:
    """Keep the record of a shard where its images are those of the part that recorded it; else it is listed again."""
    for name in added.touched_shards:
        if file.query("SELECT 1 FROM shard WHERE name = ?", (name,)):
            file.query("DELETE FROM shard WHERE name = ?", (name,))
    for part in parts[1:]:
        for name, version, intact in part.stream("shard", "name", ("name", "version")):
            is_known = file.query("SELECT 1 FROM shard WHERE name = ?", (name,))
            if intact and version and not is_known and _in_shard(file.query, name) == _in_shard(part.query, name):
                file.query(insert("shard", "REPLACE"), (name, version))


def _in_shard(query: Callable[..., list[Any]], name: str) -> list[Any]:
    return query("SELECT id, version, position FROM image WHERE shard = ? ORDER BY position, id", (name,))
