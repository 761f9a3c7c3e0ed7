"""Labeling one table again and again: only what is new, changed or missing is asked; nothing is lost or doubled."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest

import tagllm_cli
from tagllm_cli.cli.console import Console
from tagllm_cli.errors import InterruptedRunError, SourceError, TableError, TooManyFailedError
from tagllm_cli.pipeline.label import run, worker
from tagllm_cli.pipeline.label.job import RunOptions
from tagllm_cli.pipeline.label.run import run_job
from tagllm_cli.records import DecodedImage, Failure, Image, Request
from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.folder import Folder
from tagllm_cli.store.evidence import Evidence
from tests.support.workspace import LABELS, Workspace, evidence_rows, snapshot

EACH = 4  # questions about an image: two arms of two groups
IMAGES = 12


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A dozen images, nothing asked yet."""
    return Workspace(tmp_path, IMAGES)


@pytest.fixture
def done(workspace: Workspace) -> Workspace:
    """The same, with its candidate table and a new engine."""
    assert workspace.candidates().stats.asked == IMAGES * EACH
    workspace.engine = type(workspace.engine)()
    return workspace


def asked_about(workspace: Workspace) -> int:
    return len({uuid for uuid, _ in workspace.engine.asked})


def test_a_second_run_asks_nothing_and_starts_no_engine(done: Workspace) -> None:
    files, written = sorted(snapshot(done.out.parent)), done.out.stat().st_mtime_ns
    summary = done.candidates()
    assert (done.engine.started, done.engine.asked, summary.stats.opened) == (0, [], 0)
    assert summary.rows.ok == IMAGES
    assert sorted(snapshot(done.out.parent)) == files == ["c.evidence", "c.parquet"]
    assert done.out.stat().st_mtime_ns == written


def test_copies_of_an_image_are_asked_about_once(workspace: Workspace) -> None:
    workspace.engine.delay = 0.001  # the copies are under way together
    for number in range(5):
        shutil.copyfile(workspace.images / "003.png", workspace.images / f"003-{number}.png")
    assert workspace.candidates().stats.asked == IMAGES * EACH
    shutil.copyfile(workspace.images / "004.png", workspace.images / "later.png")
    assert workspace.candidates().stats.asked == 0
    rows = workspace.rows()
    assert len(rows) == IMAGES + 6
    assert len({rows[name].labels for name in rows if name.startswith("003")}) == 1


def test_new_changed_and_vanished_images_are_noticed(done: Workspace) -> None:
    old = done.rows()
    done.paint(100, "new.png")
    done.paint(101, "005.png")
    (done.images / "007.png").unlink()
    summary = done.candidates()
    assert (summary.listing.new, summary.listing.changed, summary.listing.gone) == (1, 1, 1)
    assert (asked_about(done), summary.stats.asked) == (2, 2 * EACH)
    rows = done.rows()
    assert list(rows) == sorted({*old, "new.png"} - {"007.png"})
    assert rows["005.png"].fingerprint != old["005.png"].fingerprint
    assert {name: row for name, row in rows.items() if name not in ("new.png", "005.png")} == {
        name: row for name, row in old.items() if name not in ("005.png", "007.png")
    }


def test_an_image_that_comes_back_is_not_asked_about_again(done: Workspace) -> None:
    before = done.out.read_bytes()
    (done.images / "007.png").rename(done.images / ".hidden")
    assert len((done.candidates(), done.rows())[1]) == IMAGES - 1
    (done.images / ".hidden").rename(done.images / "007.png")
    assert (done.candidates().stats.asked, done.engine.started) == (0, 0)
    assert done.out.read_bytes() == before


def test_a_touched_image_is_opened_and_not_asked_about(done: Workspace) -> None:
    before = done.out.read_bytes()
    os.utime(done.images / "002.png", (1, 1))
    summary = done.candidates()
    assert (summary.listing.changed, summary.stats.opened, summary.stats.asked, done.engine.started) == (1, 1, 0, 0)
    assert done.out.read_bytes() == before


def test_only_by_hash_notices_other_bytes_of_the_same_size_and_time(done: Workspace) -> None:
    path = done.images / "002.png"
    before = path.stat()
    size = len(done.paint(200, "002.png").read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert size == before.st_size
    assert done.candidates().stats.opened == 0
    summary = done.candidates(by_hash=True)
    assert (summary.stats.opened, asked_about(done), summary.stats.asked) == (IMAGES, 1, EACH)
    assert done.candidates(by_hash=True).stats.asked == 0


class Stopping(Folder):
    """Reads some images, then the run is interrupted."""

    left = 2
    readers = 1

    def read(self, image: Image) -> bytes:
        if Stopping.left == 0:
            time.sleep(0.3)  # images are read ahead: those before this one are done by then
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.05)  # the loop hears of it before this image is done
        Stopping.left -= 1
        return Folder.read(self, image)


