"""Servers that fail in every known way: the table is that of sound servers, or says what is missing and why.

Both stages run with one server whose every fifth answer is faulty, and with three of which one is always faulty.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.engines.http.engine import EndpointEngine
from tagllm_cli.errors import EndpointError
from tagllm_cli.pipeline.label.job import RunOptions
from tagllm_cli.pipeline.label.jobs import candidates_job, disambiguate_job
from tagllm_cli.pipeline.label.run import run_job
from tagllm_cli.pipeline.label.summary import Summary
from tagllm_cli.pipeline.progress import Silent
from tagllm_cli.records import Row
from tagllm_cli.store.table import open_table
from tests.support import server_faults as faults
from tests.support.asking import settings
from tests.support.faulty_proxy import Fault, FaultyProxy
from tests.support.stub_server import Faulty, stub_server
from tests.support.workspace import MODEL, Workspace

pytestmark = pytest.mark.slow

IMAGES = 40
EVERY = 5
STAGES = ("candidates", "labels")
RUNS = tuple(product(STAGES, (1, 3)))  # stage, servers
# For the pauses of the faults themselves: forty of them, and a machine that does other things, too.
SLACK_S = 3.0
# Pauses are a tenth of the defaults or less, and so are those of the faults.
# Where no answer is to time out, none does on a busy machine.
PATIENT = {"timeout_s": 30.0}
LIMITS = {"timeout_s": 2.0, "max_wait_s": 0.1, "backoff_s": 0.02, "pause_s": 0.05, "concurrency": 16}
# Runs wait more than they work, so those of one fault go on together; so do the undisturbed ones.
THREADS = len(RUNS)


def sound(number: int, path: str) -> Fault | None:
    return None


def every_fifth(fault: Fault, last: float = float("inf")) -> Faulty:
    """Let every fifth answer to a question fail, up to the one of number `last`."""
    return lambda number, path: fault if number and number % EVERY == 0 and number <= last else None


def always(fault: Fault, after: int = 0) -> Faulty:
    """Let every answer to a question fail, or those after the first `after`."""
    return lambda number, path: fault if number > after else None


@dataclass(frozen=True)
class Ended:
    """What one run made: its summary, its rows by image id, its seconds, and how many questions each server got."""

    summary: Summary
    rows: Mapping[str, Row]
    seconds: float
    questions: Sequence[int]


class World:
    """Images, a vocabulary and a candidate table, and what undisturbed runs make of them."""

    def __init__(self, root: Path) -> None:
        self._workspace = Workspace(root, IMAGES)
        with stub_server() as server:
            self.label(root / "first", "candidates", [server])
        self._candidates = root / "first" / "candidates.parquet"
        self.undisturbed = self.label_all(root / "undisturbed", lambda servers: [sound] * servers)

    def label(self, out: Path, stage: str, servers: Sequence[FaultyProxy], **limits: Any) -> Ended:
        """Run one stage into a folder, which may hold an earlier run's table."""
        table, options = out / f"{stage}.parquet", RunOptions()
        if stage == "candidates":
            source, vocabulary = str(self._workspace.images), str(self._workspace.vocabulary)
            job = candidates_job(source, vocabulary, table, MODEL, options, group_size=5)
        else:
            job = disambiguate_job(self._candidates, table, MODEL, options)
        chosen = settings(*servers, **{**LIMITS, **limits})
        before = [len(server.questions) for server in servers]
        began = time.monotonic()
        summary = run_job(replace(job, engine=lambda plan: EndpointEngine(chosen)), options, Silent())
        seconds = time.monotonic() - began
        assert isinstance(summary, Summary)
        rows = {row.image_id: row for row in open_table(table).rows()}
        return Ended(summary, rows, seconds, [len(each.questions) - n for each, n in zip(servers, before, strict=True)])

    def label_all(
        self, out: Path, faulty: Callable[[int], Sequence[Faulty]], **limits: Any
    ) -> dict[tuple[str, int], Ended]:
        """Run both stages with one server and with three; `faulty` gives each of so many servers its fault."""

        def run(stage: str, count: int) -> Ended:
            with serving(*faulty(count)) as servers:
                return self.label(out / f"{stage}-{count}", stage, servers, **limits)

        with ThreadPoolExecutor(THREADS) as threads:
            return dict(zip(RUNS, threads.map(lambda chosen: run(*chosen), RUNS), strict=True))


