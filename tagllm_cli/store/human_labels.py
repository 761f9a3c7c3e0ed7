"""What people decided about labels of images, in the evidence of a table: added to, never overwritten.

A decision is about bytes: it holds for every image with its fingerprint, however it is called, and it is stale where no
image has that fingerprint any more. Of several decisions about a label the latest counts; all are kept.

Where somebody went through an image and found nothing else, one row says so for a whole set of labels (`scope`): "no"
to each of them, before what the same file says about single labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tagllm_cli.records import Decision, digest16
from tagllm_cli.store.checksums import COLUMNS, insert, is_intact
from tagllm_cli.store.damage import damage_as_table_error, damaged
from tagllm_cli.store.sqlite import SQLiteFile

WITHDRAWN = "withdrawn"  # takes back what was decided before: what the model said counts again
DECISIONS = (*(each.value for each in Decision), WITHDRAWN)

TABLES = (
    """CREATE TABLE human_decision (fingerprint BLOB NOT NULL, image TEXT NOT NULL, label TEXT NOT NULL,
        who TEXT NOT NULL, decided INTEGER NOT NULL, decision TEXT NOT NULL, scope BLOB, origin TEXT NOT NULL,
        file BLOB NOT NULL, recorded INTEGER NOT NULL, checksum BLOB,
        PRIMARY KEY (fingerprint, image, label, who, decided, decision)) WITHOUT ROWID""",
    # The label sets that a `scope` names.
    "CREATE TABLE label_set (key BLOB PRIMARY KEY, names TEXT NOT NULL, checksum BLOB) WITHOUT ROWID",
)

_COLUMNS = ", ".join(COLUMNS["human_decision"])
_PAGE = 2000


class Readable(Protocol):
    """Evidence that can be read: an open file, or a table that is merged."""

    @property
    def path(self) -> Path | None:
        """What errors name."""
        ...

    def query(self, statement: str, values: Sequence[Any], /) -> list[Any]:
        """Run one statement and return its rows."""
        ...


@dataclass(frozen=True, slots=True)
class HumanDecision:
    """What one person decided about one label of one image.

    Args:
        image: the image's id when it was decided.
        fingerprint: 16 bytes, of the image that was seen.
        label: "" where the decision is about each label of `scope`.
        decision: one of DECISIONS.
        who: "" where nobody said.
        decided: microseconds since the epoch (UTC).
        origin: the file that it came from, and of which form it was, for people.
        file: 16 bytes, the hash of that file's content: imported again, it changes nothing.
        recorded: microseconds since the epoch (UTC), when it was imported.
        scope: the labels that a decision without `label` is about.
    """

    image: str
    fingerprint: bytes
    label: str
    decision: str
    who: str
    decided: int
    origin: str
    file: bytes
    recorded: int
    scope: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[Any, ...]:
        """What sorts decisions by what counts, the last one last."""
        return (self.decided, self.recorded, self.label != "", self.who, self.label, self.decision)


def record(file: SQLiteFile, decisions: Iterable[HumanDecision]) -> int:
    """Add decisions; return how many were not on record yet."""
    known: dict[tuple[str, ...], bytes | None] = {(): None}

    def key_of(scope: tuple[str, ...]) -> bytes | None:
        if scope not in known:
            names = json.dumps(scope, ensure_ascii=False)
            known[scope] = digest16(names.encode())
            file.query(insert("label_set", "IGNORE"), (known[scope], names))
        return known[scope]

    rows = [
        (
            *(each.fingerprint, each.image, each.label, each.who, each.decided, each.decision),
            *(key_of(each.scope), each.origin, each.file, each.recorded),
        )
        for each in decisions
    ]
    before = file.changes
    file.insert(insert("human_decision", "IGNORE"), rows)
    return file.changes - before


def has_decisions(file: Readable) -> bool:
    """Tell whether anything is on record."""
    return bool(file.query("SELECT EXISTS (SELECT 1 FROM human_decision)", ())[0][0])


def decisions_about(file: Readable, fingerprint: bytes) -> list[HumanDecision]:
    """Return all decisions about these bytes. Raises TableError where one is not what was written."""
    query = f"SELECT {_COLUMNS}, {is_intact('human_decision')} FROM human_decision WHERE fingerprint = ?"
    found = file.query(query, (fingerprint,))
    return _decisions(file, found, {}) if found else []


def all_decisions(file: Readable) -> Iterator[list[HumanDecision]]:
    """Yield what was decided about the same bytes, by fingerprint.

    Raises TableError where one is not what was written.
    """
    sets: dict[bytes, tuple[str, ...]] = {}
    query = f"""SELECT {_COLUMNS}, {is_intact("human_decision")} FROM human_decision WHERE fingerprint IN
        (SELECT DISTINCT fingerprint FROM human_decision WHERE fingerprint > ? ORDER BY fingerprint LIMIT {_PAGE})
        ORDER BY fingerprint"""
    last = b""
    while rows := file.query(query, (last,)):
        last = rows[-1][0]
        some: list[HumanDecision] = []
        for each in _decisions(file, rows, sets):
            if some and some[0].fingerprint != each.fingerprint:
                yield some
                some = []
            some.append(each)
        yield some


def fingerprints(file: Readable) -> set[bytes]:
    """Return the fingerprints of all images that people decided anything about."""
    return {found for (found,) in file.query("SELECT DISTINCT fingerprint FROM human_decision", ())}


def in_force(decisions: Iterable[HumanDecision]) -> Mapping[str, Decision]:
    """Return what counts of decisions about the same bytes, by label: the latest of each, unless it was withdrawn."""
    found: dict[str, str] = {}
    for each in sorted(decisions, key=lambda each: each.order):
        found.update(dict.fromkeys(each.scope if not each.label else (each.label,), each.decision))
    return {label: Decision(said) for label, said in found.items() if said != WITHDRAWN}


def _decisions(
    file: Readable, rows: Sequence[Sequence[Any]], sets: dict[bytes, tuple[str, ...]]
) -> list[HumanDecision]:
    found = []
    for fingerprint, image, label, who, decided, decision, scope, origin, content, recorded, intact in rows:
        if not intact or decision not in DECISIONS:
            raise damaged(file.path, ValueError(f"what people decided about {image} is not what was written"))
        if scope is not None and scope not in sets:
            sets[scope] = _label_set(file, scope)
        names = () if scope is None else sets[scope]
        found.append(HumanDecision(image, fingerprint, label, decision, who, decided, origin, content, recorded, names))
    return found


def _label_set(file: Readable, key: bytes) -> tuple[str, ...]:
    with damage_as_table_error(file.path):
        ((names, intact),) = file.query(f"SELECT names, {is_intact('label_set')} FROM label_set WHERE key = ?", (key,))
        if not intact:
            raise ValueError("a set of labels that people went through is not what was written")
        return tuple(json.loads(names))
