"""One plain Parquet file with a row per image, for pandas, DuckDB, Polars and Spark: names of labels, no images.

Columns: `image_id`, `file_name` (see `Examples.with_file_names`), `width` and `height` (null: not known), `labels`,
`scores` (of `labels`), `unknown`, `human` (labels that a person decided, present or not), and `split` ("" without).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tagllm_cli.export.base import Examples, ExportSettings, ExportSummary, Format
from tagllm_cli.export.chunks import UNKNOWN, YES, Chunk
from tagllm_cli.store.atomic import replacing

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from tagllm_cli.store.table import Table

_MARK = b"tagllm.export"
_NAME = b"parquet"
_ROWS = 1 << 16  # of a row group


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write one Parquet file; splits are a column of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    examples = Examples(table, settings)
    schema = _schema()
    names = pa.array([label.name for label in examples.vocabulary], pa.string())
    held: list[pa.Table] = []
    with replacing(out, is_ours=_is_ours) as new, pq.ParquetWriter(new, schema, compression="zstd") as writer:
        for chunk, files in examples.named_chunks():
            held.append(pa.table(_columns(chunk, files, names), schema=schema))
            if sum(map(len, held)) >= _ROWS:
                writer.write_table(pa.concat_tables(held).combine_chunks())
                held.clear()
        if held:
            writer.write_table(pa.concat_tables(held).combine_chunks())
    return examples.summary([out])


def _is_ours(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return path.is_file() and (pq.read_schema(path).metadata or {}).get(_MARK) == _NAME
    except (pa.ArrowException, OSError):
        return False


FORMAT = Format(
    "parquet",
    "a Parquet file with a row per image, for pandas, DuckDB, Spark",
    export,
    _is_ours,
    lays_out_splits=True,
    holds_unknown=True,
)


def _schema() -> pa.Schema:
    import pyarrow as pa

    names = pa.list_(pa.string())
    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("file_name", pa.string(), nullable=False),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("labels", names, nullable=False),
            pa.field("scores", pa.list_(pa.float32()), nullable=False),
            pa.field("unknown", names, nullable=False),
            pa.field("human", names, nullable=False),
            pa.field("split", pa.string(), nullable=False),
        ],
        {_MARK: _NAME},
    )


def _columns(chunk: Chunk, files: list[str], names: pa.Array) -> list[pa.Array]:
    import pyarrow as pa

    batch, is_present = chunk.batch, chunk.state == YES
    return [
        batch["image_id"],
        pa.array(files, pa.string()),
        batch["width"],
        batch["height"],
        _lists(chunk, is_present, names.take(pa.array(chunk.place[is_present]))),
        _lists(chunk, is_present, pa.array(chunk.score[is_present], pa.float32())),
        *(
            _lists(chunk, some, names.take(pa.array(chunk.place[some])))
            for some in (chunk.state == UNKNOWN, chunk.human)
        ),
        pa.array(chunk.splits or [""] * len(chunk), pa.string()),
    ]


def _lists(chunk: Chunk, chosen: npt.NDArray[np.bool_], values: pa.Array) -> pa.Array:
    """Return the values of the chosen entries as a list per image."""
    import numpy as np
    import pyarrow as pa

    counts = np.bincount(chunk.image[chosen], minlength=len(chunk))
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)), values)