def interrupt(workspace: Workspace, *, after: int, **options: Any) -> None:
    """Run `candidates` until it has read some images."""
    Stopping.left = after
    chosen = RunOptions(**options)
    job = replace(workspace.candidates_job(chosen), source=Stopping(workspace.images))
    summary = run_job(job, chosen, Console(quiet=True))
    assert isinstance(summary.error, InterruptedRunError)


def test_verifying_by_hash_interrupted_leaves_every_row_as_it_was(
    done: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "DECODE_THREADS", 1)
    before = done.out.read_bytes()
    interrupt(done, after=2, by_hash=True)
    assert done.out.read_bytes() == before
    summary = done.candidates(by_hash=True)
    assert (summary.stats.opened, summary.stats.asked, summary.rows.ok) == (IMAGES, 0, IMAGES)
    assert done.out.read_bytes() == before


def test_after_a_signal_a_table_that_takes_too_long_stays_as_it_was(
    done: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "DECODE_THREADS", 1)
    before = done.out.read_bytes()
    for number in range(3):
        done.paint(300 + number, f"{number:03}.png")
    monkeypatch.setattr(run, "TABLE_SECONDS", -1.0)
    with pytest.raises(InterruptedRunError, match="and not in the table yet"):
        interrupt(done, after=2)
    assert done.out.read_bytes() == before
    monkeypatch.undo()
    summary = done.candidates()
    assert summary.stats.asked < 3 * EACH  # what was answered is on record
    assert summary.rows.ok == IMAGES
    assert done.out.read_bytes() != before


def test_touched_images_keep_their_rows_until_they_were_read(done: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "DECODE_THREADS", 1)
    before = done.rows()
    for path in done.images.iterdir():
        os.utime(path, (1, 1))
    done.paint(300, "000.png")
    done.paint(301, "011.png")
    interrupt(done, after=2)
    now = done.rows()
    assert now["000.png"].fingerprint != before["000.png"].fingerprint
    touched = now.keys() - {"000.png", "011.png"}  # 011.png may have been read when the signal came
    assert {name: now[name] for name in touched} == {name: before[name] for name in touched}
    summary = done.candidates()
    assert summary.stats.opened < IMAGES
    assert done.rows()["011.png"].fingerprint != before["011.png"].fingerprint
    assert done.candidates().stats.opened == 0


def test_a_limited_run_never_marks_anything_as_gone(done: Workspace) -> None:
    for number in range(3, IMAGES):
        (done.images / f"{number:03d}.png").unlink()
    for options in ({"limit": 2}, {"sample": 2}, {"sample": 3, "limit": 1}):
        summary = done.candidates(**options)  # type: ignore[arg-type]
        assert (summary.listing.gone, summary.rows.total) == (0, IMAGES)


def test_limit_takes_the_first_images_and_the_whole_run_the_rest(workspace: Workspace) -> None:
    assert workspace.candidates(limit=3).rows.total == 3
    assert list(workspace.rows()) == ["000.png", "001.png", "002.png"]
    assert workspace.candidates(limit=5).stats.asked == 2 * EACH
    assert workspace.candidates().stats.asked == (IMAGES - 5) * EACH
    assert list(workspace.rows()) == [f"{number:03d}.png" for number in range(IMAGES)]


def test_a_sample_is_the_same_whatever_else_there_is(workspace: Workspace) -> None:
    workspace.candidates(sample=4, seed=7)
    first = set(workspace.rows())
    assert first != {f"{number:03d}.png" for number in range(4)}
    assert workspace.candidates(sample=4, seed=7).stats.asked == 0
    for name in sorted({path.name for path in workspace.images.iterdir()} - first)[::2]:
        (workspace.images / name).unlink()
    assert workspace.candidates(sample=4, seed=7).stats.asked == 0
    workspace.candidates(sample=4, seed=8)
    assert set(workspace.rows()) > first
    assert list(workspace.rows()) == sorted(workspace.rows())


