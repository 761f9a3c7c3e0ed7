"""(11) `merge` of 64 parts of 1,000,000 images: seconds and memory, at once and when one more part arrives."""

from __future__ import annotations

import argparse
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS, PER_PART = 64, 15_625

Child = Callable[..., dict[str, Any]]
Say = Callable[[str, str, str, bool], None]


def merging(chosen: argparse.Namespace, child: Child, say: Say) -> None:
    """(11) parts of a folder, which have every 64th image each: the order of rows changes the part with every row."""
    few, many = chosen.out / "parts-few", chosen.out / "parts"
    parts(few, PER_PART // 16)
    parts(many, PER_PART)
    out = chosen.out / "merged"
    for folder in (few, many):
        shutil.rmtree(out, ignore_errors=True)
        found = {count: child("merged", str(folder), str(out / "all.parquet"), str(count)) for count in (63, 64)}
        shutil.rmtree(out)
        found[0] = child("merged", str(folder), str(out / "all.parquet"), "64")
        found[1] = child("merged", str(folder), str(out / "all.parquet"), "64")
        if folder == few:
            least = found[0]["peak_mb"]
    rows = PARTS * PER_PART
    if found[0]["rows"] != rows:
        raise SystemExit(f"{found[0]['rows']} rows of {rows}")
    for what, count, goal in (
        (f"(11) {PARTS} parts with {rows:,} images merged, seconds", 0, 180),
        (f"(11) one more part of {PER_PART:,} images, seconds", 64, 30),
        ("(11) the same merge again, seconds", 1, 10),
    ):
        seconds = found[count]["seconds"]
        say(what, f"{seconds:.0f}", f"<= {goal}", seconds <= goal)
    more = found[0]["peak_mb"] - least
    say("(11) resident memory above that of a sixteenth of the images (MB)", f"{more:.0f}", "<= 300", more <= 300)


def parts(folder: Path, per_part: int) -> None:
    """Write so many parts of a folder of images, two answers to each, unless they are there."""
    from tests.support.parts import Maker, Picture

    folder.mkdir(parents=True, exist_ok=True)
    said = "cat, dog, dining table, traffic light, person, bicycle, car, motorcycle"
    for part in range(PARTS):
        path = folder / f"{part}.parquet"
        if not path.exists():
            numbers = range(part, PARTS * per_part, PARTS)
            pictures = [
                Picture(f"{number // 1000:04}/{number:08}.jpg", number, answers=(said, said)) for number in numbers
            ]
            Maker().make(path, pictures, started=float(part))


def merged(folder: str, out: str, count: str) -> dict[str, Any]:
    """Merge the first parts of a folder; return seconds, megabytes and rows."""
    from tagllm_cli.store.merge.merge import merge_tables

    began = time.monotonic()
    summary = merge_tables(Path(out), [Path(folder) / f"{part}.parquet" for part in range(int(count))])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": time.monotonic() - began, "peak_mb": peak, "rows": summary.rows.total()}
