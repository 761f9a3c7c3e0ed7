"""Parquet files and files of Arrow record batches, opened for reading some columns a few megabytes at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.parquet.arrow_input import ArrowInput, open_input
from tagllm_cli.sources.parquet.columns import Leaf
from tagllm_cli.sources.storage.storage import Storage

ARROW_ENDING = ".arrow"
PARQUET_ENDING = ".parquet"

# What is decoded at a time, and the most rows of it: a large row group must not be in memory whole.
_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 1 << 16
_BUFFER_BYTES = 1 << 20

_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"

_TO_THE_END = 1 << 62  # rows, where nobody knows how many there are


@dataclass(frozen=True, slots=True)
class Piece:
    """`length` rows of a file from `first` on, or why they cannot be read."""

    first: int
    length: int
    batch: pa.RecordBatch | ReadFailure


class RowFile(Protocol):
    """An open file of rows, for one thread.

    `rows` is their number, None where only reading the file tells it.
    """

    schema: pa.Schema
    rows: int | None

    def group_of(self, row: int) -> int | None:
        """Return which part of the file, readable without what lies before it, holds a row; None: no part."""

    def scan(self, leaves: Sequence[Leaf], row: int) -> Iterator[Piece]:
        """Yield the rows of the group that holds `row`, from a piece that holds it on.

        Rows that are damaged are a piece with a ReadFailure. Raises ReadFailure where the storage fails.
        """

    def close(self) -> None:
        """Close the file."""


def is_arrow(name: str) -> bool:
    """Tell whether a file of this name holds Arrow record batches."""
    return name.lower().endswith(ARROW_ENDING)


def open_rows(storage: Storage, name: str, *, is_sparse: bool = False) -> RowFile:
    """Open a file by its ending; `is_sparse`, its images will not be read.

    Raises ReadFailure: those of `open_input`, `empty_file`, `truncated_file`, or `corrupt_file`: not of this kind.
    """
    file = open_input(storage, name, is_sparse=is_sparse and not is_arrow(name))
    try:
        return ArrowRows(file) if is_arrow(name) else ParquetRows(file, is_sparse=is_sparse)
    except BaseException:
        file.close()
        raise


class ParquetRows:
    """A Parquet file: one row group after the other, only the columns asked for."""

    def __init__(self, file: ArrowInput, *, is_sparse: bool = False) -> None:
        self._input = file
        self._is_sparse = is_sparse
        try:
            # Without pre_buffer and with a buffer, column chunks are read as they are decoded.
            self._file = pq.ParquetFile(
                file, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
            )
            self.schema = _decoded(self._file.schema_arrow)
        except Exception as error:  # as below
            raise self._unusable(error) from error
        metadata = self._file.metadata
        self.rows: int | None = metadata.num_rows
        self._starts: list[int] = [0]
        for group in range(metadata.num_row_groups):
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)
        if self._starts[-1] != self.rows or sorted(self._starts) != self._starts:
            raise ReadFailure("corrupt_file", "the Parquet file is damaged: its footer has two numbers of rows")

    def group_of(self, row: int) -> int | None:
        return bisect_right(self._starts, row) - 1 if 0 <= row < self._starts[-1] else None

    def scan(self, leaves: Sequence[Leaf], row: int) -> Iterator[Piece]:
        group = self.group_of(row)
        if group is None:
            return
        end = self._starts[group + 1]
        failure = ReadFailure("truncated_file", "the row group has fewer rows than the file says")
        # What fails is decoded once more row by row: the rows before the damage are whole.
        for rows in (self._rows_at_a_time(group), 1):
            try:
                for piece in self._decode(group, leaves, rows):
                    if piece.first + piece.length > row:
                        row = piece.first + piece.length
                        yield piece
            except Exception as error:  # of damaged files pyarrow raises a dozen kinds, from OSError to MemoryError
                failure = self._input.blame(error, "Parquet")
            if row >= end:
                return
        yield Piece(row, end - row, failure)

    def close(self) -> None:
        self._file.close(force=True)
        self._input.close()

    def _decode(self, group: int, leaves: Sequence[Leaf], rows: int) -> Iterator[Piece]:
        columns = [".".join(leaf) for leaf in leaves]
        first = self._starts[group]
        for batch in self._file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
            yield Piece(first, batch.num_rows, batch)
            first += batch.num_rows

    def _rows_at_a_time(self, group: int) -> int:
        """Return how many rows have about _BATCH_BYTES."""
        # The metadata of columns would say it better, but reading it from a damaged footer aborts the process.
        if self._is_sparse:
            return _BATCH_ROWS
        about = self._file.metadata.row_group(group)
        return int(max(1, min(_BATCH_ROWS, _BATCH_BYTES * about.num_rows // max(1, about.total_byte_size))))

    def _unusable(self, error: Exception) -> ReadFailure:
        failure = self._input.blame(error, "Parquet")
        self._input.seek(0)
        head = self._input.read(4)
        if not head:
            return ReadFailure("empty_file", "the file is empty")
        if head == b"PARE" or "encrypt" in failure.message.lower():
            return ReadFailure("unreadable", "the Parquet file is encrypted: decrypt it first")
        if head != b"PAR1":
            return ReadFailure("corrupt_file", "not a Parquet file")
        if "magic bytes" in failure.message.lower():
            return ReadFailure("truncated_file", "the Parquet file ends too early")
        return failure


class ArrowRows:
    """A file of Arrow record batches, as a stream (what `datasets` writes) or with a footer: read front to back."""

    def __init__(self, file: ArrowInput) -> None:
        self._input = file
        self.rows: int | None = None
        self._open()

    def group_of(self, row: int) -> int | None:
        return 0 if row >= 0 else None

    def scan(self, leaves: Sequence[Leaf], row: int) -> Iterator[Piece]:
        first = 0
        names = list(dict.fromkeys(leaf[0] for leaf in leaves))
        try:
            for whole in self._open():
                batch = whole.select(names)
                batch.validate(full=True)  # nothing else checks that offsets stay within the buffers
                if first + whole.num_rows > row:
                    yield Piece(first, whole.num_rows, batch)
                first += whole.num_rows
            if not self._is_complete():
                yield Piece(first, _TO_THE_END, ReadFailure("truncated_file", "the Arrow file ends too early"))
        except Exception as error:  # as above
            yield Piece(first, _TO_THE_END, self._input.blame(error, "Arrow"))

    def close(self) -> None:
        self._input.close()

    def _is_complete(self) -> bool:
        """Tell whether the file has its end: one cut between two batches looks like a shorter one."""
        self._input.seek(-min(8, self._input.seek(0, 2)), 2)
        return self._input.read(8) == _END_OF_STREAM or self._has_footer

    def _open(self) -> Iterator[pa.RecordBatch]:
        try:
            self._input.seek(0)
            head = self._input.read(6)
            self._input.seek(0)
            if not head:
                raise ReadFailure("empty_file", "the file is empty")
            self._has_footer = head == b"ARROW1"
            reader = pa.ipc.open_file(self._input) if self._has_footer else pa.ipc.open_stream(self._input)
            self.schema = _decoded(reader.schema)
        except Exception as error:  # as above
            raise self._input.blame(error, "Arrow") from error
        return _each_batch(reader)


def _each_batch(reader: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        return (reader.get_batch(index) for index in range(reader.num_record_batches))
    return iter(reader)


def _decoded(schema: pa.Schema) -> pa.Schema:
    """Return a schema whose names have been decoded once: in damaged files they are not UTF-8."""
    for field in schema:
        _ = field.name, str(field.type)
    return schema
