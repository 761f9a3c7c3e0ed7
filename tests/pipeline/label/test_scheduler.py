"""The streaming loop: the engine is kept full, and engines that die or talk nonsense and full disks lose nothing."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import pytest

from tagllm_cli.engines.base import EngineDiedError
from tagllm_cli.errors import ModelError, TableError
from tagllm_cli.labeling.binary import Binary
from tagllm_cli.pipeline.label import scheduler as runner
from tagllm_cli.records import DecodedImage, Request, Response
from tagllm_cli.store.evidence import Evidence
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import LABELS, Workspace

EACH = 4
IMAGES = 40


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, IMAGES)


class Filling(RuleEngine):
    """Answers nothing before `full` requests are under way together, and remembers the most that ever were."""

    full = 0
    inside = 0
    most = 0

    async def start(self) -> None:
        await super().start()
        self.filled = asyncio.Event()

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        self.inside += len(requests)
        self.most = max(self.most, self.inside)
        if self.inside >= self.full:
            self.filled.set()
        await asyncio.wait_for(self.filled.wait(), 20)
        self.inside -= len(requests)
        async for pair in super().ask(picture, requests):
            yield pair


@pytest.mark.parametrize(
    ("threads", "capacity", "full"), [(1, 1, EACH), (1, 10, 2 * EACH), (1, 64, 16 * EACH), (3, 1, 3 * EACH)]
)
def test_the_engine_is_kept_full_and_gets_no_more_than_it_wants(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, threads: int, capacity: int, full: int
) -> None:
    """Where threads could decode more images before the engine was there, those come at once."""
    monkeypatch.setattr(runner, "DECODE_THREADS", threads)
    workspace.engine = engine = Filling(capacity=capacity)
    engine.full = full
    assert workspace.candidates().rows.ok == IMAGES
    assert (engine.most, engine.inside, engine.closed) == (full, 0, 1)


class Watched(RuleEngine):
    """Calls `at` with the number of each `ask`."""

    at: Callable[[int], object] = staticmethod(lambda number: None)
    asks = 0

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        self.asks += 1
        self.at(self.asks)
        async for pair in super().ask(picture, requests):
            yield pair


@pytest.mark.parametrize("turns", range(12))
def test_what_ends_while_an_engine_fails_is_not_waited_for_in_vain(
    workspace: Workspace, caplog: pytest.LogCaptureFixture, turns: int
) -> None:
    """Whenever the others end after one has failed, nothing is left that asyncio has to complain about."""
    failed = asyncio.Event()

    class Failing(RuleEngine):
        async def ask(
            self, picture: DecodedImage | None, requests: Sequence[Request]
        ) -> AsyncGenerator[tuple[Request, Response]]:
            async for pair in super().ask(picture, requests):
                yield pair
            if len(self.asked) == 2 * EACH:
                failed.set()
                raise EngineDiedError("the engine died", "Run it again.")
            await failed.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            async for pair in super().ask(picture, requests):
                yield pair

    workspace.engine = Failing(capacity=2 * EACH)
    with pytest.raises(EngineDiedError):
        workspace.candidates()
    gc.collect()  # what asyncio says about a future that nobody asked, it says when the future goes
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_an_engine_that_dies_loses_nothing_that_was_answered(workspace: Workspace) -> None:
    undisturbed = desk_table(workspace)
    workspace.engine = engine = Watched()

    def die(number: int) -> None:
        if number == 20:
            raise EngineDiedError("the engine died", "Run it again.")

    engine.at = die
    with pytest.raises(EngineDiedError):
        workspace.candidates()
    assert engine.closed == 1
    answered = len(engine.asked)
    assert answered > 0
    workspace.engine = RuleEngine()
    assert workspace.candidates().stats.asked == IMAGES * EACH - answered
    assert workspace.out.read_bytes() == undisturbed


def desk_table(workspace: Workspace) -> bytes:
    """Return the bytes of the undisturbed table, and clear the output folder."""
    workspace.candidates()
    table = workspace.out.read_bytes()
    for path in workspace.out.parent.iterdir():
        path.unlink()
    return table


def test_a_bug_stops_the_run_and_keeps_what_was_answered(workspace: Workspace) -> None:
    workspace.engine = engine = Watched()

    def fail(number: int) -> None:
        if number == 20:
            raise ZeroDivisionError("a bug")

    engine.at = fail
    with pytest.raises(ZeroDivisionError, match="a bug"):
        workspace.candidates()
    answered = len(engine.asked)
    workspace.engine = RuleEngine()
    assert workspace.candidates().stats.asked == IMAGES * EACH - answered > 0


def test_answers_are_committed_while_slower_ones_are_under_way(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "COMMIT_SECONDS", 0.01)
    committed = asyncio.Event()
    commit = Evidence.commit

    def watched(evidence: Evidence) -> None:
        commit(evidence)
        if evidence.has_responses():
            committed.set()

    monkeypatch.setattr(Evidence, "commit", watched)

    class Slow(RuleEngine):
        async def ask(
            self, picture: DecodedImage | None, requests: Sequence[Request]
        ) -> AsyncGenerator[tuple[Request, Response]]:
            if self.asked:  # every image but the first waits until that one's answers are safe
                await asyncio.wait_for(committed.wait(), 20)
            async for pair in super().ask(picture, requests):
                yield pair

    workspace.engine = Slow()
    assert workspace.candidates(limit=3).rows.ok == 3


def test_a_commit_that_fails_stops_the_run_though_the_engine_is_busy(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Busy(RuleEngine):
        async def ask(
            self, picture: DecodedImage | None, requests: Sequence[Request]
        ) -> AsyncGenerator[tuple[Request, Response]]:
            if self.asked:
                await asyncio.Event().wait()
            async for pair in super().ask(picture, requests):
                yield pair

    def fail(evidence: Evidence) -> None:
        raise TableError("disk I/O error")

    workspace.engine = Busy()
    monkeypatch.setattr(runner, "COMMIT_SECONDS", 0)
    monkeypatch.setattr(Evidence, "commit", fail)
    with pytest.raises(TableError, match="disk I/O error"):
        workspace.candidates()
    assert workspace.engine.closed == 1


def nonsense(picture: DecodedImage | None, request: Request) -> Response:
    return Response("eine Katze auf dem Tisch")


def test_preflight_stops_a_run_whose_answers_make_no_sense(workspace: Workspace) -> None:
    workspace.engine = RuleEngine(answer=nonsense, capacity=1)
    with pytest.raises(ModelError, match="preflight: only 0 of the") as raised:
        workspace.candidates()
    assert "--no-preflight" in raised.value.hint
    paid = len(workspace.engine.asked)
    assert 32 * EACH <= paid <= (32 + runner.DECODE_THREADS) * EACH
    summary = workspace.candidates(preflight=False)
    assert summary.stats.asked <= (IMAGES - 32) * EACH
    assert summary.rows.ok == IMAGES


def test_a_short_run_whose_answers_make_no_sense_is_warned_about(workspace: Workspace) -> None:
    workspace.engine.answer = nonsense
    (warning,) = workspace.candidates(limit=10).warnings
    assert warning.startswith("the first answers look wrong: only 0 of the")


def test_the_preflight_keeps_a_bounded_sample_of_every_image(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `binary`, thousands of labels are asked about one by one: their answers do not pile up in memory."""
    monkeypatch.setattr(runner, "SAMPLE_REQUESTS", 3)
    samples: list[list[str]] = []

    def judge(self: Binary, answers: Sequence[tuple[Request, Response]]) -> None:
        samples.append([request.text for request, _ in answers])

    monkeypatch.setattr(Binary, "complaint", judge)
    workspace.candidates({"strategy": "binary", "group_size": None}, limit=2)
    (texts,) = samples
    shown = [[name for name in LABELS if name in text] for text in texts]
    assert shown == [["cat"], ["sheep"], ["spoon"]] * 2  # of two images, evenly over the eight labels


