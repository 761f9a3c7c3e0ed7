"""(17) `export` of 1,000,000 rows in each format that holds no images: seconds, and memory beside that of 100,000."""

from __future__ import annotations

import argparse
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.tables import tables

FEW, MANY = 100_000, 1_000_000
MOST_SECONDS, MOST_MORE_MB = 60, 50

Child = Callable[..., dict[str, Any]]
Say = Callable[[str, str, str, bool], None]


def exporting(chosen: argparse.Namespace, child: Child, say: Say) -> None:
    """(17) a table of 80 labels, three an image; each format in a process of its own."""
    from tagllm_cli.export.registry import FORMATS

    out = chosen.out / "exports"
    made = {count: tables(chosen.out / f"tables-{count}", count)[0] for count in (FEW, MANY)}
    for name in [name for name, form in FORMATS.items() if not form.image_modes and name != "xmp"]:  # a file per image
        found = {}
        for count, table in made.items():
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            found[count] = child("exported", str(table), name, str(out / "export"))
        seconds, megabytes = found[MANY]["seconds"], found[MANY]["bytes"] / 1e6
        what = f"(17) {MANY:,} rows as {name}, {megabytes:,.0f} MB, seconds"
        say(what, f"{seconds:.1f}", f"<= {MOST_SECONDS}", seconds <= MOST_SECONDS)
        peaks = {count: each["peak_mb"] for count, each in found.items()}
        more = peaks[MANY] - peaks[FEW]
        what = f"(17) {name}: {FEW:,} rows in {peaks[FEW]:.0f} MB, {MANY:,} in more by (MB)"
        say(what, f"{more:.0f}", f"<= {MOST_MORE_MB}", more <= MOST_MORE_MB)
    shutil.rmtree(out, ignore_errors=True)


def exported(table: str, format_: str, out: str) -> dict[str, Any]:
    """Export a table; return seconds, megabytes of memory, and bytes written."""
    from tagllm_cli.export.registry import export_table

    began = time.monotonic()
    summary = export_table(Path(table), format_, Path(out))
    # Not ru_maxrss, which a process takes over from the one that started it.
    peak = int(re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024
    size = sum(path.stat().st_size for path in summary.files if path.is_file())
    return {"seconds": time.monotonic() - began, "peak_mb": peak, "bytes": size}
