"""An engine's processes: Ctrl-C does not reach them, a lost one is reported, none outlives its user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import MODEL

pytestmark = pytest.mark.live


class Life:
    """The program under test, in a session of its own: what it has said so far, by event."""

    def __init__(self, folder: Path) -> None:
        self.log_file = folder / "vllm.log"
        self.events: dict[str, dict[str, Any]] = {}
        self.stray: list[str] = []
        self.errors = folder / "stderr"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.engine_process", str(MODEL), str(self.log_file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def wait_for(self, event: str) -> dict[str, Any]:
        """Read what the program says until it says this."""
        assert self.process.stdout is not None
        while event not in self.events:
            line = self.process.stdout.readline()
            if not line:
                raise AssertionError(f"no {event!r}; stderr:\n{self.errors.read_text()[-3000:]}")
            try:
                said = json.loads(line)
                self.events[said["event"]] = said
            except ValueError:
                self.stray.append(line)
        return self.events[event]

    def members(self) -> set[int]:
        """The processes of its session that are alive."""
        alive = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                except OSError:
                    continue
                if int(session) == self.process.pid and state != "Z":
                    alive.add(int(entry.name))
        return alive


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """A whole life, from an abandoned start to a violent end."""
    life = Life(tmp_path_factory.mktemp("life"))
    assert life.process.stdin is not None
    assert life.process.stdout is not None
    try:
        life.wait_for("started")
        os.killpg(life.process.pid, signal.SIGINT)
        life.process.stdin.write("\n")
        life.process.stdin.flush()
        life.wait_for("ready")
        yield life
    finally:
        for pid in life.members():
            os.kill(pid, signal.SIGKILL)
        life.process.wait()
        life.process.stdin.close()
        life.process.stdout.close()


def test_an_abandoned_start_leaves_no_process(life: Life):
    assert life.events["abandoned"] == {"event": "abandoned", "cancelled": True, "children": []}


def test_an_interrupt_of_the_process_group_leaves_the_engine_alone(life: Life):
    assert life.events["interrupted"]["interrupts"] == 1
    assert life.events["interrupted"]["failure"] == ""
    assert life.events["interrupted"]["text"] != ""


def test_a_lost_engine_process_is_told_with_the_log(life: Life):
    died = life.events["died"]
    assert (died["message"], died["code"]) == ("vLLM's engine process has died", 1)
    assert str(life.log_file) in died["hint"]
    assert life.events["closed"]["children"] == []


def test_stdout_and_stderr_stay_the_users(life: Life):
    assert life.stray == []
    assert life.errors.read_text() == ""
    assert "EngineCore" in life.log_file.read_text()


def test_a_killed_user_leaves_no_orphan(life: Life):
    members = life.members()
    assert len(members) >= 3  # the program, the engine core and a worker, beside multiprocessing's own
    life.process.kill()
    life.process.wait()
    deadline = time.monotonic() + 60
    while life.members() and time.monotonic() < deadline:
        time.sleep(0.2)  # of a process that is not our child, the system tells us nothing
    assert life.members() == set()