@contextmanager
def serving(*faulty: Faulty) -> Iterator[list[FaultyProxy]]:
    """Yield a server for each fault."""
    with ExitStack() as stack:
        yield [stack.enter_context(stub_server(fault=each)) for each in faulty]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"))
    assert all(row.status == "ok" for ended in world.undisturbed.values() for row in ended.rows.values())
    return world


def is_same(ended: Ended, undisturbed: Ended) -> bool:
    """Whether a run made the undisturbed table, in time."""
    assert ended.summary.error is None, ended.summary.error
    assert ended.rows == undisturbed.rows
    assert ended.seconds <= 3 * undisturbed.seconds + SLACK_S
    return True


def among(fault: Fault, last: float = float("inf"), *, lasts: bool = True) -> Callable[[int], Sequence[Faulty]]:
    """Every fifth answer of one server fails, up to number `last`; where it `lasts`, all answers of one in three."""
    some = every_fifth(fault, last)
    return lambda servers: [some] if servers == 1 else [always(fault) if lasts else some, sound, sound]


@pytest.mark.parametrize("name", [*faults.PASSING, *faults.HARMLESS])
def test_the_table_is_that_of_sound_servers(name: str, world: World, tmp_path: Path) -> None:
    fault = faults.PASSING.get(name) or faults.HARMLESS[name]
    last = EVERY * 5 if name in faults.FEW else float("inf")
    limits = {} if name in faults.TIMED_OUT else PATIENT
    ended_by = world.label_all(tmp_path, among(fault, last, lasts=name != faults.CUT_OFF), **limits)
    for (stage, count), ended in ended_by.items():
        undisturbed = world.undisturbed[stage, count]
        assert is_same(ended, undisturbed), (stage, count)
        if count == 1:  # what fails is asked once more, and nothing else is
            failed = min(ended.questions[0], last) // EVERY if name in faults.ASKED_AGAIN else 0
            assert ended.questions[0] - undisturbed.questions[0] <= failed, stage


@pytest.mark.parametrize("name", [*faults.REFUSALS, *faults.OF_LISTS, *faults.OF_YES_AND_NO])
def test_what_a_server_refuses_another_one_answers(name: str, world: World, tmp_path: Path) -> None:
    fault, reason = {**faults.REFUSALS, **faults.OF_LISTS, **faults.OF_YES_AND_NO}[name]
    stages = [
        stage
        for stage, others in (("candidates", faults.OF_YES_AND_NO), ("labels", faults.OF_LISTS))
        if name not in others
    ]
    ended = world.label_all(tmp_path, among(fault))
    for stage in stages:
        assert is_same(ended[stage, 3], world.undisturbed[stage, 3]), stage
        alone, undisturbed = ended[stage, 1], world.undisturbed[stage, 1]
        failed = {name for name, row in alone.rows.items() if row != undisturbed.rows[name]}
        assert failed
        for name_ in failed:
            row = alone.rows[name_]
            assert row.status in ("failed", "partial")
            assert reason in str(row.error)
        with serving(sound) as servers:
            healed = world.label(tmp_path / f"{stage}-1", stage, servers)
        assert is_same(healed, undisturbed)
        assert healed.questions[0] == alone.summary.stats.failed_requests


