"""The scheduler keeps the engine busy; engines that die or answer nonsense, signals and full disks lose nothing."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tagllm_cli.errors import EndpointError, EngineDiedError, InterruptedRunError, StoppedRunError, TableError
from tagllm_cli.labeling.binary import Binary
from tagllm_cli.labeling.candidates import Candidates
from tagllm_cli.pipeline.label import recorder, sanity_check, worker
from tagllm_cli.pipeline.label.job import RunOptions
from tagllm_cli.pipeline.label.run import run_job
from tagllm_cli.pipeline.label.summary import Summary
from tagllm_cli.pipeline.progress import Silent
from tagllm_cli.records import DecodedImage, Failure, Request, Response
from tagllm_cli.store.evidence import Evidence
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import LABELS, Workspace, evidence_rows

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


@pytest.mark.parametrize(("capacity", "full"), [(1, EACH), (10, 2 * EACH), (64, 16 * EACH)])
def test_the_engine_is_kept_full_and_gets_no_more_than_it_wants(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capacity: int, full: int
) -> None:
    monkeypatch.setattr(worker, "DECODE_THREADS", 1)
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


class FourthRequest(RuleEngine):
    """Answers three requests of the first image, one by one, and does something else about the fourth."""

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        async for request, response in super().ask(picture, requests):
            if len(self.asked) == EACH:
                self.asked.pop()
                await self.instead()
            yield request, response

    @abstractmethod
    async def instead(self) -> None:
        """Do what comes in place of the fourth answer."""


def recorded(workspace: Workspace) -> int:
    ((count,),) = evidence_rows(workspace.out.with_suffix(".evidence"), "SELECT count(*) FROM response")
    return int(count)


def test_a_signal_while_the_last_of_four_requests_hangs_keeps_the_three(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "DRAIN_SECONDS", 0.01)

    class Hanging(FourthRequest):
        async def instead(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()

    workspace.engine = Hanging(capacity=EACH, pause=0.001)
    summary = workspace.candidates(limit=1)
    assert isinstance(summary.error, InterruptedRunError)
    assert (summary.stats.asked, recorded(workspace), summary.rows.pending) == (3, 3, 1)
    workspace.engine = RuleEngine()
    assert workspace.candidates(limit=1).stats.asked == 1


def test_a_server_that_refuses_the_key_at_the_last_of_four_requests_keeps_the_three(workspace: Workspace) -> None:
    class Refusing(FourthRequest):
        async def instead(self) -> None:
            raise EndpointError("the server refuses the API key", "Set TAGLLM_API_KEY.")

    workspace.engine = Refusing(capacity=EACH, pause=0.001)
    summary = workspace.candidates(limit=1)
    assert isinstance(summary.error, StoppedRunError)
    assert summary.error.message == "the run ended early: the server refuses the API key"
    assert summary.error.hint.startswith("Set TAGLLM_API_KEY. What was answered is kept")
    assert (summary.stats.asked, recorded(workspace), summary.rows.pending) == (3, 3, 1)


def test_a_request_in_backoff_does_not_hold_back_the_commit_of_its_siblings(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "COMMIT_SECONDS", 0.01)

    class InBackoff(FourthRequest):
        async def instead(self) -> None:
            for _ in range(2000):
                if committed and committed[-1] == 3:
                    return
                await asyncio.sleep(0.01)

    committed: list[int] = []
    commit = Evidence.commit

    def watched(evidence: Evidence) -> None:
        commit(evidence)
        committed.append(evidence._file.query("SELECT count(*) FROM response")[0][0])

    monkeypatch.setattr(Evidence, "commit", watched)
    workspace.engine = InBackoff(capacity=EACH)
    assert workspace.candidates(limit=1).rows.ok == 1
    assert 3 in committed


def test_a_commit_comes_after_so_many_responses_without_waiting_for_the_timer(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "COMMIT_SECONDS", 1000.0)
    committed: list[int] = []
    commit = Evidence.commit

    def watched(evidence: Evidence) -> None:
        commit(evidence)
        committed.append(evidence._file.query("SELECT count(*) FROM response")[0][0])

    monkeypatch.setattr(Evidence, "commit", watched)
    workspace.candidates()
    assert [count for count in dict.fromkeys(committed) if count] == [32, 64, 96, 128, 160]


class InFlight(RuleEngine):
    """Remembers how many images were asked about at a time."""

    now = 0
    most = 0

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        self.now += 1
        self.most = max(self.most, self.now)
        async for pair in super().ask(picture, requests):
            yield pair
        self.now -= 1


def test_images_in_flight_are_bounded_in_bytes(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images here are 8 x 8 pixels, 192 bytes, and their files a little more: there is room for three of them."""
    each = 8 * 8 * 3 + (workspace.images / "000.png").stat().st_size
    monkeypatch.setattr(worker, "_default_max_bytes", lambda: 3 * each)
    workspace.engine = engine = InFlight(capacity=1000, pause=0.001)
    job = workspace.candidates_job()
    job = replace(job, plan_options=replace(job.plan_options, max_pixels=64))
    summary = run_job(job, RunOptions(), Silent())
    assert isinstance(summary, Summary)
    assert summary.rows.ok == IMAGES
    assert engine.most == 3  # of 250 that the requests alone would allow


