"""Ctrl-C and SIGTERM: exit code 130, a table whose rest is pending, and the same command goes on from there."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from tagllm_cli.pipeline.label import scheduler
from tests.support.label_process import command, processes
from tests.support.workspace import Workspace

pytestmark = pytest.mark.slow

IMAGES = 10
ANSWERED = 4


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, IMAGES)


def start(workspace: Workspace, step: str, drain_s: float = 0.1) -> tuple[BaseProcess, Event]:
    """Run `tagllm candidates` in a process of its own whose engine hangs at a step; return it and when it does."""
    words = [
        "candidates",
        str(workspace.images),
        "--vocab",
        str(workspace.vocabulary),
        "--out",
        str(workspace.out),
        "--quiet",
    ]
    words += ["--replay", "nothing", "--model-id", "rules", "--group-size", "5"]
    context = processes()
    reached = context.Event()
    process = context.Process(target=command, args=(words, reached, step, ANSWERED, drain_s))
    process.start()
    return process, reached


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("step", "answered"), [("start", 0), ("ask", ANSWERED)])
def test_a_signal_ends_the_run_with_a_table_whose_rest_is_pending(
    workspace: Workspace, number: signal.Signals, step: str, answered: int
) -> None:
    process, reached = start(workspace, step)
    assert reached.wait(60)
    os.kill(process.pid or 0, number)
    process.join(60)
    assert process.exitcode == 130
    statuses = list(workspace.statuses().values())
    assert statuses == ["ok"] * answered + ["pending"] * (IMAGES - answered)

    process, _ = start(workspace, "never")
    process.join(60)
    assert process.exitcode == 0
    interrupted = workspace.out.read_bytes()
    for path in workspace.out.parent.iterdir():
        path.unlink()
    workspace.candidates()
    assert workspace.out.read_bytes() == interrupted


def test_a_container_that_is_stopped_has_time_for_it(tmp_path: Path) -> None:
    many = Workspace(tmp_path, 300)
    process, reached = start(many, "ask", drain_s=scheduler.DRAIN_SECONDS)
    assert reached.wait(60)
    began = time.monotonic()
    process.terminate()
    process.join(60)
    assert process.exitcode == 130
    # `docker stop` kills after 10 s. What takes longer, a table of a million rows, say, is bounded (TABLE_SECONDS).
    assert time.monotonic() - began < 8.0
    assert len(many.statuses()) == 300


def test_who_does_not_want_to_wait_signals_again(workspace: Workspace) -> None:
    process, reached = start(workspace, "ask", drain_s=1000.0)
    assert reached.wait(60)
    while process.is_alive():
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(0.2)
    assert process.exitcode == 130
    assert workspace.candidates().stats.asked == (IMAGES - ANSWERED) * 4
