"""(21) `tagllm report` over a million images and 80 labels, 2,000 of which it shows as generated pictures."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tagllm_cli.evaluation.report.selection import choose
from tagllm_cli.evaluation.report.subject import read_subject
from tagllm_cli.records import digest16
from tests.bench.tables import tables
from tests.support.image_files import encode, photo

PICTURES = 64  # different ones
IMAGES, SHOWN = 1_000_000, 2_000


def reporting(out: Path, say: Callable[[str, str, str, bool], None]) -> None:
    """Time the whole process; CPU seconds beside it, since others may work on the machine."""
    table, truth, root = prepared(out / "tables-1m", IMAGES, SHOWN)
    page = out / "report.html"
    command = [sys.executable, "-m", "tagllm_cli", "report", str(table), "--truth", str(truth), "--quiet"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([*command, "--root", str(root), "--images", str(SHOWN), "--out", str(page)], check=True)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    what = f"(21) report, {IMAGES:,} images x 80 labels, {SHOWN:,} pictures, seconds ({spent:.0f} s of CPU)"
    say(what, f"{seconds:.1f}", "<= 60", seconds <= 60)
    size = page.stat().st_size / 1e6
    say("(21) report, MB", f"{size:.1f}", "<= 40", size <= 40)


def prepared(folder: Path, images: int, shown: int) -> tuple[Path, Path, Path]:
    """Return a table, its truth and the folder of the images that a report of `shown` images will choose."""
    table, truth = tables(folder, images)
    ready = folder / f"shown-{shown}.json"
    root = folder / "pictures"
    if not ready.exists():
        kinds = [encode(photo(1024, 768, seed=number), "JPEG", quality=90) for number in range(PICTURES)]
        _put_fingerprints(table, [digest16(each) for each in kinds])
        subject = read_subject(table, truth, [])
        rows = [row for row, _ in choose(subject, shown)]
        for row in rows:
            file = root / subject.entries.ids[row]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(kinds[row % PICTURES])
        ready.write_text(json.dumps(len(rows)))
    return table, truth, root


def _put_fingerprints(table: Path, known: list[bytes]) -> None:
    """Give each row the fingerprint of one of the pictures, in turn."""
    changed = table.with_suffix(".new")
    with pq.ParquetFile(table) as file, pq.ParquetWriter(changed, file.schema_arrow) as writer:
        place, start = file.schema_arrow.get_field_index("fingerprint"), 0
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group)
            column = [known[row % len(known)] for row in range(start, start + len(rows))]
            writer.write_table(rows.set_column(place, rows.schema.field(place), pa.array(column, pa.binary())))
            start += len(rows)
    changed.replace(table)