def test_a_run_in_a_thread_needs_no_signals(workspace: Workspace) -> None:
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(workspace.candidates).result().rows.ok == IMAGES


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
    assert isinstance(workspace.candidates().error, StoppedRunError)
    gc.collect()  # what asyncio says about a future that nobody asked, it says when the future goes
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_an_engine_that_dies_loses_nothing_that_was_answered(workspace: Workspace) -> None:
    undisturbed = undisturbed_table(workspace)
    workspace.engine = engine = Watched()

    def die(number: int) -> None:
        if number == 20:
            raise EngineDiedError("the engine died", "Run it again.")

    engine.at = die
    summary = workspace.candidates()
    assert isinstance(summary.error, StoppedRunError)
    assert engine.closed == 1
    answered = len(engine.asked)
    assert summary.stats.asked == answered > 0
    assert summary.rows.pending > 0
    workspace.engine = RuleEngine()
    assert workspace.candidates().stats.asked == IMAGES * EACH - answered
    assert workspace.out.read_bytes() == undisturbed


def undisturbed_table(workspace: Workspace) -> bytes:
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
    monkeypatch.setattr(recorder, "COMMIT_SECONDS", 0.01)
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
    monkeypatch.setattr(recorder, "COMMIT_SECONDS", 0)
    monkeypatch.setattr(Evidence, "commit", fail)
    with pytest.raises(TableError, match="disk I/O error"):
        workspace.candidates()
    assert workspace.engine.closed == 1


def nonsense(picture: DecodedImage | None, request: Request) -> Response:
    return Response("eine Katze auf dem Tisch")


def test_sanity_check_stops_a_run_whose_answers_make_no_sense(workspace: Workspace) -> None:
    workspace.engine = RuleEngine(answer=nonsense, capacity=1)
    error = workspace.candidates().error
    assert isinstance(error, StoppedRunError)
    assert error.message.startswith("the first answers look wrong: only 0 of the")
    assert "--no-preflight" in error.hint
    paid = len(workspace.engine.asked)
    assert 32 * EACH <= paid <= (32 + worker.DECODE_THREADS) * EACH
    summary = workspace.candidates(preflight=False)
    assert summary.stats.asked <= (IMAGES - 32) * EACH
    assert summary.rows.ok == IMAGES


def test_a_short_run_whose_answers_make_no_sense_is_warned_about(workspace: Workspace) -> None:
    workspace.engine.answer = nonsense
    (warning,) = workspace.candidates(limit=10).warnings
    assert warning.startswith("the first answers look wrong: only 0 of the")