def test_more_than_a_tenth_gone_stops_the_run_unless_it_is_meant(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, 20)
    workspace.candidates()
    for number in range(2):
        (workspace.images / f"{number:03d}.png").unlink()
    assert workspace.candidates().listing.gone == 2
    for number in range(2, 4):
        (workspace.images / f"{number:03d}.png").unlink()
    workspace.write_vocabulary([*LABELS, "bowl"])  # would change the plan
    before = snapshot(workspace.out.parent)
    with pytest.raises(SourceError, match="2 of 18 images on record are gone") as raised:
        workspace.candidates()
    assert raised.value.exit_code == 2
    assert snapshot(workspace.out.parent) == before
    assert workspace.candidates(allow_gone=True).rows.total == 16


def test_an_added_label_asks_one_group_of_each_arm_again(done: Workspace) -> None:
    done.write_vocabulary([*LABELS, "bowl"])
    summary = done.candidates()
    assert (summary.stats.asked, summary.stats.images) == (2 * IMAGES, IMAGES)
    assert all("bowl" in text for _, text in done.engine.asked)


def test_a_removed_label_asks_nothing_and_is_gone_from_the_table(done: Workspace) -> None:
    named = [row for row in done.rows().values() if row.labels and row.labels[0].name == "cat"]
    assert named
    done.write_vocabulary(LABELS[1:])
    summary = done.candidates()
    assert (summary.stats.asked, done.engine.started, summary.rows.unmatched) == (0, 0, 0)
    assert "cat" not in {entry.name for row in done.rows().values() for entry in row.labels or ()}
    done.write_vocabulary(LABELS)
    assert (done.candidates().stats.asked, done.engine.started) == (0, 0)
    assert [done.rows()[row.image_id] for row in named] == named


