"""The commands as a user types them, on real vLLM: killed in this process's children, and through a faulty server."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.records import Row
from tagllm_cli.store.table import open_table
from tests.support.faulty_proxy import Fault, FaultyProxy, cut_off, half_json, refuse, reset
from tests.support.live import CACHE_BYTES, IMAGES, MODEL, LiveServer

pytestmark = pytest.mark.live

HERE = ["--model", str(MODEL), "--engine-arg", f"kv_cache_memory_bytes={CACHE_BYTES}"]
PATIENCE_S = 900.0


@dataclass(frozen=True)
class Tables:
    """Both stages' tables of one way to run them, and what the candidates command said at its end."""

    candidates: Path
    labels: Path
    summary: dict[str, Any]


def tagllm(*arguments: str) -> dict[str, Any]:
    """Run a command to its end and return its JSON."""
    command = [sys.executable, "-m", "tagllm_cli", *arguments, "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


def candidates(out: Path, *model: str) -> list[str]:
    """The candidates command over the demo pictures."""
    return ["candidates", str(IMAGES), "--vocab", "scenes", "--out", str(out), *model]


def answers(table: Path) -> int:
    """How many answers the table's evidence holds; 0 while there is none."""
    evidence = table.with_suffix(".evidence")
    if not evidence.exists():
        return 0
    with closing(sqlite3.connect(evidence)) as database:  # left open, it would keep the next run out
        return int(database.execute("SELECT count(*) FROM response").fetchone()[0])


def commits(table: Path) -> int:
    """When a running process last committed, as a number that changes with each commit."""
    wal = table.with_name(table.stem + ".evidence-wal")
    return wal.stat().st_mtime_ns if wal.exists() else 0


def kill_after(command: Sequence[str], table: Path, times: int) -> None:
    """Start a command and end it with SIGKILL when it has committed so many times; fails if it ends before."""
    child = subprocess.Popen([sys.executable, "-m", "tagllm_cli", *command, "--quiet"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_S
    try:
        last = commits(table)
        while times:
            assert child.poll() is None, "the command ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
            times -= commits(table) != last
            last = commits(table)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Three times killed while vLLM answers, each time a little later, then run to the end."""
    folder = tmp_path_factory.mktemp("killed")
    out, labels = folder / "candidates.parquet", folder / "labels.parquet"
    command = candidates(out, *HERE)
    slow = [*command, "--engine-arg", "max_num_seqs=4"]
    kept = [0]
    for times in (2, 3, 4):  # the first commit is the listing, the next ones bring about a second's answers each
        kill_after(slow, out, times)
        kept.append(answers(out))
    assert kept == sorted(kept)
    assert kept[-1] > 0
    summary = tagllm(*command)
    assert summary["asked"]["requests"] == answers(out) - kept[-1]
    tagllm("disambiguate", str(out), "--out", str(labels), *HERE)
    return Tables(out, labels, summary)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, live_server: LiveServer) -> Tables:
    """Both stages through a proxy in front of vLLM's own server that answers 429, 500, half a JSON and resets."""
    bad = [refuse(429, retry_after="0"), refuse(500), half_json(), reset(), cut_off()]
    faults = [each for fault in bad for each in (None, None, fault)]

    def fault(number: int, path: str) -> Fault | None:
        return faults[number % len(faults)] if number else None

    folder = tmp_path_factory.mktemp("served")
    out, labels = folder / "candidates.parquet", folder / "labels.parquet"
    with FaultyProxy(fault, upstream=live_server.url) as proxy:
        summary = tagllm(*candidates(out, "--endpoint", proxy.url))
        assert len(proxy.questions) > summary["asked"]["requests"]
        tagllm("disambiguate", str(out), "--out", str(labels), "--endpoint", proxy.url)
    return Tables(out, labels, summary)


def rows(table: Path) -> list[Row]:
    return list(open_table(table).rows())


def decisions(table: Path) -> dict[tuple[str, str], str]:
    """What is said of each (image, label) that is not simply absent."""
    return {
        (row.image_id, entry.name): entry.decision.value if entry.decision else "candidate"
        for row in rows(table)
        for entry in row.labels or ()
    }


def test_a_run_that_was_killed_three_times_is_whole(killed: Tables):
    assert killed.summary["rows"]["ok"] == 200
    assert [row.image_id for row in rows(killed.candidates)] == sorted(
        path.relative_to(IMAGES).as_posix() for path in IMAGES.rglob("*") if path.is_file()
    )


def test_a_second_run_asks_nothing_and_loads_no_model(killed: Tables):
    began = time.monotonic()
    summary = tagllm(*candidates(killed.candidates, *HERE))
    assert summary["asked"]["requests"] == 0
    assert time.monotonic() - began < 20, "vLLM alone takes longer to load than that"


def test_through_faults_every_image_is_answered(served: Tables):
    for table in (served.candidates, served.labels):
        assert {row.status.value for row in rows(table)} == {"ok"}


@pytest.mark.parametrize("stage", ["candidates", "labels"])
def test_process_and_server_agree(killed: Tables, served: Tables, stage: str):
    here, there = getattr(killed, stage), getattr(served, stage)
    assert [(row.image_id, row.status) for row in rows(here)] == [(row.image_id, row.status) for row in rows(there)]
    one, other = decisions(here), decisions(there)
    cells = 200 * 60  # an absent label is a decision, too: no
    different = sum(one.get(key, "no") != other.get(key, "no") for key in one.keys() | other.keys())
    assert different <= 0.005 * cells
    both = one.keys() & other.keys()
    assert len(both) >= 0.97 * len(one.keys() | other.keys())
    assert sum(one[key] == other[key] for key in both) >= 0.99 * len(both)


def test_the_labels_are_good(killed: Tables):
    truth = str(IMAGES.parent / "truth.json")
    evaluation = tagllm("evaluate", str(killed.labels), "--truth", truth, "--fail-under", "of1=0.9")
    assert evaluation["images"] == 200
