"""Killed at any moment and run again: the same tables, byte for byte, as if nothing had happened."""

from __future__ import annotations

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.jobs_kit import Desk
from tests.label_process import label, processes, record

IMAGES = 150
EACH = 4  # questions about an image in the first stage
KILLS = 50
DELAY_S = 0.002
TOGETHER = 4


@dataclass(frozen=True)
class Trial:
    """What a killed run had left: answers on record in both stages, which files, and the final bytes after a rerun."""

    died: bool
    answers: int
    files: frozenset[str]
    final: dict[str, bytes]


@dataclass(frozen=True)
class World:
    """Pictures, recorded answers, and what an undisturbed run makes of them in how many seconds of processor time."""

    root: Path
    tables: dict[str, bytes]
    candidate_answers: int
    answers: int
    seconds: float

    def run(self, out: Path, die_after: float | None = None) -> int | None:
        """Label in a process of its own; return its exit code, negative for a signal."""
        arguments = (str(self.root), str(out), str(self.root / "answers.jsonl"), DELAY_S, die_after)
        process = processes().Process(target=label, args=arguments)
        process.start()
        process.join(120)
        return process.exitcode


def answers_on_record(out: Path, copy: Path) -> int:
    """Count answers in a copy of what lies in `out`: looking into an SQLite file of a killed process changes it."""
    if not out.exists():
        return 0
    shutil.copytree(out, copy)
    found = 0
    for path in copy.glob("*.evidence"):
        with closing(sqlite3.connect(path)) as database:
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'reply'").fetchone():
                found += database.execute("SELECT count(*) FROM reply").fetchone()[0]
    return found


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.suffix != ".evidence"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    Desk(root, IMAGES)
    record(root, root / "answers.jsonl")
    out = root / "undisturbed"
    assert World(root, {}, 0, 0, 0.0).run(out) == 0
    seconds = float(Path(f"{out}.seconds").read_text())
    return World(root, tables(out), IMAGES * EACH, answers_on_record(out, root / "looked at"), seconds)


def test_the_undisturbed_run_labels_every_image(world: World) -> None:
    assert sorted(world.tables) == ["c.parquet", "l.parquet"]
    assert world.answers > world.candidate_answers


def test_killed_at_fifty_moments_and_run_again_the_tables_are_the_same(world: World, tmp_path: Path) -> None:
    rng = Random(3)
    moments = [world.seconds * (number + rng.random()) / KILLS for number in range(KILLS)]

    def trial(number: int) -> Trial:
        out = tmp_path / f"{number}"
        died = world.run(out, moments[number]) == -9
        answers = answers_on_record(out, tmp_path / f"{number}-copy")
        files = frozenset(path.name for path in out.iterdir()) if out.exists() else frozenset()
        assert world.run(out) == 0
        return Trial(died, answers, files, tables(out))

    with ThreadPoolExecutor(TOGETHER) as pool:
        trials = list(pool.map(trial, range(KILLS)))
    assert [number for number, found in enumerate(trials) if found.final != world.tables] == []
    died = [found for found in trials if found.died]
    # The moments are spread over the whole life of both stages.
    assert len(died) >= KILLS - 5
    assert any(not found.files for found in died), "before there was a file"
    assert any(0 < found.answers < world.candidate_answers for found in died), "while candidates were asked for"
    assert any(".c.parquet.new" in found.files for found in died), "while the candidate table was written"
    assert any(world.candidate_answers < found.answers < world.answers for found in died), "in the second stage"
