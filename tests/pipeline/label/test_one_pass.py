"""Both stages in one pass: what the two commands make, with each image opened once and the engine started once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.engines.base import Usage
from tagllm_cli.errors import EngineDiedError, InterruptedRunError, StoppedRunError
from tagllm_cli.pipeline.label import budget, scheduler, worker
from tagllm_cli.pipeline.label.budget import Limits
from tagllm_cli.records import DecodedImage, Failure, ImageInfo, Request, Response
from tagllm_cli.sources.decode import decode
from tests.support import workspace as workspaces
from tests.support.packing import packed
from tests.support.rule_engine import RuleEngine, answer
from tests.support.workspace import Workspace, evidence_rows, recorded

IMAGES = 24


def assert_same(workspace: Workspace, other: Workspace) -> None:
    """Compare both tables byte by byte, and all that is on record."""
    for mine, theirs in ((workspace.out, other.out), (workspace.labels_out, other.labels_out)):
        assert recorded(mine.with_suffix(".evidence")) == recorded(theirs.with_suffix(".evidence"))
        assert mine.read_bytes() == theirs.read_bytes()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "one", IMAGES)


@pytest.fixture
def expected(tmp_path: Path, workspace: Workspace) -> Workspace:
    other = Workspace(tmp_path / "two")
    other.images = workspace.images
    other.vocabulary = workspace.vocabulary
    other.candidates()
    other.disambiguate()
    return other


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often an image is decoded."""
    decoded: list[int] = []

    def counted(data: bytes, max_pixels: int) -> tuple[ImageInfo, DecodedImage | None]:
        decoded.append(len(data))
        return decode(data, max_pixels)

    monkeypatch.setattr(worker, "decode", counted)
    return decoded


def test_tables_and_evidence_are_those_of_the_two_commands(
    workspace: Workspace, expected: Workspace, opened: list[int]
) -> None:
    opened.clear()
    first, second = workspace.both()
    assert second is not None
    assert (len(opened), workspace.engine.started, workspace.engine.closed) == (IMAGES, 1, 1)
    assert (first.stats.images, first.rows.ok, second.rows.ok) == (IMAGES, IMAGES, IMAGES)
    assert first.stats.asked + second.stats.asked == len(workspace.engine.asked)
    assert second.stats.asked == first.rows.labels > 0
    assert_same(workspace, expected)


def test_a_second_run_asks_nothing_and_either_command_goes_on_from_there(workspace: Workspace) -> None:
    workspace.both()
    tables = workspace.out.read_bytes(), workspace.labels_out.read_bytes()
    engine = workspace.engine = RuleEngine()
    workspace.both()
    workspace.candidates()
    workspace.disambiguate()
    assert (engine.started, engine.asked) == (0, [])
    assert (workspace.out.read_bytes(), workspace.labels_out.read_bytes()) == tables


def test_it_goes_on_from_either_command(workspace: Workspace, expected: Workspace, opened: list[int]) -> None:
    workspace.candidates(limit=10)
    workspace.disambiguate()
    opened.clear()
    asked = len(expected.engine.asked)
    first, second = workspace.both()
    assert second is not None
    assert len(opened) == IMAGES - 10
    assert first.stats.asked + second.stats.asked < asked + first.stats.asked
    assert_same(workspace, expected)


def test_candidates_of_images_that_were_complete_before_are_asked_about(
    workspace: Workspace, expected: Workspace
) -> None:
    workspace.candidates()
    first, second = workspace.both()
    assert second is not None
    assert (first.stats.asked, second.stats.images) == (0, second.stats.opened)
    assert_same(workspace, expected)


@pytest.mark.parametrize("place", ["tar", "parquet", "tar on S3"])
def test_shards_are_read_once(tmp_path: Path, place: str, opened: list[int]) -> None:
    one, two = Workspace(tmp_path / "one", IMAGES), Workspace(tmp_path / "two")
    one.source = two.source = packed(one.images, place, tmp_path / "packed")
    two.vocabulary = one.vocabulary
    two.candidates()
    two.disambiguate()
    opened.clear()
    one.both()
    assert len(opened) == IMAGES
    assert_same(one, two)


