"""The streaming loop: the engine is kept full, and engines that die or talk nonsense and full disks lose nothing."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tagllm_cli.engines.base import EngineDiedError
from tagllm_cli.errors import ModelError, TableError
from tagllm_cli.labeling.binary import Binary
from tagllm_cli.pipeline.label import scheduler as runner
from tagllm_cli.records import Picture, Reply, Request
from tagllm_cli.store.evidence import Evidence
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import LABELS, Desk

EACH = 4
IMAGES = 40


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, IMAGES)


class Filling(RuleEngine):
    """Answers nothing before `full` requests are under way together, and remembers the most that ever were."""

    full = 0
    inside = 0
    most = 0

    async def start(self) -> None:
        await super().start()
        self.filled = asyncio.Event()

    async def ask(self, picture: Picture | None, requests: Sequence[Request]) -> list[Reply]:
        self.inside += len(requests)
        self.most = max(self.most, self.inside)
        if self.inside >= self.full:
            self.filled.set()
        await asyncio.wait_for(self.filled.wait(), 20)
        self.inside -= len(requests)
        return await super().ask(picture, requests)


@pytest.mark.parametrize(
    ("threads", "capacity", "full"), [(1, 1, EACH), (1, 10, 2 * EACH), (1, 64, 16 * EACH), (3, 1, 3 * EACH)]
)
def test_the_engine_is_kept_full_and_gets_no_more_than_it_wants(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, threads: int, capacity: int, full: int
) -> None:
    """Where threads could decode more images before the engine was there, those come at once."""
    monkeypatch.setattr(runner, "DECODE_THREADS", threads)
    desk.engine = engine = Filling(capacity=capacity)
    engine.full = full
    assert desk.candidates().rows.ok == IMAGES
    assert (engine.most, engine.inside, engine.closed) == (full, 0, 1)


class Watched(RuleEngine):
    """Calls `at` with the number of each `ask`."""

    at: Callable[[int], object] = staticmethod(lambda number: None)
    asks = 0

    async def ask(self, picture: Picture | None, requests: Sequence[Request]) -> list[Reply]:
        self.asks += 1
        self.at(self.asks)
        return await super().ask(picture, requests)


@pytest.mark.parametrize("turns", range(12))
def test_what_ends_while_an_engine_fails_is_not_waited_for_in_vain(
    desk: Desk, caplog: pytest.LogCaptureFixture, turns: int
) -> None:
    """Whenever the others end after one has failed, nothing is left that asyncio has to complain about."""
    failed = asyncio.Event()

    class Failing(RuleEngine):
        async def ask(self, picture: Picture | None, requests: Sequence[Request]) -> list[Reply]:
            await super().ask(picture, requests)
            if len(self.asked) == 2 * EACH:
                failed.set()
                raise EngineDiedError("the engine died", "Run it again.")
            await failed.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            return await super().ask(picture, requests)

    desk.engine = Failing(capacity=2 * EACH)
    with pytest.raises(EngineDiedError):
        desk.candidates()
    gc.collect()  # what asyncio says about a future that nobody asked, it says when the future goes
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_an_engine_that_dies_loses_nothing_that_was_answered(desk: Desk) -> None:
    undisturbed = desk_table(desk)
    desk.engine = engine = Watched()

    def die(number: int) -> None:
        if number == 20:
            raise EngineDiedError("the engine died", "Run it again.")

    engine.at = die
    with pytest.raises(EngineDiedError):
        desk.candidates()
    assert engine.closed == 1
    answered = len(engine.asked)
    assert answered > 0
    desk.engine = RuleEngine()
    assert desk.candidates().tally.asked == IMAGES * EACH - answered
    assert desk.out.read_bytes() == undisturbed


def desk_table(desk: Desk) -> bytes:
    """Return the bytes of the undisturbed table, and clear the output folder."""
    desk.candidates()
    table = desk.out.read_bytes()
    for path in desk.out.parent.iterdir():
        path.unlink()
    return table


def test_a_bug_stops_the_run_and_keeps_what_was_answered(desk: Desk) -> None:
    desk.engine = engine = Watched()

    def fail(number: int) -> None:
        if number == 20:
            raise ZeroDivisionError("a bug")

    engine.at = fail
    with pytest.raises(ZeroDivisionError, match="a bug"):
        desk.candidates()
    answered = len(engine.asked)
    desk.engine = RuleEngine()
    assert desk.candidates().tally.asked == IMAGES * EACH - answered > 0


def test_answers_are_committed_while_slower_ones_are_under_way(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "COMMIT_SECONDS", 0.01)
    committed = asyncio.Event()
    commit = Evidence.commit

    def watched(evidence: Evidence) -> None:
        commit(evidence)
        if evidence.has_replies():
            committed.set()

    monkeypatch.setattr(Evidence, "commit", watched)

    class Slow(RuleEngine):
        async def ask(self, picture: Picture | None, requests: Sequence[Request]) -> list[Reply]:
            if self.asked:  # every image but the first waits until that one's answers are safe
                await asyncio.wait_for(committed.wait(), 20)
            return await super().ask(picture, requests)

    desk.engine = Slow()
    assert desk.candidates(limit=3).rows.ok == 3


def test_a_commit_that_fails_stops_the_run_though_the_engine_is_busy(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Busy(RuleEngine):
        async def ask(self, picture: Picture | None, requests: Sequence[Request]) -> list[Reply]:
            if self.asked:
                await asyncio.Event().wait()
            return await super().ask(picture, requests)

    def fail(evidence: Evidence) -> None:
        raise TableError("disk I/O error")

    desk.engine = Busy()
    monkeypatch.setattr(runner, "COMMIT_SECONDS", 0)
    monkeypatch.setattr(Evidence, "commit", fail)
    with pytest.raises(TableError, match="disk I/O error"):
        desk.candidates()
    assert desk.engine.closed == 1


def nonsense(picture: Picture | None, request: Request) -> Reply:
    return Reply("eine Katze auf dem Tisch")


def test_preflight_stops_a_run_whose_answers_make_no_sense(desk: Desk) -> None:
    desk.engine = RuleEngine(answer=nonsense, capacity=1)
    with pytest.raises(ModelError, match="preflight: only 0 of the") as raised:
        desk.candidates()
    assert "--no-preflight" in raised.value.hint
    paid = len(desk.engine.asked)
    assert 32 * EACH <= paid <= (32 + runner.DECODE_THREADS) * EACH
    summary = desk.candidates(preflight=False)
    assert summary.tally.asked <= (IMAGES - 32) * EACH
    assert summary.rows.ok == IMAGES


def test_a_short_run_whose_answers_make_no_sense_is_warned_about(desk: Desk) -> None:
    desk.engine.answer = nonsense
    (warning,) = desk.candidates(limit=10).warnings
    assert warning.startswith("the first answers look wrong: only 0 of the")


def test_the_preflight_keeps_a_bounded_sample_of_every_image(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `binary`, thousands of labels are asked about one by one: their answers do not pile up in memory."""
    monkeypatch.setattr(runner, "SAMPLE_REQUESTS", 3)
    samples: list[list[str]] = []

    def judge(self: Binary, answers: Sequence[tuple[Request, Reply]]) -> None:
        samples.append([request.text for request, _ in answers])

    monkeypatch.setattr(Binary, "complaint", judge)
    desk.candidates({"strategy": "binary", "group_size": None}, limit=2)
    (texts,) = samples
    shown = [[name for name in LABELS if name in text] for text in texts]
    assert shown == [["cat"], ["sheep"], ["spoon"]] * 2  # of two images, evenly over the eight labels


