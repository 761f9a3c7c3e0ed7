"""The images of a file of rows, without reading them: ids, places, versions."""

from __future__ import annotations

from collections.abc import Iterator, Set

import pyarrow as pa

from tagllm_cli.records import Image, Shard
from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.parquet.columns import Columns, column
from tagllm_cli.sources.parquet.row_files import RowFile
from tagllm_cli.sources.parquet.row_ids import RowNames, are_unique, image_id, own_names
from tagllm_cli.sources.read import is_image_data


def place_of(uri: str) -> tuple[str, int | None]:
    """Return the file and the row that a uri names; None where it names a file that cannot be read.

    >>> place_of("data/a#1.parquet#20"), place_of("data/a#1.parquet")
    (('data/a#1.parquet', 20), ('data/a#1.parquet', None))
    """
    name, _, row = uri.rpartition("#")
    return (name, int(row)) if row.isdecimal() and row.isascii() else (uri, None)


def placeholder(shard: Shard) -> Image:
    """Return the image that stands for what cannot be read of a file."""
    return Image(shard.name, shard.name, shard.version, shard.name)


def image_of(shard: Shard, row: int, own: str | None, name: str, shared: Set[int] | None) -> Image:
    """Return the image in a row; the arguments are those of `image_id`."""
    version = shard.version and f"{shard.version}#{row}"
    return Image(image_id(shard.name, own, name, shared), f"{shard.name}#{row}", version, shard.name)


def list_rows(shard: Shard, file: RowFile, columns: Columns, shared: Set[int] | None) -> Iterator[Image]:
    """Yield the images of an open file. Raises ReadFailure after the last one that can be listed."""
    names: list[pa.Array] = []
    failure: ReadFailure | None = None
    try:
        names.extend(all_names(file, columns))
    except ReadFailure as error:
        failure = error
    chunks = pa.chunked_array(names, pa.large_string())
    _refuse_base64(chunks, columns)
    namer = RowNames(are_unique=are_unique(chunks))
    row = 0
    for chunk in chunks.chunks:
        for own in chunk.to_pylist():
            yield image_of(shard, row, own, namer.name(row, own), shared)
            row += 1
    if failure is not None:
        raise failure


def _refuse_base64(names: pa.ChunkedArray, columns: Columns) -> None:
    """Raise ReadFailure where the first path is an image as text: it would be taken for an id."""
    if columns.image is not None or columns.name != columns.path:
        return
    first = next((name.as_py() for name in names if name.is_valid), "")
    if is_image_data(first):
        what = f"column {'.'.join(columns.path or ())!r} holds base64 text, not paths or URLs"
        raise ReadFailure("no_image_column", f"{what}; store the images as bytes")


def all_names(file: RowFile, columns: Columns) -> Iterator[pa.Array]:
    """Yield what the rows are named by, in order, as strings; null also where a Parquet row group is damaged.

    Raises ReadFailure where the storage fails, or where it is not known how many rows are damaged.
    """
    if columns.name is None and file.rows is not None:
        yield pa.nulls(file.rows, pa.large_string())
        return
    # An Arrow file is read whole anyway: what is damaged for `stream` shall be damaged here.
    leaves = (columns.name,) if columns.name and file.rows is not None else columns.leaves
    row, last = 0, -1
    while last < row and file.group_of(row) is not None:
        last = row
        for piece in file.scan(leaves, row):
            if not isinstance(piece.batch, ReadFailure):
                names = own_names(column(piece.batch, columns.name)) if columns.name else None
                yield pa.nulls(piece.length, pa.large_string()) if names is None else names
            elif file.rows is None:
                raise piece.batch
            else:
                yield pa.nulls(piece.length, pa.large_string())
            row = piece.first + piece.length
