"""What people decided about labels of images, in the evidence of a table: added to, never overwritten.

A decision is about bytes: it holds for every image with its fingerprint, however it is called, and it is stale where no
image has that fingerprint any more. Of several decisions about a label the latest counts; all are kept. What a person
takes back counts no more, and what others said, or what the model says, counts again.

Where a person checked an image for a whole set of labels (`scope`), one row records "no" for each of them. It comes
before the decisions of the same file about single labels.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tagllm_cli.records import Decision, digest16
from tagllm_cli.store.checksums import COLUMNS, insert, is_intact, row_checksum
from tagllm_cli.store.damage import damage_as_table_error, damaged
from tagllm_cli.store.sqlite import SQLiteFile

WITHDRAWN = "withdrawn"  # see `in_force`
DECISIONS = (*(each.value for each in Decision), WITHDRAWN)

TABLES = (
    """CREATE TABLE human_decision (fingerprint BLOB NOT NULL, image TEXT NOT NULL, label TEXT NOT NULL,
        who TEXT NOT NULL, decided INTEGER NOT NULL, decision TEXT NOT NULL, scope BLOB NOT NULL,
        origin TEXT NOT NULL, file BLOB NOT NULL, recorded INTEGER NOT NULL, checksum BLOB,
        PRIMARY KEY (fingerprint, image, label, scope, who, decided, decision)) WITHOUT ROWID""",
    # The label sets that a `scope` names; it is empty where one label was decided.
    "CREATE TABLE label_set (key BLOB PRIMARY KEY, names TEXT NOT NULL, checksum BLOB) WITHOUT ROWID",
)

_COLUMNS = ", ".join(COLUMNS["human_decision"])
_BLOBS = {"human_decision": (0, 6, 8), "label_set": (0,)}  # positions in COLUMNS
_PAGE = 2000
# Of equal decisions the first that was recorded stays, in whatever order tables are merged.
_FIRST = ("origin", "file", "recorded", "checksum")
_RECORD = f"""{insert("human_decision", "ABORT")} ON CONFLICT DO UPDATE
    SET ({", ".join(_FIRST)}) = ({", ".join(f"excluded.{name}" for name in _FIRST)})
    WHERE (excluded.recorded, excluded.file) < (human_decision.recorded, human_decision.file)"""


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
        """What sorts decisions by what counts, the last one last.

        Of one time, those about a set of labels come first, and what takes one back after it, whenever it was recorded.
        """
        is_withdrawn = self.decision == WITHDRAWN
        return (self.decided, self.label != "", is_withdrawn, self.recorded, self.who, self.label, self.decision)


def record(file: SQLiteFile, decisions: Iterable[HumanDecision]) -> int:
    """Add decisions; return how many were not on record yet, or were recorded later than these say."""
    known: dict[tuple[str, ...], bytes] = {(): b""}

    def key_of(scope: tuple[str, ...]) -> bytes:
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
    file.insert(_RECORD, rows)
    return file.changes - before


def mark_images(file: SQLiteFile, fingerprints: Collection[bytes], revision: int) -> None:
    """Give the images with these fingerprints a revision, so that their rows are made anew."""
    file.query("CREATE TEMP TABLE IF NOT EXISTS decided (fingerprint BLOB PRIMARY KEY) WITHOUT ROWID")
    file.insert("INSERT OR IGNORE INTO decided VALUES (?)", ((each,) for each in fingerprints))
    file.query(
        "UPDATE image SET revision = ? WHERE fingerprint IN (SELECT fingerprint FROM decided)",
        (revision,),
    )
    file.query("DELETE FROM decided")


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


def decisions_of_file(file: Readable, content: bytes) -> list[HumanDecision]:
    """Return what was recorded from a file with this hash of its content."""
    query = f"SELECT {_COLUMNS}, {is_intact('human_decision')} FROM human_decision WHERE file = ?"
    return _decisions(file, file.query(query, (content,)), {})


def last_import_of(file: Readable, origin: str) -> list[HumanDecision]:
    """Return what was recorded by the latest import from a file whose `origin` begins with this."""
    query = """SELECT file FROM human_decision WHERE substr(origin, 1, length(?)) = ? AND decision != ?
        ORDER BY recorded DESC LIMIT 1"""
    found = file.query(query, (origin, origin, WITHDRAWN))
    return [each for (content,) in found for each in decisions_of_file(file, content) if each.decision != WITHDRAWN]


def fingerprints(file: Readable) -> set[bytes]:
    """Return the fingerprints of all images that people decided anything about."""
    return {found for (found,) in file.query("SELECT DISTINCT fingerprint FROM human_decision", ())}


def latest(decisions: Iterable[HumanDecision]) -> dict[str, dict[str, HumanDecision]]:
    """Return the decision about the same bytes that counts of each person, by label and person, the latest one last.

    What was withdrawn at the very time of a decision takes back that one alone (`import --withdraw`); at a later time,
    all that the same person said before.
    """
    kept: dict[tuple[str, str], list[HumanDecision]] = {}
    last: dict[tuple[str, str], int] = {}  # when something was decided
    for each in sorted(decisions, key=lambda each: each.order):
        for label in each.scope if not each.label else (each.label,):
            said = kept.pop((label, each.who), [])
            if each.decision != WITHDRAWN:
                said = [*said, each]
                last[label, each.who] = each.decided
            elif last.get((label, each.who)) == each.decided:
                # Of equal images, or of two sets of labels, each decision of that time is taken back by itself.
                said = [other for other in said if other.decided != each.decided]
            else:
                said = []
            if said:
                kept[label, each.who] = said
    found: dict[str, dict[str, HumanDecision]] = {}
    for (label, who), said in sorted(kept.items(), key=lambda item: item[1][-1].order):
        found.setdefault(label, {})[who] = said[-1]
    return found


def in_force(decisions: Iterable[HumanDecision]) -> Mapping[str, Decision]:
    """Return what counts of decisions about the same bytes, by label: the latest one that was not withdrawn."""
    return {
        label: Decision(next(reversed(by_person.values())).decision) for label, by_person in latest(decisions).items()
    }


def conflicts(decisions: Iterable[HumanDecision]) -> dict[str, tuple[HumanDecision, ...]]:
    """Return, by label, what people say about the same bytes where they disagree; the last one counts."""
    return {
        label: tuple(by_person.values())
        for label, by_person in latest(decisions).items()
        if len({each.decision for each in by_person.values()}) > 1
    }


def plain_decisions(
    path: Path | None, rows: Iterable[Sequence[Any]], sets: Iterable[Sequence[Any]]
) -> list[HumanDecision]:
    """Return decisions that `evidence_queries` read, as (columns, checksum); sets as (key, names, checksum).

    Without checksums they are taken as they are. Raises TableError where one is not what was written.
    """
    with damage_as_table_error(path):
        names = {bytes.fromhex(row[0]): tuple(json.loads(_intact(row, 2, "label_set")[1])) for row in sets}
        found = []
        for row in rows:
            fingerprint, image, label, who, decided, decision, scope, origin, file, recorded = _intact(
                row, len(COLUMNS["human_decision"]), "human_decision"
            )
            if decision not in DECISIONS:
                raise ValueError(f"what people decided about {image} is not what was written")
            found.append(
                HumanDecision(
                    *(image, bytes.fromhex(fingerprint), label, decision, who, decided, origin, bytes.fromhex(file)),
                    *(recorded, names[bytes.fromhex(scope)] if scope else ()),
                )
            )
        return found


def _intact(row: Sequence[Any], width: int, table: str) -> Sequence[Any]:
    """Return the values of a row, whose checksum may follow them."""
    if len(row) == width:
        return row
    *values, expected = row
    blobs = _BLOBS[table]
    stored = [
        bytes.fromhex(each) if number in blobs and each is not None else each for number, each in enumerate(values)
    ]
    if expected != row_checksum(stored).hex():
        raise ValueError("what people decided is not what was written")
    return values


def _decisions(
    file: Readable, rows: Sequence[Sequence[Any]], sets: dict[bytes, tuple[str, ...]]
) -> list[HumanDecision]:
    found = []
    for fingerprint, image, label, who, decided, decision, scope, origin, content, recorded, intact in rows:
        if not intact or decision not in DECISIONS:
            raise damaged(file.path, ValueError(f"what people decided about {image} is not what was written"))
        if scope and scope not in sets:
            sets[scope] = _label_set(file, scope)
        names = sets[scope] if scope else ()
        found.append(HumanDecision(image, fingerprint, label, decision, who, decided, origin, content, recorded, names))
    return found


def _label_set(file: Readable, key: bytes) -> tuple[str, ...]:
    with damage_as_table_error(file.path):
        ((names, intact),) = file.query(f"SELECT names, {is_intact('label_set')} FROM label_set WHERE key = ?", (key,))
        if not intact:
            raise ValueError("a set of labels that people went through is not what was written")
        return tuple(json.loads(names))
