"""Label tables of ours: their decisions are the truth."""

from __future__ import annotations

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.truth.base import Dialect, Truth, TruthFile
from tagllm_cli.records import Decision
from tagllm_cli.store.table import open_table


def recognizes(file: TruthFile) -> bool:
    """Return whether this is a Parquet file."""
    return file.head.startswith(b"PAR1")


def read(file: TruthFile) -> Truth:
    """Read the decisions of the answered rows. Raises TableError for other Parquet, UsageError for candidates."""
    table = open_table(file.path)
    if table.info.stage != "labels":
        raise UsageError(f"{file.path} is a candidate table: it decides nothing", "Name a label table as the truth.")
    labels, unknown = {}, {}
    for row in table.rows():
        if row.labels is not None:
            labels[row.image_id] = frozenset(entry.name for entry in row.labels if entry.decision == Decision.YES)
            if undecided := frozenset(entry.name for entry in row.labels if entry.decision == Decision.UNKNOWN):
                unknown[row.image_id] = undecided
    return Truth(labels, table.info.vocabulary.names, exhaustive=True, unknown=unknown, dialect="label table")


DIALECT = Dialect("label table", recognizes, read)
