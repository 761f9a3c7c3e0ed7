"""(23) `tagllm diff` of two tables of a million images and 80 labels: seconds and memory."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.bench.tables import tables

IMAGES, FEW = 1_000_000, 62_500
_CHANGED = 0.03  # of the label entries

Child = Callable[..., dict[str, Any]]
Say = Callable[[str, str, str, bool], None]


def comparing(out: Path, child: Child, say: Say) -> None:
    """Compare each table with one in which some answers turned and one image in a thousand has another name."""
    found = {}
    for count, folder in ((FEW, "tables-few"), (IMAGES, "tables-1m")):
        table, _ = tables(out / folder, count)
        found[count] = child("compared", str(table), str(_changed(table)))
    seconds, entries = found[IMAGES]["seconds"], found[IMAGES]["entries"]
    what = f"(23) diff of two tables of {IMAGES:,} images, {entries / IMAGES:.1f} entries each, seconds"
    say(what, f"{seconds:.1f}", "<= 20", seconds <= 20)
    more = (found[IMAGES]["peak_mb"] - found[FEW]["peak_mb"]) * 1e6 / (2 * (entries - found[FEW]["entries"]))
    say("(23) memory that an entry more takes, bytes", f"{more:.0f}", "<= 60", more <= 60)


def compared(first: str, second: str) -> dict[str, Any]:
    """Compare two tables in this process; return seconds, megabytes and the entries of one."""
    from tagllm_cli.evaluation.diff.diff import diff_tables

    began = time.monotonic()
    summary = diff_tables(Path(first), Path(second))
    summary.to_json()
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if not summary.images["renamed"] or not summary.causes:
        raise SystemExit("the tables differ in nothing")
    return {"seconds": seconds, "peak_mb": peak, "entries": len(summary.comparison.sides[0].rows)}


def _changed(table: Path) -> Path:
    """Return the table with some decisions turned and some images renamed."""
    path = table.with_name("changed.parquet")
    if path.exists():
        return path
    random, new = np.random.default_rng(5), path.with_suffix(".new")
    with pq.ParquetFile(table) as file, pq.ParquetWriter(new, file.schema_arrow, compression="zstd") as writer:
        for group in range(file.num_row_groups):
            writer.write_table(_turned(file.read_row_group(group).combine_chunks(), random))
    shutil.move(new, path)
    return path


def _turned(rows: pa.Table, random: np.random.Generator) -> pa.Table:
    lists = rows["labels"].chunk(0)
    entries = lists.values
    turned = pa.array(random.random(len(entries)) < _CHANGED)
    columns = {field.name: entries.field(field.name) for field in entries.type}
    other = pc.if_else(pc.equal(columns["decision"], "yes"), "no", "yes")
    columns["decision"] = pc.if_else(turned, other, columns["decision"])
    flipped = pc.subtract(pa.scalar(1, pa.float32()), columns["probability"])
    columns["probability"] = pc.if_else(turned, flipped, columns["probability"])
    made = pa.StructArray.from_arrays(list(columns.values()), fields=list(entries.type))
    labels = pa.ListArray.from_arrays(lists.offsets, made, type=lists.type, mask=lists.is_null())
    moved = pc.binary_join_element_wise("moved", rows["image_id"], "/")
    names = pc.if_else(pa.array(random.random(len(rows)) < 0.001), moved, rows["image_id"])
    rows = rows.set_column(rows.schema.get_field_index("labels"), rows.schema.field("labels"), labels)
    return rows.set_column(0, rows.schema.field(0), names)
