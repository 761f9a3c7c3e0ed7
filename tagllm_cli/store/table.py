"""The label table: read it as a stream of rows, replace it with one atomic rename.

A table is derived from its evidence and never edited in place. Its Parquet metadata says what it is: schema version,
stage, source root, vocabulary and plan, each under a key that starts with `tagllm.`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tagllm_cli.errors import TableError
from tagllm_cli.records import Decision, LabelEntry, Row, Status
from tagllm_cli.store.atomic import replacing
from tagllm_cli.store.schema import SCHEMA_VERSION, table_schema
from tagllm_cli.vocabulary.model import Vocabulary
from tagllm_cli.vocabulary.serialize import vocabulary_from_json, vocabulary_to_json

ROWS_PER_BATCH = 512
ENTRIES_PER_BATCH = 2**17  # labels of all rows: candidates of `binary` list the whole vocabulary in every row
BATCHES_PER_ROW_GROUP = 16


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What a table says about itself. `stage` is `candidates` or `labels`; `root` is the source's root folder."""

    stage: str
    root: str
    vocabulary: Vocabulary
    plan: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """A label table on disk; opening reads its footer only."""

    path: Path
    info: TableInfo
    length: int

    def __len__(self) -> int:
        return self.length

    def rows(self) -> Iterator[Row]:
        """Yield the rows in source order, a batch in memory at a time."""
        rows = min(ROWS_PER_BATCH, max(1, ENTRIES_PER_BATCH // max(1, len(self.info.vocabulary.labels))))
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=rows):
                for record in batch.to_pylist():
                    yield _row(record)


def open_table(path: Path) -> Table:
    """Open a table of ours. Raises TableError for a missing file, another format or a newer schema."""
    if not path.exists():
        raise TableError(f"there is no table at {path}", "Write it first, with `tagllm candidates`.")
    if not path.is_file():
        raise TableError(f"{path} is not a file", "Name a Parquet table that tagllm wrote.")
    try:
        with pq.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            length = file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        message = f"{path} is not a Parquet file: {str(error).splitlines()[0]}"
        raise TableError(message, "Name a table that tagllm wrote, or choose another --out.") from error
    if b"tagllm.schema_version" not in metadata:
        raise TableError(f"{path} is a Parquet file, but no label table", "Name a table that tagllm wrote.")
    version = int(metadata[b"tagllm.schema_version"])
    if version > SCHEMA_VERSION:
        raise TableError(
            f"{path} has schema version {version}; this tagllm reads up to {SCHEMA_VERSION}", "Upgrade tagllm."
        )
    info = TableInfo(
        stage=metadata[b"tagllm.stage"].decode(),
        root=metadata[b"tagllm.root"].decode(),
        vocabulary=vocabulary_from_json(json.loads(metadata[b"tagllm.vocabulary"])),
        plan=json.loads(metadata[b"tagllm.plan"]),
    )
    return Table(path, info, length)


def write_table(path: Path, info: TableInfo, rows: Iterable[Row]) -> None:
    """Write `rows` beside `path` and put the file in its place with one rename; a failure leaves the old table."""
    schema = table_schema().with_metadata(_metadata(info))
    with replacing(path, TableError) as fresh, pq.ParquetWriter(fresh, schema, compression="zstd") as writer:
        batches = _batches(iter(rows), schema)
        while some := list(islice(batches, BATCHES_PER_ROW_GROUP)):
            writer.write_table(pa.Table.from_batches(some, schema))


def _batches(rows: Iterator[Row], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows as Arrow data, which is far smaller than they are as objects."""
    records: list[dict[str, Any]] = []
    entries = 0
    for row in rows:
        records.append(_record(row))
        entries += len(row.labels or ())
        if len(records) == ROWS_PER_BATCH or entries >= ENTRIES_PER_BATCH:
            yield pa.RecordBatch.from_pylist(records, schema=schema)
            records, entries = [], 0
    if records:
        yield pa.RecordBatch.from_pylist(records, schema=schema)


def _metadata(info: TableInfo) -> dict[str, str]:
    return {
        "tagllm.schema_version": str(SCHEMA_VERSION),
        "tagllm.stage": info.stage,
        "tagllm.root": info.root,
        "tagllm.vocabulary": json.dumps(vocabulary_to_json(info.vocabulary), ensure_ascii=False, sort_keys=True),
        "tagllm.plan": json.dumps(info.plan, ensure_ascii=False, sort_keys=True),
    }


def _record(row: Row) -> dict[str, Any]:
    known = bool(row.width and row.height)
    return {
        "image_id": row.image_id,
        "uri": row.uri,
        "fingerprint": row.fingerprint or None,
        "width": row.width if known else None,
        "height": row.height if known else None,
        "status": row.status.value,
        "error": row.error,
        "labels": None if row.labels is None else [_label_record(entry) for entry in row.labels],
        "unmatched": row.unmatched,
    }


def _label_record(entry: LabelEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "decision": entry.decision.value if entry.decision else None,
        "probability": entry.probability,
        "mass": entry.mass,
        "score": entry.score,
        "arms": entry.arms,
        "groups": entry.groups,
        "source": entry.source,
    }


def _row(record: Mapping[str, Any]) -> Row:
    labels, unmatched = record["labels"], record["unmatched"]
    return Row(
        image_id=record["image_id"],
        uri=record["uri"],
        fingerprint=record["fingerprint"] or b"",
        width=record["width"] or 0,
        height=record["height"] or 0,
        status=Status(record["status"]),
        error=record["error"],
        labels=None if labels is None else tuple(_label_entry(label) for label in labels),
        unmatched=None if unmatched is None else tuple(unmatched),
    )


def _label_entry(label: Mapping[str, Any]) -> LabelEntry:
    return LabelEntry(
        name=label["name"],
        decision=Decision(label["decision"]) if label["decision"] else None,
        probability=label["probability"],
        mass=label["mass"],
        score=label["score"],
        arms=tuple(label["arms"]),
        groups=tuple(label["groups"]),
        source=label["source"],
    )