def test_failed_images_do_not_hide_the_preflight(desk: Desk) -> None:
    for number in range(IMAGES - 5):
        (desk.images / f"{number:03d}.png").write_bytes(b"no picture")
    desk.engine.answer = nonsense
    assert desk.candidates().warnings


def test_a_disk_that_is_full_for_the_table_keeps_the_answers(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(TableError, match=r"cannot write .*No space left on device"):
        desk.candidates()
    monkeypatch.undo()
    assert [path.name for path in desk.out.parent.iterdir()] == ["c.evidence"]
    assert desk.candidates().tally.asked == 0
    assert desk.statuses() == {f"{number:03d}.png": "ok" for number in range(IMAGES)}


def test_a_disk_that_gets_full_while_answers_come_stops_the_run(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.candidates(limit=1)

    class Talkative(RuleEngine):
        async def ask(self, picture: Picture | None, requests: Sequence[Request]) -> list[Reply]:
            found = await super().ask(picture, requests)
            return [Reply(reply.text + " " * 100_000) for reply in found]

    desk.engine = Talkative()
    opened = Evidence.__init__

    def small(evidence: Evidence, path: Path | None) -> None:
        opened(evidence, path)
        evidence._file.query("PRAGMA max_page_count = 300")

    monkeypatch.setattr(Evidence, "__init__", small)
    with pytest.raises(TableError, match="disk is full") as raised:
        desk.candidates()
    monkeypatch.undo()
    assert "free space" in raised.value.hint
    assert desk.engine.closed == 1
    desk.engine = RuleEngine()
    assert desk.candidates().rows.ok == IMAGES
