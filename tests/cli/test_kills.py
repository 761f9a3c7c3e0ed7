"""`kill -9` at random moments: the same tables, no recorded answer asked for again, and few of those that were sent.

`make kills` does it 100 times with each command, 25 times with each kind of shards, and prints a report; TAGLLM_KILLS
sets another number. `run`, which leaves both tables, is killed over a folder and over tar shards.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tagllm_cli.records import Row
from tagllm_cli.store.table import open_table
from tests.support.faulty_proxy import FaultyProxy, slow
from tests.support.label_process import plain_command, processes
from tests.support.object_store import ENVIRONMENT, object_store
from tests.support.packing import packed
from tests.support.stub_server import respond
from tests.support.workspace import Workspace

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("TAGLLM_KILLS", "15"))
KILLS_OF_SHARDS = int(os.environ.get("TAGLLM_KILLS", "40")) // 4
KILLS_OF_RUN = int(os.environ.get("TAGLLM_KILLS", "20"))
SHARDS = ("tar", "parquet", "tar on S3", "parquet on S3")
RUNS = {"run": "images", "run from tar": "tar"}
MOST_LOST = 64  # answers that were sent and are asked for again, per kill
IMAGES = 80
PAUSE_S = 0.02


@dataclass
class Ledger:
    """What the server was asked: a number for each question, sent back as its `prompt_tokens` and recorded as such."""

    numbers: dict[str, int] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)

    def answer(self, question: Any) -> Any:
        number = self.numbers.setdefault(json.dumps(question, sort_keys=True), len(self.numbers) + 1)
        completion: Any = respond(question)
        completion["usage"]["prompt_tokens"] = number
        self.sent.append(number)
        return completion


@dataclass
class World:
    """Images and a server; of an undisturbed run of each command its table, its questions, and the seconds it took."""

    root: Path
    ledger: Ledger
    words: dict[str, list[str]]
    environment: dict[str, str]
    rows: dict[str, list[list[Row]]] = field(default_factory=dict)
    questions: dict[str, set[int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def start(self, command: str, out: Path) -> BaseProcess:
        words = [*self.words[command], "--out", str(out)]
        process = processes().Process(target=plain_command, args=(words, self.environment))
        process.start()
        return process


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("kills")
    workspace = Workspace(root, IMAGES)
    ledger = Ledger()
    candidates = root / "whole-candidates.parquet"
    with FaultyProxy(
        lambda number, path: slow(PAUSE_S), answer=ledger.answer, models=("stub",), owned_by="stub"
    ) as server:
        common = ["--endpoint", server.url, "--quiet"]
        vocabulary = ["--vocab", str(workspace.vocabulary), "--group-size", "5"]
        words = {
            "candidates": ["candidates", str(workspace.images), *vocabulary, *common],
            "disambiguate": ["disambiguate", str(candidates), *common],
        }
        for place in SHARDS:
            source = packed(workspace.images, place, root / place)
            words[place] = ["candidates", source, "--source-format", place.partition(" on ")[0], *vocabulary, *common]
        for name, folder in RUNS.items():
            words[name] = ["run", str(root / folder), *vocabulary, *common]
        world = World(root, ledger, words, {**ENVIRONMENT, "AWS_ENDPOINT_URL": object_store().url})
        world.start("candidates", root / "warm-up" / "t.parquet").join(120)  # the first process takes seconds to start
        ledger.sent.clear()
        for command in words:
            before, began = len(ledger.sent), time.monotonic()
            out = root / f"whole-{command}.parquet"
            process = world.start(command, out)
            process.join(120)
            assert process.exitcode == 0
            world.seconds[command] = time.monotonic() - began
            asked = set(ledger.sent[before:])
            world.questions[command] = asked
            world.rows[command] = rows(out)
        yield world


def recorded(out: Path, copy: Path) -> set[int]:
    """Return the numbers of the answers on record, in a copy: opening a killed process's file changes it."""
    copy.mkdir()
    for path in out.parent.glob("*.evidence*"):
        shutil.copyfile(path, copy / path.name)
    numbers = set[int]()
    for evidence in copy.glob("*.evidence"):
        with closing(sqlite3.connect(evidence)) as database:
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'response'").fetchone():
                numbers |= {number for (number,) in database.execute("SELECT prompt_tokens FROM response")}
    return numbers


def rows(out: Path) -> list[list[Row]]:
    """Return the rows of a command's tables: `run` has two."""
    both = (out, out.with_suffix(".candidates.parquet"))
    return [list(open_table(table).rows()) for table in both if table.exists()]


@pytest.mark.parametrize(
    ("command", "kills"),
    [
        ("candidates", KILLS),
        ("disambiguate", KILLS),
        *((place, KILLS_OF_SHARDS) for place in SHARDS),
        *((name, KILLS_OF_RUN) for name in RUNS),
    ],
)
def test_killed_at_random_moments(
    world: World, tmp_path: Path, command: str, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, lost, episodes = Random(7), list[int](), 0
    while len(lost) < kills:
        episodes += 1
        lost += killed_until_done(world, command, tmp_path / str(episodes) / "t.parquet", kills - len(lost), rng)
    if "TAGLLM_KILLS" in os.environ:
        with capsys.disabled():
            print(f"\n{command}: {len(lost)} kills in {episodes} runs of {len(world.questions[command])} questions;")
            asked = f"{sum(lost)} in all, {statistics.median(lost):g} per kill (median), {max(lost)} at most"
            print(f"  asked again after they were recorded: 0; after they were sent: {asked}; tables equal")
    assert max(lost) <= MOST_LOST


def killed_until_done(world: World, command: str, out: Path, most: int, rng: Random) -> list[int]:
    """Kill a command at most so many times and start it again, until it is done.

    Return for each kill how many answers were sent to it and are not on record: they are asked for again.
    """
    lost: list[int] = []
    kept: set[int] = set()
    while True:
        before = len(world.ledger.sent)
        process = world.start(command, out)
        if len(lost) < most:
            process.join(rng.uniform(0, world.seconds[command]))
            process.kill()
        process.join(120)
        sent = set(world.ledger.sent[before:])
        assert kept.isdisjoint(sent), "asked again after they were recorded"
        if process.exitcode == 0:
            assert rows(out) == world.rows[command]
            if command in RUNS:
                before = len(world.ledger.sent)
                again = world.start(command, out)
                again.join(120)
                assert (again.exitcode, world.ledger.sent[before:]) == (0, [])
            return lost
        assert process.exitcode == -signal.SIGKILL
        kept = recorded(out, out.parent.with_name(f"{out.parent.name}-{len(lost)}"))
        lost.append(len(sent - kept))


def test_the_kills_fall_while_something_is_asked(world: World) -> None:
    assert all(len(questions) > 2 * MOST_LOST for questions in world.questions.values())


def test_run_leaves_what_both_commands_leave(world: World) -> None:
    assert len(world.rows["run"]) == 2
    assert world.rows["run"] == world.rows["disambiguate"] + world.rows["candidates"]
    assert world.rows["run from tar"][1] == world.rows["tar"][0]
