"""(22) `tagllm audit` and `evaluate --audit` over a million images and 80 labels."""

from __future__ import annotations

import csv
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.tables import tables

Say = Callable[[str, str, str, bool], None]


def auditing(out: Path, say: Say) -> None:
    """Time both commands as whole processes; the pictures are not there, their cost is that of reading 1,000 files."""
    table, _ = tables(out / "tables-1m")
    folder = out / f"audit-{time.time_ns()}"
    _timed("audit", [str(table), "--size", "1000", "--out", str(folder)], say)
    with (folder / "audit.csv").open(encoding="utf-8-sig", newline="") as file:
        header, *lines = csv.reader(file)
    with (folder / "answers.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *([*line[:3], "no"] for line in lines)])
    _timed("evaluate", [str(table), "--audit", str(folder / "answers.csv")], say)


def _timed(command: str, arguments: Sequence[str], say: Say) -> None:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-m", "tagllm_cli", command, *arguments, "--quiet"], check=True)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    named = command if command == "audit" else f"{command} --audit"
    what = f"(22) {named}, 1,000,000 images x 80 labels, seconds ({spent:.0f} s of one CPU)"
    say(what, f"{seconds:.1f}", "<= 60", seconds <= 60)
    peak = after.ru_maxrss / 1024**2
    say(f"(22) {named}, resident memory, GB", f"{peak:.2f}", "<= 3", peak <= 3)
