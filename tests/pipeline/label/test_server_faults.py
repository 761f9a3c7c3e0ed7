"""Servers that fail in every known way: the table is that of sound servers, or says what is missing and why.

Both stages run with one server whose every fifth answer is faulty, and with three of which one is always faulty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.engines.http.engine import EndpointEngine
from tagllm_cli.pipeline.label.jobs import candidates_job, disambiguate_job
from tagllm_cli.pipeline.label.run import RunOptions, run_job
from tagllm_cli.pipeline.label.summary import Summary
from tagllm_cli.pipeline.progress import Silent
from tagllm_cli.records import Row
from tagllm_cli.store.table import open_table
from tests.support import server_faults as faults
from tests.support.asking import settings
from tests.support.faulty_proxy import Fault, FaultyProxy
from tests.support.stub_server import Faulty, stub_server
from tests.support.workspace import MODEL, Workspace

IMAGES = 40
EVERY = 5
STAGES = ("candidates", "labels")
RUNS = tuple(product(STAGES, (1, 3)))  # stage, servers
# For the pauses of the faults themselves: forty of them, and a machine that does other things, too.
SLACK_S = 3.0
# Pauses are a tenth of the defaults or less, and so are those of the faults.
LIMITS = {"timeout_s": 1.0, "max_wait_s": 0.1, "backoff_s": 0.02, "pause_s": 0.05, "concurrency": 16}
# Runs wait more than they work, so those of one fault go on together; so do the undisturbed ones.
THREADS = len(RUNS)


def sound(number: int, path: str) -> Fault | None:
    return None


def every(fault: Fault, nth: int = EVERY) -> Faulty:
    """Let every n-th answer to a question fail."""
    return lambda number, path: fault if number and number % nth == 0 else None


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

    def label_all(self, out: Path, faulty: Callable[[int], Sequence[Faulty]]) -> dict[tuple[str, int], Ended]:
        """Run both stages with one server and with three; `faulty` gives each of so many servers its fault."""

        def run(stage: str, count: int) -> Ended:
            with serving(*faulty(count)) as servers:
                return self.label(out / f"{stage}-{count}", stage, servers)

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


def among(fault: Fault, nth: int = EVERY) -> Callable[[int], Sequence[Faulty]]:
    """Every n-th answer of one server fails, or all of one server of three."""
    return lambda servers: [every(fault, nth)] if servers == 1 else [always(fault), sound, sound]


@pytest.mark.parametrize("name", [*faults.PASSING, *faults.HARMLESS])
def test_the_table_is_that_of_sound_servers(name: str, world: World, tmp_path: Path) -> None:
    fault = faults.PASSING.get(name) or faults.HARMLESS[name]
    nth = EVERY * 4 if name in faults.SLOW else EVERY
    for chosen, ended in world.label_all(tmp_path, among(fault, nth)).items():
        undisturbed = world.undisturbed[chosen]
        assert is_same(ended, undisturbed), chosen
        if len(ended.questions) == 1:  # what fails is asked once more, and nothing else is
            failed = ended.questions[0] // nth if name in faults.ASKED_AGAIN else 0
            assert ended.questions[0] - undisturbed.questions[0] <= failed, chosen


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
