"""(20) `tagllm calibrate` over a million images and 80 labels, all of them judged."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.tables import tables


def calibrating(out: Path, say: Callable[[str, str, str, bool], None]) -> None:
    """Time the whole process: what it took, and what of that one CPU spent, since others may work beside it."""
    table, truth = tables(out / "tables-1m")
    command = [sys.executable, "-m", "tagllm_cli", "calibrate", str(table), "--truth", str(truth), "--quiet"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([*command, "--out", str(out / "thresholds.yaml")], check=True)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    what = f"(20) calibrate, 1,000,000 images x 80 labels, seconds ({spent:.0f} s of one CPU)"
    say(what, f"{seconds:.1f}", "<= 60", seconds <= 60)
    peak = after.ru_maxrss / 1024**2
    say("(20) calibrate, resident memory, GB", f"{peak:.2f}", "<= 3", peak <= 3)
