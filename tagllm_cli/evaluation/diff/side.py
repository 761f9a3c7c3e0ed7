"""One of the two tables as arrays: images with their fingerprints, and what is said about each listed label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.evaluation.entry_arrays import (
    HUMAN,
    PREDICTED,
    UNDECIDED,
    Array,
    EntryReader,
    filled,
    known,
    texts,
)
from tagllm_cli.records import Status
from tagllm_cli.store.damage import damage_as_table_error
from tagllm_cli.store.table import Table

# What a table says about an image and a label. NOTHING: it lacks the image, the label, or an answer.
NOTHING, NO, UNKNOWN, YES = 0, 1, 2, 3
STATES = ("nothing", "no", "unknown", "yes")
STATUSES = tuple(Status)
_ANSWERED = (STATUSES.index(Status.OK), STATUSES.index(Status.PARTIAL))

_ROWS = 8192
_FIELDS = ("name", "decision", "probability", "mass", "source")  # texts of `groups` are most of a table's bytes
_KINDS = (np.int8, np.int32, np.int32, np.int8, np.float32, np.float32, np.bool_, np.int8)


@dataclass(frozen=True, slots=True)
class Side:
    """A table read once: arrays over its images, and parallel arrays over its label entries.

    `statuses` [images] point into STATUSES. `rows` point to images, `labels` into the table's own vocabulary; `states`
    are NO, UNKNOWN or YES (a candidate is a YES). `probabilities` and `masses` are NaN where an entry has none; `votes`
    counts the arms that proposed a candidate. About 30 bytes an entry, 60 an image.
    """

    table: Table
    ids: pa.ChunkedArray  # string
    fingerprints: pa.ChunkedArray  # binary, null where the image was never read
    statuses: Array  # int8
    rows: Array  # int32
    labels: Array  # int32
    states: Array  # int8
    probabilities: Array  # float32
    masses: Array  # float32
    human: Array  # bool
    votes: Array  # int8

    @property
    def names(self) -> tuple[str, ...]:
        """The labels of the vocabulary."""
        return self.table.info.vocabulary.names

    @property
    def answered(self) -> Array:
        """The images whose labels that are not listed are a no, bool [images]."""
        return np.isin(self.statuses, _ANSWERED)


def read_side(table: Table) -> Side:
    """Read a table, a batch at a time. Raises TableError where it is damaged."""
    ids, fingerprints, parts = [], [], []
    with damage_as_table_error(table.path):
        for id_, fingerprint, part in _batches(table):
            ids.append(id_)
            fingerprints.append(fingerprint)
            parts.append(part)
    columns = list(zip(*parts, strict=True)) or [()] * len(_KINDS)
    arrays: list[Array] = []
    for number, kind in enumerate(_KINDS):
        arrays.append(np.concatenate([np.empty(0, kind), *columns[number]], dtype=kind, casting="unsafe"))
        columns[number] = ()  # at most one column is held twice
    chunked = (pa.chunked_array(ids, pa.string()), pa.chunked_array(fingerprints, pa.binary()))
    return Side(table, *chunked, *arrays)


def _batches(table: Table) -> Iterator[tuple[pa.Array, pa.Array, tuple[Array, ...]]]:
    """Yield ids, fingerprints, and the arrays of `Side` in its order, of one batch after the other."""
    names = texts([status.value for status in STATUSES])
    reader, first = EntryReader(table.info.vocabulary, table.info.stage, list(table.info.plan.get("arms", ()))), 0
    fields = (*_FIELDS, "arms") if table.info.stage == "candidates" else _FIELDS
    columns = ["image_id", "fingerprint", "status", *(f"labels.list.element.{name}" for name in fields)]
    for batch in table.batches(_ROWS, columns):
        statuses = known(pc.index_in(batch["status"], names), batch["status"], "status")
        rows, labels, _, probabilities, flags, arms = reader(batch["labels"], first)
        masses = filled(pc.struct_field(pc.list_flatten(batch["labels"]), "mass"), np.nan)
        states = np.where(flags & PREDICTED, YES, np.where(flags & UNDECIDED, UNKNOWN, NO))
        votes = np.bitwise_count(arms) if hasattr(np, "bitwise_count") else _bits(arms)
        human = (flags & HUMAN) > 0
        arrays = (statuses, rows, labels, states, probabilities, masses, human, votes)
        # Of an image without an answer only what people decided was said; its other labels are listed as unknown.
        said = np.isin(statuses, _ANSWERED)[rows - first] | human
        kept = [arrays[0], *(each[said] for each in arrays[1:])]
        kinds = zip(kept, _KINDS, strict=True)
        yield batch["image_id"], batch["fingerprint"], tuple(each.astype(kind) for each, kind in kinds)
        first += len(batch)


def _bits(values: Array) -> Array:
    """Return how many bits are set, for NumPy before 2.0."""
    bits = np.unpackbits(values.view(np.uint8).reshape(len(values), 8), axis=1)
    return np.asarray(bits.sum(axis=1))
