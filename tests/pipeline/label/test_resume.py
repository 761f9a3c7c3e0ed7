"""Killed at any moment and run again: the same tables, byte for byte, as if nothing had happened."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.support.label_process import label, processes, record
from tests.support.workspace import Workspace

pytestmark = pytest.mark.slow

IMAGES = 150
EACH = 4  # questions about an image in the first stage
KILLS = 25
DELAY_S = 0.002
TOGETHER = 4


@dataclass(frozen=True)
class World:
    """Images, recorded responses, and what an undisturbed run makes of them in how many seconds of processor time."""

    root: Path
    tables: dict[str, bytes]
    candidate_answers: int
    answers: int
    seconds: float


def run(root: Path, outs: Sequence[Path], die_after: Sequence[float | None]) -> list[int | None]:
    """Label into each folder in a child process, a few at a time; return exit codes, negative for a signal."""
    codes: list[int | None] = []
    for start in range(0, len(outs), TOGETHER):
        started = []
        for out, moment in list(zip(outs, die_after, strict=True))[start : start + TOGETHER]:
            arguments = (str(root), str(out), str(root / "answers.jsonl"), DELAY_S, moment)
            started.append(processes().Process(target=label, args=arguments))
            started[-1].start()
        for process in started:
            process.join(120)
            codes.append(process.exitcode)
    return codes


def answers_on_record(out: Path, copy: Path) -> int:
    """Count answers in a copy of `out`: to open the SQLite file of a killed process changes it."""
    if not out.exists():
        return 0
    shutil.copytree(out, copy)
    found = 0
    for path in copy.glob("*.evidence"):
        with closing(sqlite3.connect(path)) as database:
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'response'").fetchone():
                found += database.execute("SELECT count(*) FROM response").fetchone()[0]
    return found


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.suffix != ".evidence"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    Workspace(root, IMAGES)
    record(root, root / "answers.jsonl")
    outs = [root / f"undisturbed-{number}" for number in range(TOGETHER)]
    assert run(root, outs, [None] * len(outs)) == [0] * len(outs)
    seconds = min(float(Path(f"{out}.seconds").read_text()) for out in outs)
    answers = answers_on_record(outs[0], root / "looked at")
    assert all(tables(out) == tables(outs[0]) for out in outs)
    return World(root, tables(outs[0]), IMAGES * EACH, answers, seconds)


def test_the_undisturbed_run_labels_every_image(world: World) -> None:
    assert sorted(world.tables) == ["c.parquet", "l.parquet"]
    assert world.answers > world.candidate_answers


def moments_met(world: World, left: Sequence[int], files: Sequence[set[str]]) -> dict[str, bool]:
    """Tell at which moments of both stages some were killed: by the answers and the files that they left."""
    asking = [answers for answers in left if 0 < answers < world.candidate_answers]
    return {
        "before there was a file": any(not names for names in files),
        "while candidates were asked for": bool(asking),
        "between two answers about one image": any(answers % EACH for answers in asking),
        "while a table was written": any(name.startswith(".tagllm-") for names in files for name in names),
        "in the second stage": any(world.candidate_answers < answers < world.answers for answers in left),
    }


def test_killed_at_many_moments_and_run_again_the_tables_are_the_same(world: World, tmp_path: Path) -> None:
    rng = Random(3)
    outs: list[Path] = []
    left: list[int] = []
    files: list[set[str]] = []
    died = 0
    # Again for those that were done before their moment came, and until every kind of moment was met.
    while (died < KILLS or not all(moments_met(world, left, files).values())) and len(outs) < 5 * KILLS:
        more = [tmp_path / f"{len(outs) + number}" for number in range(max(KILLS - died, TOGETHER))]
        moments = [world.seconds * (number + rng.random()) / len(more) for number in range(len(more))]
        died += run(world.root, more, moments).count(-signal.SIGKILL)
        outs += more
        left += [answers_on_record(out, tmp_path / f"{out.name}-copy") for out in more]
        files += [{path.name for path in out.iterdir()} if out.exists() else set() for out in more]
    assert died >= KILLS
    assert [moment for moment, was_met in moments_met(world, left, files).items() if not was_met] == []

    assert run(world.root, outs, [None] * len(outs)) == [0] * len(outs)
    assert [out.name for out in outs if tables(out) != world.tables] == []
