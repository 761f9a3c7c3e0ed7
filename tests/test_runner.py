"""The streaming loop under faults: engines that die or refuse, signals, full disks, second processes, odd outputs."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagllm_cli import runner
from tagllm_cli.engines import EngineDiedError
from tagllm_cli.errors import ModelError, SourceError, TableError
from tagllm_cli.evidence import Evidence
from tagllm_cli.schema import Picture, Reply, Request
from tests.jobs_kit import LABELS, Desk, snapshot
from tests.rules import RuleEngine

EACH = 4
IMAGES = 40


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, IMAGES)


class Watched(RuleEngine):
    """Remembers how many requests were under way together; `at` is called with the number of each `ask`."""

    at: Callable[[int], object] = staticmethod(lambda number: None)
    asks = 0
    inside = 0
    most = 0

    async def ask(self, picture: Picture | None, requests: Sequence[Request]) -> list[Reply]:
        self.asks += 1
        self.at(self.asks)
        self.inside += len(requests)
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0.001)
        self.inside -= len(requests)
        return await super().ask(picture, requests)


@pytest.mark.parametrize(("capacity", "most"), [(1, EACH), (10, 2 * EACH), (64, 16 * EACH)])
def test_the_engine_is_kept_full_and_never_more_than_it_wants(desk: Desk, capacity: int, most: int) -> None:
    desk.engine = engine = Watched(capacity=capacity)
    desk.candidates(limit=1)
    for number in range(IMAGES, 2 * IMAGES):
        desk.paint(number)
    desk.candidates()
    # The images that were looked at before the engine was there come on top.
    assert most <= engine.most <= max(most, runner.DECODE_THREADS * EACH)
    assert (engine.inside, engine.closed) == (0, 2)


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


class Refusing(RuleEngine):
    async def start(self) -> None:
        raise ModelError("the model cannot be loaded", "Choose another.")


def test_an_engine_that_cannot_start_leaves_nothing_touched(desk: Desk) -> None:
    desk.engine = Refusing()
    with pytest.raises(ModelError, match="cannot be loaded"):
        desk.candidates()
    assert desk.engine.closed == 1
    assert not desk.out.parent.exists()
    desk.engine = RuleEngine()
    desk.candidates()
    before = snapshot(desk.out.parent)
    desk.write_vocabulary([*LABELS, "bowl"])
    desk.paint(100, "new.png")
    desk.engine = Refusing()
    with pytest.raises(ModelError):
        desk.candidates()
    assert snapshot(desk.out.parent) == before


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


def test_failed_images_do_not_hide_the_preflight(desk: Desk) -> None:
    for number in range(IMAGES - 5):
        (desk.images / f"{number:03d}.png").write_bytes(b"no picture")
    desk.engine.answer = nonsense
    assert desk.candidates().warnings


def test_a_second_run_at_the_same_time_says_so(desk: Desk) -> None:
    desk.candidates(limit=1)
    before = desk.out.read_bytes()
    with Evidence(desk.out.with_suffix(".evidence")), pytest.raises(TableError, match="another tagllm is writing"):
        desk.candidates()
    assert desk.out.read_bytes() == before
    assert desk.candidates().rows.ok == IMAGES


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

    class Filling(RuleEngine):
        async def ask(self, picture: Picture | None, requests: Sequence[Request]) -> list[Reply]:
            found = await super().ask(picture, requests)
            return [Reply(reply.text + " " * 100_000) for reply in found]

    desk.engine = Filling()
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


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (lambda out: out.mkdir(), "is a folder"),
        (lambda out: out.write_text("image,label\n"), "is not a Parquet file"),
        (lambda out: pq.write_table(pa.table({"a": [1]}), out), "is a Parquet file, but no label table"),
        (lambda out: os.mkfifo(out), "is not a file"),
        (lambda out: out.with_suffix(".evidence").write_text("notes " * 100), "is not an evidence file"),
        (lambda out: out.with_suffix(".evidence").mkdir(), "cannot read"),
    ],
    ids=["folder", "text", "parquet", "fifo", "foreign evidence", "evidence folder"],
)
def test_an_output_that_holds_something_else_is_not_touched(
    desk: Desk, put: Callable[[Path], object], said: str
) -> None:
    desk.out.parent.mkdir()
    put(desk.out)
    before = snapshot(desk.out.parent)
    with pytest.raises(TableError, match=said) as raised:
        desk.candidates()
    assert raised.value.exit_code == 2
    assert snapshot(desk.out.parent) == before


def test_evidence_of_another_kind_is_not_touched(desk: Desk) -> None:
    desk.candidates()
    desk.disambiguate()
    desk.out.unlink()
    desk.labels_out.with_suffix(".evidence").replace(desk.out.with_suffix(".evidence"))
    desk.labels_out.unlink()
    before = snapshot(desk.out.parent)
    with pytest.raises(TableError, match=r"c.evidence belongs to a table of another kind \(labels\)"):
        desk.candidates()
    assert snapshot(desk.out.parent) == before


def test_a_table_without_its_evidence_is_not_overwritten(desk: Desk) -> None:
    desk.candidates()
    desk.out.with_suffix(".evidence").unlink()
    before = snapshot(desk.out.parent)
    with pytest.raises(TableError, match=r"its evidence c.evidence is not"):
        desk.candidates()
    assert snapshot(desk.out.parent) == before


def test_a_place_that_takes_no_files_is_one_clear_error(desk: Desk) -> None:
    desk.out = Path("/proc/c.parquet")
    with pytest.raises(TableError, match=r"cannot use /proc/c.evidence: unable to open database file"):
        desk.candidates()
    desk.out = desk.vocabulary / "c.parquet"
    with pytest.raises(TableError, match="cannot make the folder"):
        desk.candidates()


def test_an_empty_folder_leaves_no_trace(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(SourceError, match="there are no images"):
        desk.candidates()
    assert snapshot(tmp_path) == before