def test_failed_images_do_not_hide_the_preflight(workspace: Workspace) -> None:
    for number in range(IMAGES - 5):
        (workspace.images / f"{number:03d}.png").write_bytes(b"no picture")
    workspace.engine.answer = nonsense
    assert workspace.candidates().warnings


def test_a_disk_that_is_full_for_the_table_keeps_the_answers(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(TableError, match=r"cannot write .*No space left on device"):
        workspace.candidates()
    monkeypatch.undo()
    assert [path.name for path in workspace.out.parent.iterdir()] == ["c.evidence"]
    assert workspace.candidates().stats.asked == 0
    assert workspace.statuses() == {f"{number:03d}.png": "ok" for number in range(IMAGES)}


def test_a_disk_that_gets_full_while_answers_come_stops_the_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.candidates(limit=1)

    class Talkative(RuleEngine):
        async def ask(
            self, picture: DecodedImage | None, requests: Sequence[Request]
        ) -> AsyncGenerator[tuple[Request, Response]]:
            async for request, response in super().ask(picture, requests):
                yield request, Response(response.text + " " * 100_000)

    workspace.engine = Talkative()
    opened = Evidence.__init__

    def small(evidence: Evidence, path: Path | None) -> None:
        opened(evidence, path)
        evidence._file.query("PRAGMA max_page_count = 300")

    monkeypatch.setattr(Evidence, "__init__", small)
    with pytest.raises(TableError, match="disk is full") as raised:
        workspace.candidates()
    monkeypatch.undo()
    assert "free space" in raised.value.hint
    assert workspace.engine.closed == 1
    workspace.engine = RuleEngine()
    assert workspace.candidates().rows.ok == IMAGES