# At the defaults, all durations are fifty times as long.
LASTING = {
    "timeout_s": 6.0,
    "give_up_s": 1.8,
    "silence_s": 1.2,
    "max_wait_s": 1.2,
    "backoff_s": 0.01,
    "pause_s": 0.02,
    "concurrency": 64,
}
LONGEST_S = 120 / 50


@pytest.fixture(scope="module")
def ended_by(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Future[Ended]]]:
    """Runs whose answers all fail from the sixtieth on. They wait most of the time, so many go on together."""
    root = tmp_path_factory.mktemp("lasting")

    def run(name: str, stage: str) -> Ended:
        with serving(always(faults.PERMANENT[name][0], after=60)) as servers:
            return world.label(root / stage / name, stage, servers, **LASTING)

    with ThreadPoolExecutor(2 * THREADS) as threads:
        chosen = product(sorted(faults.PERMANENT), STAGES)
        yield {(name, stage): threads.submit(run, name, stage) for name, stage in chosen}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", sorted(faults.PERMANENT))
def test_a_fault_that_lasts_ends_the_run_with_its_reason(
    name: str, stage: str, ended_by: dict[tuple[str, str], Future[Ended]], world: World
) -> None:
    ended, undisturbed = ended_by[name, stage].result(), world.undisturbed[stage, 1]
    error, reason = ended.summary.error, faults.PERMANENT[name][1]
    assert error is not None
    assert error.exit_code == 3
    said = [error.message, *ended.summary.lines()]
    assert any(reason in line for line in said), said
    assert ended.seconds <= 3 * undisturbed.seconds + LONGEST_S + SLACK_S
    assert all(row == undisturbed.rows[image] for image, row in ended.rows.items() if row.status == "ok")
    assert {row.status for row in ended.rows.values()} & {"failed", "partial", "pending"}
    with serving(sound) as servers:
        assert is_same(world.label(ended.summary.out.parent, stage, servers), undisturbed)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("how", ["dead for a while", "stopped for a while"])
def test_servers_that_are_all_away_for_a_while_cost_their_absence(
    how: str, count: int, world: World, tmp_path: Path
) -> None:
    away = 0.6

    def leave(server: FaultyProxy) -> None:
        go, come = (server.down, server.up) if how.startswith("dead") else (server.stop, server.go_on)
        go()
        time.sleep(away)
        come()
        came.set()

    came = threading.Event()

    def fault(number: int, path: str) -> Fault | None:
        if number == 15:
            for server in servers:
                threading.Thread(target=leave, args=(server,)).start()
        return None

    for stage in STAGES:
        with serving(fault, *[sound] * (count - 1)) as servers:
            ended = world.label(tmp_path / stage, stage, servers)
            assert came.wait(5)
        assert is_same(replace(ended, seconds=ended.seconds - away), world.undisturbed[stage, count])


def test_one_of_three_servers_that_is_not_there_is_not_missed(world: World, tmp_path: Path) -> None:
    for stage in STAGES:
        with serving(sound, sound, sound) as servers:
            servers[0].down()
            assert is_same(world.label(tmp_path / stage, stage, servers), world.undisturbed[stage, 3])


def test_a_server_that_is_not_there_is_told_at_once_and_nothing_is_written(world: World, tmp_path: Path) -> None:
    for stage in STAGES:
        with serving(sound) as servers:
            servers[0].down()
            with pytest.raises(EndpointError, match="no endpoint answers") as raised:
                world.label(tmp_path / stage, stage, servers)
        assert raised.value.exit_code == 2
        assert not (tmp_path / stage).exists()


@pytest.mark.parametrize("count", [1, 3])
def test_another_model_is_told_at_the_start(count: int, world: World, tmp_path: Path) -> None:
    with stub_server("another") as other, serving(*[sound] * (count - 1)) as servers:
        with pytest.raises(EndpointError, match="does not serve stub") as raised:
            world.label(tmp_path, "candidates", [other, *servers], pinned="stub")
        assert not other.questions
    assert "It serves another" in raised.value.hint