def test_the_sanity_check_keeps_a_bounded_sample_of_every_image(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `binary`, thousands of labels are asked about one by one: their answers do not pile up in memory."""
    monkeypatch.setattr(sanity_check, "SAMPLE_REQUESTS", 3)
    samples: list[list[str]] = []

    def judge(self: Binary, answers: Sequence[tuple[Request, Response]]) -> None:
        samples.append([request.text for request, _ in answers])

    monkeypatch.setattr(Binary, "complaint", judge)
    workspace.candidates({"strategy": "binary", "group_size": None}, limit=2)
    (texts,) = samples
    shown = [[name for name in LABELS if name in text] for text in texts]
    assert shown == [["cat"], ["sheep"], ["spoon"]] * 2  # of two images, evenly over the eight labels


class Beating(RuleEngine):
    """Counts turns of the event loop from `start` to `close`."""

    beats = 0

    async def start(self) -> None:
        await super().start()
        self._beating = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(0.001)
            self.beats += 1

    async def close(self) -> None:
        self._beating.cancel()
        await super().close()


def test_the_event_loop_goes_on_while_the_first_answers_are_judged(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of answers are read then: in the loop, nothing would be recorded and no signal heeded for as long."""
    engine = workspace.engine = Beating(capacity=8 * EACH)
    judged = Candidates.complaint

    def judge(stage: Candidates, answers: Sequence[tuple[Request, Response]]) -> str | None:
        before, end = engine.beats, time.monotonic() + 10
        while engine.beats < before + 3:
            assert time.monotonic() < end, "the event loop stands still"
            time.sleep(0.001)
        return judged(stage, answers)

    monkeypatch.setattr(Candidates, "complaint", judge)
    summary = workspace.candidates()
    assert (summary.error, summary.rows.ok) == (None, IMAGES)


def test_failed_images_do_not_hide_the_sanity_check(workspace: Workspace) -> None:
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
    with pytest.raises(StoppedRunError, match=r"cannot write .*No space left on device"):
        workspace.candidates()
    monkeypatch.undo()
    assert [path.name for path in workspace.out.parent.iterdir()] == ["c.evidence"]
    assert workspace.candidates().stats.asked == 0
    assert workspace.statuses() == {f"{number:03d}.png": "ok" for number in range(IMAGES)}


@pytest.mark.parametrize("together", [4, 64])
def test_a_disk_that_gets_full_while_answers_come_stops_the_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """Where so many answers are committed together that not even the first commit fits, nothing has changed."""
    monkeypatch.setattr(recorder, "COMMIT_RESPONSES", together)
    workspace.candidates(limit=1)
    before = workspace.out.read_bytes()

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
    if together == 64:
        with pytest.raises(TableError, match="disk is full"):
            workspace.candidates()
        assert workspace.out.read_bytes() == before
    else:
        summary = workspace.candidates()
        assert isinstance(summary.error, StoppedRunError)
        assert "disk is full" in summary.error.message
        assert "free space" in summary.error.hint
        assert (summary.rows.total, summary.rows.pending > 0) == (IMAGES, True)
    monkeypatch.undo()
    assert workspace.engine.closed == 1
    workspace.engine = RuleEngine()
    assert workspace.candidates().rows.ok == IMAGES


def test_a_run_leaves_its_course_in_the_log(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "tagllm_cli")
    failure = Failure("timeout", "no answer")
    workspace.engine.fault = lambda picture, request: failure if "cow" in request.text else None
    workspace.candidates(limit=2)
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("tagllm_cli")]
    assert any(message.startswith("candidates: ") for message in messages)
    assert "engine ready: rules, up to 64 requests" in messages
    assert sum(message.startswith("request failed: image ") and "no answer" in message for message in messages) == 4
    assert any(message.startswith("candidates ended: ") for message in messages)
