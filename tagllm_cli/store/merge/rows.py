"""The rows of the merged table: taken from the parts as they are, in the order of the merged evidence.

An index in a temporary table says for each image which row of which part is taken. Parts are read from front to back,
all at once, a few hundred rows of each in memory; where a row lies before the last one, its row group is read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tagllm_cli.records import Row, Status
from tagllm_cli.store.damage import damaged
from tagllm_cli.store.evidence_layout import IMAGE_COLUMNS, item_of
from tagllm_cli.store.merge.parts import Part
from tagllm_cli.store.row_records import row_to_record
from tagllm_cli.store.schema import table_schema
from tagllm_cli.store.sqlite import SQLiteFile
from tagllm_cli.store.table import ENTRIES_PER_BATCH, Table

# `part` numbers the inputs, 0 is the output as it was; `rank` is how much the row says.
ROW_INDEX = """CREATE TEMP TABLE part_row (id TEXT PRIMARY KEY, part INTEGER NOT NULL, number INTEGER NOT NULL,
    rank INTEGER NOT NULL) WITHOUT ROWID"""
_RANKS = {Status.PENDING: 0, Status.FAILED: 1, Status.PARTIAL: 2, Status.OK: 3}
_INSERT = """INSERT INTO part_row VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE
    SET (part, number, rank) = (excluded.part, excluded.number, excluded.rank) WHERE excluded.rank > part_row.rank"""
_PLACES = """SELECT i.shard, i.position, i.id, r.part, r.number FROM image i LEFT JOIN part_row r ON r.id = i.id
    WHERE (i.shard, i.position, i.id) > (?, ?, ?) ORDER BY i.shard, i.position, i.id LIMIT ?"""

_IDS_PER_BATCH = 8192
_MOST_ROWS = 4096  # written at a time
_HELD_ROWS = 8 * _MOST_ROWS  # of all parts together
_BUFFER = 1 << 16  # bytes of a column; without it a column of a whole row group is read at once


def index_rows(file: SQLiteFile, number: int, part: Part, report: Callable[[int], None]) -> None:
    """Note where the rows of a part are; a row that says more than one noted before takes its place."""
    if part.table is None:
        return
    first = 0
    for batch in part.table.batches(_IDS_PER_BATCH, ["image_id", "status"]):
        try:
            ranks = [_RANKS[Status(status)] for status in batch["status"].to_pylist()]
        except ValueError as error:
            raise damaged(part.path, error) from error
        ids = batch["image_id"].to_pylist()
        file.insert(_INSERT, ((id_, number, first + row, ranks[row]) for row, id_ in enumerate(ids)))
        first += len(ids)
        report(len(ids))


class MergedRows:
    """The rows of the merged table as Arrow tables; `counts` counts those that were yielded by status."""

    def __init__(self, file: SQLiteFile, parts: Sequence[Part], report: Callable[[int], None]) -> None:
        self.counts: Counter[str] = Counter()
        self._file, self._report = file, report
        tables = [part.table for part in parts]
        labels = max(len(table.info.vocabulary.labels) for table in tables if table is not None)
        # The candidates of `binary` list the whole vocabulary in every row.
        self._rows = max(1, min(_MOST_ROWS, 4 * ENTRIES_PER_BATCH // max(1, labels)))
        held = max(16, min(self._rows, _HELD_ROWS // len(tables)))
        self._readers = [None if table is None else _PartReader(table, held) for table in tables]

    def close(self) -> None:
        """Close the parts."""
        for reader in self._readers:
            if reader is not None:
                reader.close()

    def pieces(self) -> Iterator[pa.Table]:
        """Yield the rows in order; an image without a row in any part gets one that is pending or failed."""
        last: tuple[str, int, str] = ("", -1, "")
        while page := self._file.query(_PLACES, (*last, self._rows)):
            last = page[-1][:3]
            rows = self._gather([(row[2], row[3], row[4]) for row in page])
            for count in pc.value_counts(rows["status"]).to_pylist():
                self.counts[count["values"]] += count["counts"]
            self._report(len(page))
            yield rows

    def _gather(self, places: Sequence[tuple[str, int | None, int | None]]) -> pa.Table:
        made = len(self._readers)  # stands for rows that are made here, numbered in their order
        parts = np.array([made if part is None else part for _, part, _ in places])
        numbers = np.array([0 if number is None else number for _, _, number in places], dtype=np.int64)
        order = np.lexsort((np.arange(len(places)), numbers, parts))
        tables = []
        for part in np.unique(parts):
            chosen = order[parts[order] == part]
            if part == made:
                tables.append(self._made([places[number][0] for number in chosen]))
            elif (reader := self._readers[part]) is not None:
                tables += reader.take(numbers[chosen])
        rows = pa.concat_tables(tables)
        if np.array_equal(order, np.arange(len(order))):
            return rows
        return rows.combine_chunks().take(pa.array(np.argsort(order)))

    def _made(self, ids: Sequence[str]) -> pa.Table:
        records = []
        for id_ in ids:
            (values,) = self._file.query(f"SELECT {IMAGE_COLUMNS} FROM image WHERE id = ?", (id_,))
            item = item_of(values)
            failure = item.info.failure if item.info else None
            status = Status.PENDING if failure is None else Status.FAILED
            records.append(row_to_record(Row.of(item, status, None if failure is None else str(failure))))
        return pa.Table.from_pylist(records, schema=table_schema())


class _PartReader:
    """Rows of one table by number, fast where the numbers ascend."""

    def __init__(self, table: Table, rows: int) -> None:
        self._path, self._rows = table.path, rows
        self._schema = table_schema()
        try:
            self._file = pq.ParquetFile(table.path, buffer_size=_BUFFER)
        except (pa.ArrowException, OSError) as error:
            raise damaged(self._path, error) from error
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._held: pa.Table = self._schema.empty_table()
        self._first = 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def take(self, numbers: np.ndarray) -> Iterator[pa.Table]:
        """Yield the rows of these numbers, which ascend, in tables of any length."""
        while len(numbers):
            self._hold(int(numbers[0]))
            end = self._first + len(self._held)
            count = int(np.searchsorted(numbers, end))
            local = numbers[:count] - self._first
            if local[-1] - local[0] == count - 1:
                yield self._held.slice(int(local[0]), count)
            else:
                yield self._held.take(pa.array(local))
            numbers = numbers[count:]

    def _hold(self, number: int) -> None:
        """Have the row of this number in memory."""
        end = self._first + len(self._held)
        if self._first <= number < end:
            return
        group = int(np.searchsorted(self._starts, number, side="right")) - 1
        try:
            if number < self._first or self._starts[group] > end or not len(self._held):
                groups = range(group, self._file.num_row_groups)
                self._batches = self._file.iter_batches(batch_size=self._rows, row_groups=groups)
                end = int(self._starts[group])
            while not self._first <= number < end or not len(self._held):
                batch = next(self._batches)
                self._held = pa.Table.from_batches([batch]).cast(self._schema)
                self._first, end = end, end + len(batch)
        except (pa.ArrowException, OSError) as error:
            raise damaged(self._path, error) from error
        except StopIteration:
            raise damaged(self._path, ValueError("it has fewer rows than its footer says")) from None