def test_a_replan_asks_only_what_it_words_otherwise(done: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    job = done.candidates_job(RunOptions(replan=True), group_size=2)
    run_job(job, RunOptions(replan=True), Console())
    assert len(done.engine.asked) == IMAGES * 8
    assert f"--replan: {IMAGES * 8} requests about {IMAGES} images are to be asked" in capsys.readouterr().err
    assert done.candidates(replan=True).stats.asked == 0  # the first plan again, every answer on record


def test_settings_that_only_read_answers_otherwise_rewrite_the_table(done: Workspace) -> None:
    before = done.out.read_bytes()
    summary = done.candidates({"min_votes": 2})
    assert (summary.stats.asked, done.engine.started) == (0, 0)
    assert {entry.score for row in done.rows().values() for entry in row.labels or ()} <= {1.0}
    done.candidates()
    assert done.out.read_bytes() == before


def test_another_version_of_the_tool_reads_the_answers_anew(done: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    written = done.out.stat().st_mtime_ns
    monkeypatch.setattr(tagllm_cli, "__version__", "99.0")
    assert done.candidates().stats.asked == 0
    assert done.out.stat().st_mtime_ns != written


def test_a_lost_table_is_made_again(done: Workspace) -> None:
    before = done.out.read_bytes()
    done.out.unlink()
    assert (done.candidates().stats.asked, done.engine.started) == (0, 0)
    assert done.out.read_bytes() == before


def refuse(picture: DecodedImage | None, request: Request) -> Failure | None:
    """Fail every question about cows."""
    return Failure("timeout", "no answer") if "cow" in request.text else None


def test_failed_requests_are_asked_again_next_time(workspace: Workspace) -> None:
    workspace.engine.fault = refuse
    summary = workspace.candidates()
    assert (summary.rows.partial, summary.stats.failed_requests) == (IMAGES, 2 * IMAGES)
    assert isinstance(summary.error, TooManyFailedError)
    workspace.engine = type(workspace.engine)()
    summary = workspace.candidates()
    assert (summary.stats.asked, summary.rows.ok, summary.error) == (2 * IMAGES, IMAGES, None)


@pytest.mark.parametrize(("rate", "code"), [(0.0, 3), (0.24, 3), (0.25, None), (1.0, None)])
def test_too_many_failed_rows_end_with_exit_code_3(workspace: Workspace, rate: float, code: int | None) -> None:
    for number in range(IMAGES // 4):
        (workspace.images / f"{number:03d}.png").write_bytes(b"no picture")
    error = workspace.candidates(max_failed_rate=rate).error
    assert (None if error is None else error.exit_code) == code
    assert len(workspace.rows()) == IMAGES


class Reading:
    """Counts what is opened, and fails for some names as a disk would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[str] = []
        self.failing: set[str] = set()
        read = Folder.read

        def watched(folder: Folder, image: Any) -> bytes:
            self.opened.append(image.id)
            if image.id in self.failing:
                raise ReadFailure("unreadable", "Input/output error")
            return read(folder, image)

        monkeypatch.setattr(Folder, "read", watched)


def test_what_cannot_be_decoded_is_not_opened_again_but_what_cannot_be_read_is(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(monkeypatch)
    (workspace.images / "000.png").write_bytes(b"no picture")
    reading.failing = {"001.png"}
    workspace.candidates()
    rows = workspace.rows()
    assert str(rows["000.png"].error).startswith("not_an_image: ")
    assert rows["001.png"].error == "unreadable: Input/output error"
    assert [rows[name].labels for name in ("000.png", "001.png")] == [None, None]
    assert rows["002.png"].status == "ok"

    before, workspace.engine = snapshot(workspace.out.parent), type(workspace.engine)()
    reading.opened.clear()
    workspace.candidates()
    assert (reading.opened, workspace.engine.started) == (["001.png"], 0)
    assert snapshot(workspace.out.parent)["c.parquet"] == before["c.parquet"]

    reading.failing.clear()
    assert (workspace.candidates().stats.asked, asked_about(workspace)) == (EACH, 1)
    assert workspace.rows()["001.png"].status == "ok"


def test_no_engine_is_started_for_images_that_cannot_be_opened(workspace: Workspace) -> None:
    for path in workspace.images.iterdir():
        path.write_bytes(b"no picture")
    summary = workspace.candidates()
    assert (workspace.engine.started, summary.rows.failed, summary.stats.opened) == (0, IMAGES, IMAGES)


def test_the_evidence_lies_beside_the_table_under_its_name(workspace: Workspace) -> None:
    job = workspace.candidates_job()
    names = {name: replace(job, out=Path("x") / name).evidence.name for name in ("a.parquet", "v1.2", "v1.3", "a.pq")}
    assert names == {
        "a.parquet": "a.evidence",
        "v1.2": "v1.2.evidence",
        "v1.3": "v1.3.evidence",
        "a.pq": "a.pq.evidence",
    }


def test_the_run_record_names_the_engine(done: Workspace) -> None:
    assert evidence_rows(done.out.with_suffix(".evidence"), "SELECT command, engine FROM run") == [
        ("candidates", "rules")
    ]


def test_a_finished_table_on_a_disk_that_cannot_be_written_has_nothing_to_do(
    done: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(done.out.parent)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert (done.candidates().rows.ok, done.engine.started) == (IMAGES, 0)
    assert snapshot(done.out.parent) == before
    done.paint(100, "new.png")
    with pytest.raises(TableError, match=r"c\.evidence cannot be written, and there is something to record"):
        done.candidates()
    assert (done.engine.started, snapshot(done.out.parent)) == (0, before)


def test_on_a_full_disk_no_engine_is_started(done: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each retry would ask for answers and throw them away."""
    before = snapshot(done.out.parent)
    full: list[Path] = []

    def on_a_full_disk(dir: Path) -> IO[bytes]:
        full.append(dir)
        return Path("/dev/full").open("wb")

    monkeypatch.setattr(tempfile, "TemporaryFile", on_a_full_disk)
    assert (done.candidates().rows.ok, full) == (IMAGES, [])  # nothing to ask, nothing to write
    done.paint(100, "new.png")
    with pytest.raises(TableError, match="has less than 4 MiB of free space: No space left on device"):
        done.candidates()
    assert (full, done.engine.started, snapshot(done.out.parent)) == ([done.out.parent], 0, before)


@pytest.mark.parametrize("is_ours", [False, True])
def test_a_table_whose_evidence_is_empty_is_not_paid_for_again(done: Workspace, is_ours: bool) -> None:
    done.out.with_suffix(".evidence").unlink()
    if is_ours:
        with Evidence(done.out.with_suffix(".evidence")):
            pass
    else:
        done.out.with_suffix(".evidence").touch()
    before = snapshot(done.out.parent)
    with pytest.raises(TableError, match=r"its evidence c\.evidence is empty"):
        done.candidates()
    assert (done.engine.started, snapshot(done.out.parent)) == (0, before)


def test_a_pinned_plan_that_makes_no_sense_is_damage_and_no_traceback(done: Workspace) -> None:
    with Evidence(done.out.with_suffix(".evidence")) as evidence:
        evidence.set_meta("plan", {})
    with pytest.raises(TableError, match=r"c\.evidence is damaged: 'stage' is missing"):
        done.candidates()
