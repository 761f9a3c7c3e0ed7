"""The design of an audit: which pairs were drawn from which table, how, and with which probabilities (`audit.json`).

It is all that an estimate needs besides the answers and a table: the answers are facts about pairs, the probabilities
belong to the draw, and what is predicted is read from the table that is given then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.audit.population import Population, stratum_name
from tagllm_cli.evaluation.audit.sample import Sample, allocation
from tagllm_cli.evaluation.entries import Entries
from tagllm_cli.records import digest16
from tagllm_cli.resources import UserModel
from tagllm_cli.store.table import Table

VERSION = 1
FILE = "audit.json"
# No vowels, no digits: neither a word nor a number that a spreadsheet would write in another way.
_LETTERS = "bcdfghjklmnpqrstvwxz"
_PAIR_LETTERS = 8


@dataclass(frozen=True, slots=True)
class TableIdentity:
    """What tells the state of a table: its file's name, and its images, vocabulary and decisions as hex digests."""

    name: str
    stage: str
    images: int
    image_digest: str
    vocabulary_digest: str
    decision_digest: str

    @classmethod
    def of(cls, table: Table, answered: Entries) -> TableIdentity:
        """Return the identity of a table, of which `answered` are the rows that have an answer."""
        decisions = (each.tobytes() for each in (answered.rows, answered.labels, answered.flags, answered.scores))
        return cls(
            *(table.path.name, table.info.stage, len(answered.ids)),
            _digest("\n".join(answered.ids).encode("utf-8", "surrogatepass")),
            _digest("\n".join(answered.names).encode()),
            _digest(*decisions),
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair that people are asked about; `id` is its name in files. `stratum` is a place in `Design.strata`."""

    id: str
    image: str
    label: str
    stratum: int
    probability: float


@dataclass(frozen=True, slots=True)
class Stratum:
    """Pairs of one kind (`yes`, `no`, `unknown`, `near`, `far`), band of scores and label: all, expected, drawn."""

    kind: str
    band: int
    label: str
    pairs: int
    expected: float
    drawn: int


@dataclass(frozen=True, slots=True)
class Design:
    """An audit as it was drawn. `pairs` are in the order in which they are asked."""

    id: str
    size: int
    seed: int
    table: TableIdentity
    strata: tuple[Stratum, ...]
    pairs: tuple[Pair, ...]

    def to_text(self) -> str:
        """Return the content of `audit.json`."""
        return json.dumps({"version": VERSION, **asdict(self)}, ensure_ascii=False, indent=1) + "\n"


def audit_id(table: TableIdentity, size: int, seed: int) -> str:
    """Return the id of what would be drawn: the same for the same table, wherever it lies, size and seed."""
    parts = (table.stage, table.image_digest, table.vocabulary_digest, table.decision_digest, size, seed, VERSION)
    return _digest("\n".join(map(str, parts)).encode())


def design_of(table: TableIdentity, population: Population, sample: Sample, size: int, seed: int) -> Design:
    """Return the design of a sample. `strata` are those that have pairs."""
    named, ids = audit_id(table, size, seed), population.entries.ids
    expected, sizes, names = allocation(population, size), population.sizes, population.entries.names
    used = [stratum for stratum in range(len(sizes)) if sizes[stratum]]
    place = {stratum: number for number, stratum in enumerate(used)}
    drawn = [0] * len(used)
    pairs = []
    columns = (sample.rows, sample.labels, sample.strata, sample.probabilities)
    for row, label, stratum, probability in zip(*(each.tolist() for each in columns), strict=True):
        drawn[place[stratum]] += 1
        image, name = ids[row], names[label]
        pairs.append(Pair(pair_id(named, image, name), image, name, place[stratum], probability))
    strata = tuple(
        Stratum(*stratum_name(stratum, names), int(sizes[stratum]), round(float(expected[stratum]), 9), count)
        for stratum, count in zip(used, drawn, strict=True)
    )
    return Design(named, size, seed, table, strata, tuple(pairs))


def load_design(folder: Path) -> Design:
    """Return the design in a folder. Raises UsageError where there is none, or one that makes no sense."""
    path = folder / FILE
    try:
        found = _DesignModel.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}",
            "Answers need the audit.json of their audit: put the CSV into the folder of `audit`.",
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UsageError(
            f"{path} is no design of an audit: {where}: {first['msg']}", "Take the audit.json that `audit` wrote."
        ) from error
    if found.version != VERSION:
        raise UsageError(f"{path} has version {found.version}; this tagllm reads {VERSION}", "Upgrade tagllm.")
    strata: Sequence[_StratumModel] = found.strata
    if any(pair.stratum >= len(strata) for pair in found.pairs):
        raise UsageError(
            f"{path} is no design of an audit: a pair is of no stratum", "Take the one that `audit` wrote."
        )
    return Design(
        *(found.id, found.size, found.seed, TableIdentity(**found.table.model_dump())),
        tuple(Stratum(**each.model_dump()) for each in strata),
        tuple(Pair(**each.model_dump()) for each in found.pairs),
    )


def pair_id(page: str, image: str, label: str) -> str:
    """Return the name of a pair in the files of an audit or a page: letters only."""
    number = int.from_bytes(digest16(f"{page}\n{label}\n{image}".encode("utf-8", "surrogatepass")))
    letters = ""
    for _ in range(_PAIR_LETTERS):
        number, place = divmod(number, len(_LETTERS))
        letters += _LETTERS[place]
    return letters


def _digest(*parts: bytes) -> str:
    return digest16(*parts).hex()


class _TableModel(UserModel):
    name: str
    stage: str
    images: int
    image_digest: str
    vocabulary_digest: str
    decision_digest: str


class _StratumModel(UserModel):
    kind: str
    band: int
    label: str
    pairs: int
    expected: float
    drawn: int


class _PairModel(UserModel):
    id: str
    image: str
    label: str
    stratum: int = Field(ge=0)
    probability: float = Field(gt=0, le=1)


class _DesignModel(UserModel):
    version: int
    id: str
    size: int
    seed: int
    table: _TableModel
    strata: tuple[_StratumModel, ...]
    pairs: tuple[_PairModel, ...] = Field(min_length=1)
