"""The label table: read it as a stream of rows, replace it with one atomic rename.

A table is made from its evidence and never edited in place. Its Parquet metadata says what it is: schema version,
stage, source, vocabulary and plan, each under a key that starts with `tagllm.`. Row groups end where the number of rows
or of labels says, so the same rows give the same bytes, whether they are made anew or taken over from an older file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tagllm_cli.errors import TableError
from tagllm_cli.records import Row, SourceInfo
from tagllm_cli.store.atomic import replacing
from tagllm_cli.store.damage import damage_as_table_error, damaged
from tagllm_cli.store.row_records import row_from_record, row_to_record
from tagllm_cli.store.schema import SCHEMA_VERSION, table_schema
from tagllm_cli.vocabulary.model import Vocabulary
from tagllm_cli.vocabulary.serialize import vocabulary_from_json, vocabulary_to_json

ROWS_PER_BATCH = 512  # as Python objects
ENTRIES_PER_BATCH = 2**17  # labels of all rows: candidates of `binary` list the whole vocabulary in every row
ROWS_PER_GROUP = 16 * ROWS_PER_BATCH  # as Arrow data, which is far smaller
ENTRIES_PER_GROUP = 16 * ENTRIES_PER_BATCH


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What a table says about itself. `stage` is `candidates` or `labels`; `source` is what reopens its images."""

    stage: str
    source: SourceInfo
    vocabulary: Vocabulary
    plan: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """A label table on disk; opening reads its footer only. Content that makes no sense raises TableError."""

    path: Path
    info: TableInfo
    length: int

    def __len__(self) -> int:
        return self.length

    def rows(self) -> Iterator[Row]:
        """Yield the rows in source order, a batch in memory at a time."""
        rows = min(ROWS_PER_BATCH, max(1, ENTRIES_PER_BATCH // max(1, len(self.info.vocabulary.labels))))
        for batch in self.batches(rows):
            yield from _rows(batch, self.path)

    def batches(self, rows: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield Arrow batches of up to `rows` rows, with all columns or some."""
        with _readable(self.path), pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):  # over all at once, Arrow keeps what it has read
                yield from file.iter_batches(batch_size=rows, row_groups=[group], columns=columns)

    def columns(self, names: Iterable[str], entry_fields: Iterable[str]) -> list[str]:
        """Return what `batches` takes to read these columns, and of `labels` only these fields of its entries."""
        with _readable(self.path), pq.ParquetFile(self.path) as file:
            paths = [file.schema.column(number).path for number in range(len(file.schema))]
        wanted = {*names}
        fields = {path for path in paths if path.startswith("labels.") and path.rpartition(".")[2] in {*entry_fields}}
        return [path for path in paths if path in wanted or ("labels" in wanted and path in fields)]


class RowReader:
    """Random access to the rows of a table that is read from front to back, a few row groups in memory."""

    def __init__(self, table: Table) -> None:
        self._path = table.path
        self._schema = table_schema()
        with _readable(self._path):
            self._file = pq.ParquetFile(self._path)
            sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._group = lru_cache(maxsize=2)(self._read)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def slices(self, start: int, stop: int) -> Iterator[pa.Table]:
        """Yield the rows `start` to `stop` as Arrow tables of our schema, one for each row group that holds some."""
        while start < stop:
            group = int(np.searchsorted(self._starts, start, side="right")) - 1
            first, end = int(self._starts[group]), int(self._starts[group + 1])
            yield self._group(group).slice(start - first, min(stop, end) - start)
            start = end

    def row(self, number: int) -> Row:
        """Return one row."""
        (some,) = self.slices(number, number + 1)
        return _rows(some, self._path)[0]

    def _read(self, group: int) -> pa.Table:
        with _readable(self._path):
            return self._file.read_row_group(group).cast(self._schema)


def label_table_of(candidates: Path) -> Path:
    """Return where the label table made from a candidate table may go, in commands that are shown.

    >>> [label_table_of(Path(name)).name for name in ("candidates.parquet", "a.candidates.parquet", "a.parquet")]
    ['labels.parquet', 'a.parquet', 'labels-a.parquet']
    """
    name = candidates.name.removesuffix(".parquet")
    stem = "labels" if name == "candidates" else name.removesuffix(".candidates")
    return candidates.with_name(f"{f'labels-{name}' if stem == name else stem}.parquet")


def open_table(path: Path) -> Table:
    """Open a table of ours, in any schema version so far.

    Raises TableError for a missing file, another format, metadata or columns that make no sense, or a newer schema.
    """
    if not path.exists():
        raise TableError(f"there is no table at {path}", "Write it first, with `tagllm candidates`.")
    if not path.is_file():
        raise TableError(f"{path} is not a file", "Name a Parquet table that tagllm wrote.")
    try:
        with pq.ParquetFile(path) as file:
            schema, length = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        message = f"{path} is not a Parquet file: {str(error).splitlines()[0]}"
        raise TableError(message, "Name a table that tagllm wrote, or choose another --out.") from error
    metadata = schema.metadata or {}
    if b"tagllm.schema_version" not in metadata:
        raise TableError(f"{path} is a Parquet file, but no label table", "Name a table that tagllm wrote.")
    with damage_as_table_error(path):
        version = int(metadata[b"tagllm.schema_version"])
    if version > SCHEMA_VERSION:
        raise TableError(
            f"{path} has schema version {version}; this tagllm reads up to {SCHEMA_VERSION}", "Upgrade tagllm."
        )
    for column in table_schema():
        if column.name not in schema.names or schema.field(column.name).type != column.type:
            raise damaged(path, ValueError(f"its column {column.name} is missing or of another type"))
    with damage_as_table_error(path):
        return Table(path, _info(metadata, version), length)


def _info(metadata: Mapping[bytes, bytes], version: int) -> TableInfo:
    if version == 1:  # release 0.1.0 knew folders only
        source = SourceInfo("folder", metadata[b"tagllm.root"].decode())
    else:
        source = SourceInfo(**json.loads(metadata[b"tagllm.source"]))
    return TableInfo(
        stage=metadata[b"tagllm.stage"].decode(),
        source=source,
        vocabulary=vocabulary_from_json(json.loads(metadata[b"tagllm.vocabulary"])),
        plan=json.loads(metadata[b"tagllm.plan"]),
    )


def table_metadata(info: TableInfo) -> dict[str, str]:
    """Return what a table with this info carries as Parquet metadata."""
    return {
        "tagllm.schema_version": str(SCHEMA_VERSION),
        "tagllm.stage": info.stage,
        "tagllm.source": json.dumps(asdict(info.source), ensure_ascii=False, sort_keys=True),
        "tagllm.vocabulary": json.dumps(vocabulary_to_json(info.vocabulary), ensure_ascii=False, sort_keys=True),
        "tagllm.plan": json.dumps(info.plan, ensure_ascii=False, sort_keys=True),
    }


def write_table(path: Path, info: TableInfo, rows: Iterable[Row | int], earlier: RowReader | None = None) -> None:
    """Write `rows` beside `path` and put the file in its place with one rename; a failure leaves the old table.

    A number stands for the row of that place in `earlier`, which is taken over without looking into it.
    """
    with replacing(path, TableError) as new:
        write_file(new, info, _pieces(rows, earlier))


def write_file(path: Path, info: TableInfo, pieces: Iterable[pa.Table]) -> None:
    """Write Arrow tables of our schema, of any length, as the file of one table; it is not put in place."""
    schema = table_schema().with_metadata(table_metadata(info))
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _row_groups(pieces):
            writer.write_table(group.replace_schema_metadata(schema.metadata))


def _pieces(rows: Iterable[Row | int], earlier: RowReader | None) -> Iterator[pa.Table]:
    """Yield the rows as Arrow tables of any length."""
    for are_numbers, some in groupby(rows, lambda row: isinstance(row, int)):
        if are_numbers and earlier is not None:
            for start, stop in _runs(some):  # type: ignore[arg-type]
                yield from earlier.slices(start, stop)
        else:
            yield from arrow_tables(some)  # type: ignore[arg-type]


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of consecutive numbers, at most a row group long."""
    start = stop = -1
    for number in numbers:
        if number != stop or stop - start == ROWS_PER_GROUP:
            if stop > start:
                yield start, stop
            start = number
        stop = number + 1
    if stop > start:
        yield start, stop


def arrow_tables(rows: Iterable[Row]) -> Iterator[pa.Table]:
    """Yield rows as Arrow tables of our schema, a batch of Python objects in memory at a time."""
    records: list[dict[str, Any]] = []
    entries = 0
    for row in rows:
        records.append(row_to_record(row))
        entries += len(row.labels or ())
        if len(records) == ROWS_PER_BATCH or entries >= ENTRIES_PER_BATCH:
            yield pa.Table.from_pylist(records, schema=table_schema())
            records, entries = [], 0
    if records:
        yield pa.Table.from_pylist(records, schema=table_schema())


def _row_groups(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Cut the pieces into row groups, each in one chunk: its bytes depend on its rows alone."""
    held: list[pa.Table] = []
    rows = entries = 0
    for piece in pieces:
        counts = np.cumsum(pc.fill_null(pc.list_value_length(piece["labels"]), 0).to_numpy(), dtype=np.int64)
        done = 0
        while done < len(piece):
            before = int(counts[done - 1]) if done else 0
            full = int(np.searchsorted(counts, before + ENTRIES_PER_GROUP - entries)) + 1  # the row that fills it up
            stop = min(len(piece), done + ROWS_PER_GROUP - rows, full)
            held.append(piece.slice(done, stop - done))
            rows, entries = rows + stop - done, entries + int(counts[stop - 1]) - before
            done = stop
            if rows == ROWS_PER_GROUP or entries >= ENTRIES_PER_GROUP:
                yield pa.concat_tables(held).combine_chunks()
                held, rows, entries = [], 0, 0
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _rows(data: pa.Table | pa.RecordBatch, path: Path) -> list[Row]:
    with damage_as_table_error(path):
        return [row_from_record(record) for record in data.to_pylist()]


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
