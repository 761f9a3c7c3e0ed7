"""CSV with a column per label: 1 where it is present, 0 where it is absent, empty where it is undecided.

The first column is `image_id`. pandas reads an empty cell as nan, so that a column with undecided labels is float.
A cell that a spreadsheet would take for a formula gets an apostrophe in front (`text.defused`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tagllm_cli.errors import UsageError
from tagllm_cli.export.base import Examples, ExportSettings, ExportSummary, Format
from tagllm_cli.export.chunks import NO, UNKNOWN, Chunk
from tagllm_cli.export.csv_cells import defused_cells, writer
from tagllm_cli.store.atomic import replacing, starts_with
from tagllm_cli.text import defused

if TYPE_CHECKING:
    import pyarrow as pa

    from tagllm_cli.store.table import Table

_FIRST = "image_id"
_is_ours = starts_with(f'"{_FIRST}","'.encode())


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write one CSV file in UTF-8. Raises UsageError for a label with the name of the first column."""
    import pyarrow as pa

    examples = Examples(table, settings)
    names = [label.name for label in examples.vocabulary]
    if _FIRST in names:
        raise UsageError(f"the label {_FIRST!r} has the name of the column of images", "Use --format csv-long.")
    fields = [(_FIRST, pa.string()), *((defused(name), pa.int8()) for name in names)]
    schema = pa.schema(fields)
    with replacing(out, is_ours=_is_ours) as new, writer(new, schema) as file:
        for chunk in examples.chunks():
            file.write(pa.table([defused_cells(chunk.batch["image_id"]), *_columns(chunk, len(names))], schema=schema))
    return examples.summary([out])


FORMAT = Format(
    "csv-wide", "CSV, a column per label with 1, 0, or nothing where undecided", export, _is_ours, holds_unknown=True
)


def _columns(chunk: Chunk, labels: int) -> list[pa.Array]:
    import numpy as np
    import pyarrow as pa

    states = np.full((labels, len(chunk)), NO, np.int8)
    states[chunk.place, chunk.image] = chunk.state
    return [pa.array(row, mask=row == UNKNOWN) for row in states]
