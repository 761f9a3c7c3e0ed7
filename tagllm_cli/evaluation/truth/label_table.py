"""Label tables of ours: their decisions are the truth."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.truth.base import Collector, Dialect, Truth, TruthFile
from tagllm_cli.records import Decision
from tagllm_cli.store.damage import damaged
from tagllm_cli.store.table import open_table

_ROWS = 1 << 16
_COLUMNS = ["image_id", "labels.list.element.name", "labels.list.element.decision"]
_DECISIONS = (Decision.NO, Decision.YES, Decision.UNKNOWN)


def recognizes(file: TruthFile) -> bool:
    """Return whether this is a Parquet file."""
    return file.head.startswith(b"PAR1")


def read(file: TruthFile) -> Truth:
    """Read the decisions of the answered rows. Raises TableError for other Parquet, UsageError for candidates."""
    table = open_table(file.path)
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


DIALECT = Dialect("label table", recognizes, read)
