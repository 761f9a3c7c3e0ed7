"""Label tables of ours: their decisions are the truth, or only those of people."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.truth.base import Collector, Dialect, Truth, TruthFile
from tagllm_cli.records import Decision
from tagllm_cli.store.damage import damaged
from tagllm_cli.store.table import Table, open_table

_ROWS = 1 << 16
_COLUMNS = ["image_id", "labels.list.element.name", "labels.list.element.decision"]
_SOURCE = "labels.list.element.source"
_DECISIONS = (Decision.NO, Decision.YES, Decision.UNKNOWN)


def recognizes(file: TruthFile) -> bool:
    """Return whether this is a Parquet file."""
    return file.head.startswith(b"PAR1")


def read(file: TruthFile) -> Truth:
    """Read the decisions of the answered rows. Raises TableError for other Parquet, UsageError for candidates."""
    table = open_table(file.path)
    if file.options.human_only:
        return _of_people(table)
    if table.info.stage != "labels":
        raise UsageError(f"{file.path} is a candidate table: it decides nothing", "Name a label table as the truth.")
    found = Collector()
    names, known = (pa.array(each, pa.string()) for each in (table.info.vocabulary.names, _DECISIONS))
    for batch in table.batches(_ROWS, _COLUMNS):
        answered = batch.filter(pc.is_valid(batch["labels"]))
        lists, entries = answered["labels"], pc.list_flatten(answered["labels"])
        codes = pc.fill_null(pc.index_in(pc.struct_field(entries, "name"), names), -1).to_numpy()
        if (codes < 0).any():
            raise damaged(file.path, ValueError("it has a label that its vocabulary lacks"))
        decisions = pc.fill_null(pc.index_in(pc.struct_field(entries, "decision"), known), 0).to_numpy()
        images = pc.list_parent_indices(lists).to_numpy()
        kept = np.flatnonzero(decisions != 0)
        marks = np.where(decisions[kept] == 1, 1, -1)
        found.add_many(answered["image_id"].to_pylist(), table.info.vocabulary.names, images[kept], codes[kept], marks)
    return found.truth("label table", names=table.info.vocabulary.names, exhaustive=True)


def _of_people(table: Table) -> Truth:
    """Read what people decided, of images about which they decided something; nothing else is judged."""
    found = Collector()
    names, known, human = (pa.array(each, pa.string()) for each in (table.info.vocabulary.names, _DECISIONS, ["human"]))
    decided = 0
    for batch in table.batches(_ROWS, [*_COLUMNS, _SOURCE]):
        lists, entries = batch["labels"], pc.list_flatten(batch["labels"])
        by_people = pc.fill_null(pc.is_in(pc.struct_field(entries, "source"), human), False).to_numpy(False)
        codes = pc.fill_null(pc.index_in(pc.struct_field(entries, "name"), names), -1).to_numpy()
        marks = pc.fill_null(pc.index_in(pc.struct_field(entries, "decision"), known), -1).to_numpy()
        if (codes[by_people] < 0).any():
            raise damaged(table.path, ValueError("it has a label that its vocabulary lacks"))
        kept = np.flatnonzero(by_people)
        some, images = np.unique(pc.list_parent_indices(lists).to_numpy()[kept], return_inverse=True)
        keys = batch["image_id"].take(pa.array(some)).to_pylist()
        said = np.where(marks[kept] > 1, -1, marks[kept])
        found.add_many(keys, table.info.vocabulary.names, images, codes[kept], said)
        decided += len(kept)
    if not decided:
        raise UsageError(
            f"no person decided anything in {table.path}", "Take decisions over first: tagllm import TABLE FILE."
        )
    chosen = "people chose which: the figures are about these pairs, not about the whole table"
    note = f"judged are only the pairs of image and label that people decided ({decided:,}); {chosen}"
    names_known = table.info.vocabulary.names
    return found.truth("decisions of people", names=names_known, exhaustive=True, federated=True, notes=[note])


DIALECT = Dialect("label table", recognizes, read)
