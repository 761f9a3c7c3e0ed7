"""Both stages on real vLLM: in this process, and by commands that are killed, through a faulty server."""

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.engines.factory import ModelOptions
from tagllm_cli.pipeline.label.job import Job, RunOptions
from tagllm_cli.pipeline.label.jobs import candidates_job, disambiguate_job
from tagllm_cli.pipeline.label.run import run_job
from tagllm_cli.pipeline.progress import Silent
from tagllm_cli.records import Row
from tagllm_cli.store.table import open_table
from tests.demo import pipeline
from tests.support.faulty_proxy import Fault, FaultyProxy, cut_off, half_json, refuse, reset
from tests.support.live import IMAGES, MODEL, Live

pytestmark = pytest.mark.live

TIMEOUT_S = 900.0
TRUTH = IMAGES.parent / "truth.json"


@dataclass(frozen=True)
class Tables:
    """The tables of both stages, and the summary of the run that finished the first one."""

    candidates: Path
    labels: Path
    summary: dict[str, Any]


def tagllm(*arguments: str) -> dict[str, Any]:
    """Run a command to its end and return its JSON."""
    command = [sys.executable, "-m", "tagllm_cli", *arguments, "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


def candidates(out: Path, *model: str) -> list[str]:
    """The candidates command over the demo images."""
    return ["candidates", str(IMAGES), "--vocab", "scenes", "--out", str(out), *model]


def responses(table: Path) -> int:
    """The number of responses on record; 0 while there is no evidence."""
    evidence = table.with_suffix(".evidence")
    if not evidence.exists():
        return 0
    with closing(sqlite3.connect(evidence)) as database:  # left open, it would lock the next run out
        return int(database.execute("SELECT count(*) FROM response").fetchone()[0])


def commits(table: Path) -> int:
    """A number that changes with each commit of a running process."""
    wal = table.with_name(table.stem + ".evidence-wal")
    return wal.stat().st_mtime_ns if wal.exists() else 0


def kill_after(command: Sequence[str], table: Path, times: int) -> None:
    """Start a command and send SIGKILL when it has committed `times` times; fails if it ends before."""
    child = subprocess.Popen([sys.executable, "-m", "tagllm_cli", *command, "--quiet"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + TIMEOUT_S
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


@pytest.fixture(scope="session")
def in_process(tmp_path_factory: pytest.TempPathFactory, live: Live) -> Tables:
    """Both stages as jobs of this process."""
    folder = tmp_path_factory.mktemp("in-process")
    out, labels = folder / "candidates.parquet", folder / "labels.parquet"
    model, options = ModelOptions(model=str(MODEL)), RunOptions()

    def run(job: Job) -> dict[str, Any]:
        summary = run_job(replace(job, engine=lambda plan: live.engine().handle()), options, Silent())
        return dict(summary.to_json())

    summary = run(candidates_job(str(IMAGES), "scenes", out, model, options))
    run(disambiguate_job(out, labels, model, options))
    return Tables(out, labels, summary)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, live: Live) -> Tables:
    """Commands that are killed three times, through a faulty proxy in front of vLLM's own server."""
    bad = [refuse(429, retry_after="0"), refuse(500), half_json(), reset(), cut_off()]
    faults = [each for fault in bad for each in (None, None, fault)]

    def fault(number: int, path: str) -> Fault | None:
        return faults[number % len(faults)] if number else None

    folder = tmp_path_factory.mktemp("served")
    out, labels = folder / "candidates.parquet", folder / "labels.parquet"
    with FaultyProxy(fault, upstream=live.server().url) as proxy:
        asked_of = ("--endpoint", proxy.url, "--retries", "30")  # a third of the answers are faults
        command = candidates(out, *asked_of)
        kept = [0]
        for times in (2, 3, 4):  # the first commit is the listing
            kill_after(command, out, times)
            kept.append(responses(out))
        assert kept == sorted(kept)
        assert kept[-1] > 0
        before = len(proxy.questions)
        summary = tagllm(*command)
        asked = summary["asked"]
        assert asked["requests"] - asked["failed_requests"] == responses(out) - kept[-1]
        assert len(proxy.questions) - before > summary["asked"]["requests"]
        tagllm("disambiguate", str(out), "--out", str(labels), *asked_of)
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


def test_a_run_that_was_killed_three_times_is_whole(served: Tables) -> None:
    assert served.summary["rows"]["ok"] == 200
    assert [row.image_id for row in rows(served.candidates)] == sorted(
        path.relative_to(IMAGES).as_posix() for path in IMAGES.rglob("*") if path.is_file()
    )


def test_through_faults_every_image_is_answered(served: Tables) -> None:
    for table in (served.candidates, served.labels):
        assert [row.error for row in rows(table) if row.status != "ok"] == []


@pytest.mark.parametrize("stage", ["candidates", "labels"])
def test_process_and_server_agree(in_process: Tables, served: Tables, stage: str) -> None:
    here, there = getattr(in_process, stage), getattr(served, stage)
    pairs = list(zip(rows(here), rows(there), strict=True))
    assert all(one.image_id == other.image_id for one, other in pairs)
    assert all(one.status == other.status for one, other in pairs)
    one, other = decisions(here), decisions(there)
    cells = 200 * 60  # an absent label is a decision, too: no
    different = sum(one.get(key, "no") != other.get(key, "no") for key in one.keys() | other.keys())
    assert different <= 0.005 * cells
    both = one.keys() & other.keys()
    assert len(both) >= 0.97 * len(one.keys() | other.keys())
    assert sum(one[key] == other[key] for key in both) >= 0.99 * len(both)


def test_the_labels_are_good(in_process: Tables) -> None:
    evaluation = tagllm("evaluate", str(in_process.labels), "--truth", str(TRUTH), "--fail-under", "of1=0.9")
    assert evaluation["images"] == 200


@pytest.mark.usefixtures("no_engine")
def test_the_demo_runs_and_its_table_is_rebuilt_without_a_model(tmp_path: Path) -> None:
    """The commands of `make demo`: in-process vLLM as every user gets it."""
    pipeline.main(["--out", str(tmp_path)])
    first, *_ = pipeline.commands(tmp_path, MODEL)
    (log,) = tmp_path.glob("*.vllm.log")  # one engine for both stages
    log.unlink()
    again = tagllm(*first, "--offline", "--missing", "unknown")
    for stage in (again["candidates"], again["labels"]):
        assert (stage["asked"]["requests"], stage["rows"]["pending"], stage["rows"]["ok"]) == (0, 0, 200)
    assert not log.exists()
