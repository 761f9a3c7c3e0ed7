"""(14) `evaluate` of 1,000,000 images x 80 labels: seconds and memory, with and without intervals; and its start."""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.tables import tables

IMAGES, LABELS = 1_000_000, 80
ROUNDS = 200
SMALL = 200

Child = Callable[..., dict[str, Any]]
Say = Callable[[str, str, str, bool], None]
Timed = Callable[[Sequence[str]], tuple[float, str]]


def evaluation(chosen: argparse.Namespace, child: Child, timed: Timed, say: Say) -> None:
    """(14) whole processes measured on their own; the start is that of the command on a table of 200 images."""
    table, truth = tables(chosen.out / "evaluate-small", SMALL, LABELS)
    command = [sys.executable, "-m", "tagllm_cli", "evaluate", str(table), "--truth", str(truth), "--json"]
    seconds = statistics.median(timed(command)[0] for _ in range(5))
    say(f"(14) evaluate, {SMALL} images, seconds (median of 5)", f"{seconds:.1f}", "<= 1.5", seconds <= 1.5)
    table, truth = tables(chosen.out / "evaluate", IMAGES, LABELS)
    for rounds, goal in ((0, 60), (ROUNDS, 120)):
        found = child("evaluated", str(table), str(truth), str(rounds))
        what = f"(14) evaluate, {IMAGES:,} images x {LABELS} labels, {rounds} rounds"
        say(f"{what}, seconds", f"{found['seconds']:.0f}", f"<= {goal}", found["seconds"] <= goal)
        say(f"{what}, peak memory (GB)", f"{found['peak_gb']:.1f}", "<= 3", found["peak_gb"] <= 3)


def evaluated(table: str, truth: str, rounds: str) -> dict[str, Any]:
    """Evaluate in this process; return seconds and gigabytes."""
    began = time.monotonic()
    from tagllm_cli.evaluation.summary import EvaluateOptions, evaluate_table

    report = evaluate_table(Path(table), Path(truth), options=EvaluateOptions(rounds=int(rounds)))
    if report.evaluation.images + report.evaluation.failed != IMAGES:
        raise SystemExit(f"{report.evaluation.images} images of {IMAGES} were compared")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": time.monotonic() - began, "peak_gb": peak}
