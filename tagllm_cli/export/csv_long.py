"""CSV with a line per image and label: `image,label,decision,probability,source`, as `tagllm import` reads it.

`decision` is yes, no or unknown, `probability` in [0, 1] or empty, `source` model or human. Labels that are not listed
were not proposed: they are absent. An image without any label has one line with nothing but its id. A cell that a
spreadsheet would take for a formula gets an apostrophe in front (`text.defused`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tagllm_cli.export.base import Examples, ExportSettings, ExportSummary, Format
from tagllm_cli.export.chunks import Chunk
from tagllm_cli.export.csv_cells import defused_cells, writer
from tagllm_cli.store.atomic import replacing, starts_with
from tagllm_cli.text import defused

if TYPE_CHECKING:
    import pyarrow as pa

    from tagllm_cli.store.table import Table

_is_ours = starts_with(b'"image","label","decision","probability","source"\n')


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write one CSV file in UTF-8; its lines are in the order of the table, those of an image in that of label ids."""
    import pyarrow as pa

    examples = Examples(table, settings)
    schema = _schema()
    names = pa.array([defused(label.name) for label in examples.vocabulary], pa.string())
    with replacing(out, is_ours=_is_ours) as new, writer(new, schema) as file:
        for chunk in examples.chunks():
            file.write(pa.table(_columns(chunk, names), schema=schema))
    return examples.summary([out])


FORMAT = Format(
    "csv-long", "CSV, a line per image and label with decision and probability", export, _is_ours, holds_unknown=True
)


def _schema() -> pa.Schema:
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [("image", text), ("label", text), ("decision", text), ("probability", pa.float32()), ("source", text)]
    )


def _columns(chunk: Chunk, names: pa.Array) -> list[pa.Array]:
    """Return the columns of a chunk; an image without entries has a line, too, in its place."""
    import numpy as np
    import pyarrow as pa

    listed = np.bincount(chunk.image, minlength=len(chunk))
    empty = np.flatnonzero(listed == 0)
    order = np.argsort(np.concatenate([chunk.image, empty]), kind="stable")
    is_empty = order >= len(chunk.image)
    entry = np.where(is_empty, 0, order)

    def taken(values: pa.Array) -> pa.Array:
        return values.take(pa.array(entry, mask=is_empty)) if len(values) else pa.nulls(len(entry), values.type)

    decisions = pa.array(["unknown", "no", "yes"]).take(pa.array(chunk.state.astype(np.int64) + 1))
    sources = pa.array(["model", "human"]).take(pa.array(chunk.human.astype(np.int64)))
    probability = pa.array(chunk.probability, mask=np.isnan(chunk.probability))
    image = np.repeat(np.arange(len(chunk)), np.maximum(listed, 1))
    images = defused_cells(chunk.batch["image_id"]).take(pa.array(image))
    return [images, taken(names.take(pa.array(chunk.place))), taken(decisions), taken(probability), taken(sources)]