def test_failed_images_and_requests_are_those_of_the_two_commands(workspace: Workspace, tmp_path: Path) -> None:
    (workspace.images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    other = Workspace(tmp_path / "two")
    other.images, other.vocabulary = workspace.images, workspace.vocabulary

    def fault(image: DecodedImage | None, request: Request) -> Failure | None:
        number = request.digest((image.uuid if image else "").encode())[0]
        return Failure("engine_error", "no") if number % 5 == 0 else None

    for each in (workspace, other):
        each.engine = RuleEngine(fault=fault)
    workspace.both(max_failed_rate=1)
    assert len(workspace.engine.asked) == len(set(workspace.engine.asked))  # what failed is left to the next run
    other.candidates(max_failed_rate=1)
    other.disambiguate(max_failed_rate=1)
    assert "partial" in workspace.statuses(workspace.labels_out).values()
    assert_same(workspace, other)


class Signalling(RuleEngine):
    """Sends SIGINT when the second stage has been asked so many requests."""

    left = 5

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        async for request, response in super().ask(picture, requests):
            yield request, response
            if request.top_logprobs:
                self.left -= 1
                if self.left == 0:
                    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_pass_keeps_what_both_stages_have_answered(workspace: Workspace, expected: Workspace) -> None:
    workspace.engine = Signalling(capacity=8, pause=0.001)
    first, second = workspace.both()
    assert isinstance(first.error, InterruptedRunError)
    assert second is None
    labels = recorded(workspace.labels_out.with_suffix(".evidence"))
    assert labels["answers"]
    before = len(labels["answers"]) + len(recorded(workspace.out.with_suffix(".evidence"))["answers"])
    workspace.engine = RuleEngine()
    workspace.both()
    assert len(workspace.engine.asked) == len(expected_requests(expected)) - before
    assert_same(workspace, expected)


def expected_requests(expected: Workspace) -> list[object]:
    return [
        row
        for table in (expected.out, expected.labels_out)
        for row in recorded(table.with_suffix(".evidence"))["answers"]
    ]


@pytest.mark.parametrize("most", [3, 30, 100])
def test_a_budget_of_requests_ends_the_run_and_the_next_goes_on(
    workspace: Workspace, expected: Workspace, most: int
) -> None:
    asked = 0
    for _ in range(1000):
        workspace.engine = RuleEngine(capacity=8)
        first, second = workspace.both(limits=Limits(requests=most))
        assert len(workspace.engine.asked) <= most
        asked += len(workspace.engine.asked)
        if first.error is None and (second is None or second.error is None):
            break
        error = first.error or (second and second.error)
        assert isinstance(error, StoppedRunError)
        assert "--max-requests" in error.message
    assert asked == len(expected_requests(expected))
    assert_same(workspace, expected)


def test_a_budget_of_money_counts_all_passes() -> None:
    spending = budget.Budget(Limits(cost=0.5, cost_of=lambda seconds, usage: usage.requests / 10))
    assert spending.look(Usage(requests=4), None)
    spending.end_pass(Usage(requests=4))
    assert not spending.look(Usage(requests=1), 8)
    assert "--max-cost 0.5" in spending.error(was_ready=True).message


def test_a_budget_of_seconds_ends_a_slow_run(workspace: Workspace) -> None:
    workspace.engine = RuleEngine(capacity=4, pause=0.5)
    first, second = workspace.both(limits=Limits(seconds=1.5))
    assert isinstance(first.error, StoppedRunError)
    assert "--max-seconds 1.5" in first.error.message
    assert first.rows.pending
    assert second is not None
    assert second.rows.total == IMAGES


def runs_of(table: Path) -> list[tuple[bool, dict[str, Any]]]:
    """Return of each run on record whether it ended, and its report."""
    rows = evidence_rows(table.with_suffix(".evidence"), "SELECT ended IS NOT NULL, report FROM run ORDER BY id")
    return [(bool(ended), json.loads(report or "{}")) for ended, report in rows]


def test_both_runs_on_record_end_also_where_nothing_is_proposed(workspace: Workspace) -> None:
    workspace.engine = RuleEngine(answer=lambda picture, request: Response("none", output_tokens=1))
    workspace.both()
    for table in (workspace.out, workspace.labels_out):
        ((ended, report),) = runs_of(table)
        assert ended
        assert report["error"] is None


def test_the_seconds_of_an_interrupted_pass_are_on_record_for_both_stages(workspace: Workspace) -> None:
    workspace.engine = Signalling(capacity=8, pause=0.005)
    first, _ = workspace.both()
    (first_ended, first_report), (ended, report) = *runs_of(workspace.out), *runs_of(workspace.labels_out)
    assert (first_ended, ended) == (True, True)
    assert first_report["seconds"] == round(first.seconds, 3)
    assert report["error"]["kind"] == "InterruptedRunError"
    assert report["asked"]["requests"] >= Signalling.left
    assert report["seconds"] == report["seconds_asking"] > 0


def test_what_looks_wrong_about_the_second_stage_is_told(workspace: Workspace) -> None:
    for number in range(4, IMAGES):  # fewer images than the check waits for
        (workspace.images / f"{number:03d}.png").unlink()

    def unsure(picture: DecodedImage | None, request: Request) -> Response:
        given = answer(picture, request)
        return replace(given, text="maybe", first_logprobs={"maybe": -0.01}) if request.top_logprobs else given

    workspace.engine = RuleEngine(answer=unsure)
    _, second = workspace.both(max_failed_rate=1)
    assert second is not None
    assert "the first answers look wrong" in "".join(second.warnings)


@pytest.fixture
def other_pixels(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Return a workspace whose label table is pinned to other pixels than its candidates: there is no common pass."""
    with monkeypatch.context() as patched:
        patched.setattr(workspaces, "MODEL", replace(workspaces.MODEL, max_pixels=65536))
        workspace.candidates(limit=1)
        workspace.disambiguate()
    for file in (workspace.out, workspace.out.with_suffix(".evidence")):
        file.unlink()
    return workspace


def test_a_budget_that_the_first_pass_has_used_up_starts_no_second_pass(other_pixels: Workspace) -> None:
    other_pixels.engine = RuleEngine(capacity=4)
    first, second = other_pixels.both(limits=Limits(requests=13))
    assert isinstance(first.error, StoppedRunError)
    assert second is not None
    assert second.rows.pending
    assert other_pixels.engine.started == 1


class Failing(RuleEngine):
    """Dies at its second start."""

    async def start(self) -> None:
        await super().start()
        if self.started == 2:
            raise EngineDiedError("the engine died", "Look into its log.")


def test_a_second_pass_that_cannot_begin_is_an_early_end_of_the_run(other_pixels: Workspace) -> None:
    other_pixels.engine = Failing()
    with pytest.raises(StoppedRunError, match="the engine died"):
        other_pixels.both()
    assert set(other_pixels.statuses().values()) == {"ok"}


class Replacing(RuleEngine):
    """Copies one file onto another as soon as it is asked."""

    def __init__(self, new: Path, old: Path) -> None:
        super().__init__()
        self._new, self._old = new, old

    async def ask(
        self, picture: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        shutil.copy2(self._new, self._old)
        async for each in super().ask(picture, requests):
            yield each


def test_candidates_that_change_while_labels_are_asked_are_labeled_by_the_next_run(
    workspace: Workspace, tmp_path: Path
) -> None:
    workspace.candidates(limit=IMAGES - 1)
    before, after = tmp_path / "before.parquet", tmp_path / "after.parquet"
    shutil.copy2(workspace.out, before)
    workspace.candidates()
    shutil.copy2(workspace.out, after)
    shutil.copy2(before, workspace.out)
    workspace.engine = Replacing(after, workspace.out)
    assert workspace.disambiguate().rows.total == IMAGES - 1
    workspace.engine = RuleEngine()
    assert workspace.disambiguate().rows.total == IMAGES


def test_a_few_images_of_another_candidate_table_do_not_stay(workspace: Workspace, tmp_path: Path) -> None:
    workspace.candidates()
    workspace.disambiguate()
    mine, labels = workspace.out, workspace.labels_out.read_bytes()
    workspace.out = tmp_path / "other" / "c.parquet"
    workspace.engine = RuleEngine(answer=lambda picture, request: answer(None, request))
    workspace.candidates()
    workspace.disambiguate(limit=2)
    assert workspace.labels_out.read_bytes() != labels
    workspace.out, workspace.engine = mine, RuleEngine()
    workspace.disambiguate()
    assert workspace.labels_out.read_bytes() == labels


def test_what_failed_beside_a_second_pass_is_asked_by_the_next_run(workspace: Workspace) -> None:
    def fault(image: DecodedImage | None, request: Request) -> Failure | None:
        return Failure("engine_error", "no") if request.top_logprobs else None

    workspace.candidates(limit=4)  # what is asked about these four needs a second pass
    workspace.engine = RuleEngine(fault=fault)
    first, second = workspace.both(max_failed_rate=1, preflight=False)
    assert second is not None
    assert second.stats.asked == second.stats.failed_requests == first.rows.labels
    assert len(workspace.engine.asked) == len(set(workspace.engine.asked))
    workspace.engine = RuleEngine()
    workspace.both()
    assert len(workspace.engine.asked) == first.rows.labels
    assert set(workspace.statuses(workspace.labels_out).values()) == {"ok"}


class Loading(RuleEngine):
    """Never becomes ready."""

    async def start(self) -> None:
        await super().start()
        await asyncio.Event().wait()


def test_a_budget_that_ends_while_the_model_loads_says_that_it_is_too_small(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "LEAVE_SECONDS", 0.5)
    workspace.engine = Loading()
    with pytest.raises(StoppedRunError, match="--max-seconds 1") as stopped:
        workspace.both(limits=Limits(seconds=1.0))
    assert "The model was not ready" in stopped.value.hint
    assert workspace.engine.closed == 1


def test_a_second_pass_alone_asks_once_what_fails(workspace: Workspace) -> None:
    def fault(image: DecodedImage | None, request: Request) -> Failure | None:
        number = request.digest((image.uuid if image else "").encode())[0]
        return Failure("engine_error", "no") if number % 3 == 0 else None

    workspace.candidates()  # nothing is left of the first stage
    workspace.engine = RuleEngine(fault=fault)
    _, second = workspace.both(max_failed_rate=1)
    assert second is not None
    assert second.stats.failed_requests
    assert second.stats.asked == len(workspace.engine.asked) == len(set(workspace.engine.asked))


@pytest.mark.parametrize("place", ["tar", "parquet", "tar on S3"])
def test_shards_that_changed_before_an_early_end_are_read_to_their_end_by_the_next_run(
    tmp_path: Path, place: str
) -> None:
    one, two = Workspace(tmp_path / "one", 8), Workspace(tmp_path / "two")
    one.source = packed(one.images, place, tmp_path / "packed")
    one.both()
    for number in range(8):
        one.paint(number + 50, f"{number:03d}.png")
    shutil.rmtree(tmp_path / "packed", ignore_errors=True)
    one.source = two.source = packed(one.images, place, tmp_path / "packed")
    one.engine = RuleEngine(capacity=4)
    first, _ = one.both(limits=Limits(requests=8))
    assert isinstance(first.error, StoppedRunError)
    one.engine = RuleEngine()
    one.both()
    two.vocabulary = one.vocabulary
    two.candidates()
    assert {name: row.fingerprint for name, row in one.rows().items()} == {
        name: row.fingerprint for name, row in two.rows().items()
    }
    assert one.statuses(one.labels_out) == two.statuses()
    first, _ = one.both()
    assert first.listing.is_nothing  # all shards are known again
    assert first.listing.total == 8
