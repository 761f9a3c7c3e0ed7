"""Evidence read while another process writes it: one commit is seen, and nobody notices the reader."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tagllm_cli.errors import TableError
from tagllm_cli.records import Failure, Image, ImageInfo, Item, Response, Shard
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.store.evidence_snapshot import read_evidence
from tests.support.workspace import evidence_rows, snapshot

COMMITS = 3000
# Each commit completes one more image and records one more response; the log is begun anew some fifty times.
WRITER = """
import os, sys
from pathlib import Path
from tests.store.test_evidence_snapshot import COMMITS, evidence_of_many
with evidence_of_many(Path(sys.argv[1])) as evidence:
    print("up", flush=True)
    for number in range(COMMITS):
        add(evidence, number)
        evidence.commit()
""".replace("COMMITS, evidence_of_many", "COMMITS, add, evidence_of_many")


def evidence_of_many(path: Path) -> Evidence:
    """Evidence with images that wait for answers, and a run that has begun."""
    evidence = Evidence(path)
    evidence.begin_listing()
    items = [Item(Image(f"{number}.jpg", f"{number}.jpg", "1")) for number in range(COMMITS)]
    evidence.list_shard(Shard(), enumerate(items))
    evidence.merge(complete=True, by_hash=False)
    evidence.start_run("candidates", "1.0", "vllm 0.32.0")
    evidence.commit()
    return evidence


def add(evidence: Evidence, number: int) -> None:
    """Record one response, of 10 prompt, 4 cached and 2 output tokens, and complete one image."""
    evidence.set_info(f"{number}.jpg", ImageInfo(number.to_bytes(16, "big"), 8, 8))
    key = (number * 2_654_435_761 % 2**32).to_bytes(16, "big")  # scattered, as hashes are
    evidence.record(key, Response("cat" * 100, prompt_tokens=10, cached_tokens=4, output_tokens=2))
    evidence.set_completed(f"{number}.jpg", b"all")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes `a.evidence`, one commit after the other."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "a.evidence")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


def test_beside_a_writer_one_commit_is_seen_and_the_writer_loses_nothing(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    path = tmp_path / "a.evidence"
    seen = []
    while writer.poll() is None:
        found = read_evidence(path)
        assert found is not None
        (run,) = found.runs
        if run.report:
            assert found.completed in (None, run.report["asked"]["requests"])  # None: it has ended, without a log
            assert run.report["tokens"]["prompt"] == 10 * run.report["asked"]["requests"]
            seen.append(run.report["asked"]["requests"])
    assert writer.returncode == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 1
    assert evidence_rows(path, "SELECT count(*) FROM response") == [(COMMITS,)]
    assert evidence_rows(path, "PRAGMA integrity_check") == [("ok",)]
    last = read_evidence(path, progress=True)
    assert last is not None
    assert (last.completed, last.is_being_written, last.runs[0].ended) == (COMMITS, False, None)


def test_what_a_killed_run_left_is_read_and_stays_as_it_is(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    path = tmp_path / "a.evidence"
    while (found := read_evidence(path)) is None or not found.runs[0].report:
        assert writer.poll() is None
    assert found.is_being_written
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    before = snapshot(tmp_path)
    assert len(before["a.evidence-wal"] or b"") > 0
    left = read_evidence(path)
    assert snapshot(tmp_path) == before
    assert left is not None
    assert not left.is_being_written
    copies = tmp_path / "copy"
    copies.mkdir()
    for name, data in before.items():
        (copies / name).write_bytes(data or b"")
    ((answers, prompt),) = evidence_rows(copies / "a.evidence", "SELECT count(*), sum(prompt_tokens) FROM response")
    assert (left.runs[0].report["asked"]["requests"], left.completed) == (answers, answers)
    assert left.runs[0].report["tokens"]["prompt"] == prompt


def test_what_a_run_has_recorded_is_committed_with_its_responses(tmp_path: Path) -> None:
    path = tmp_path / "a.evidence"
    with Evidence(path) as evidence:
        evidence.start_run("candidates", "1.0")
        evidence.record(bytes(16), Response("cat", prompt_tokens=7, cached_tokens=3, output_tokens=1))
        evidence.record(b"x" * 16, Response(failure=Failure("timeout", "late")))
        evidence.commit()
        evidence.record(b"y" * 16, Response("dog", prompt_tokens=7))
        evidence.rollback()
    found = read_evidence(path)
    assert found is not None
    (run,) = found.runs
    assert (run.ended, run.answers) == (None, None)
    assert run.report["asked"] == {"requests": 2, "failed_requests": 1}
    assert run.report["tokens"] == {"prompt": 7, "cached": 3, "output": 1}


def test_a_second_pass_goes_on_with_the_record_and_a_second_run_has_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.evidence"
    with Evidence(path) as evidence:
        for number in range(2):
            evidence.start_run("candidates", "1.0")
            evidence.record(bytes([number]) * 16, Response("cat"))
        evidence.end_run({"seconds": 1.0})
        evidence.start_run("candidates", "1.0")
        evidence.end_run({"seconds": 2.0})
    assert evidence_rows(path, "SELECT run, count(*) FROM response GROUP BY run") == [(1, 2)]
    assert evidence_rows(path, "SELECT id, ended NOTNULL FROM run") == [(1, 1), (2, 1)]


def test_runs_of_releases_that_told_nothing_before_their_end_are_counted_by_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.evidence"
    with Evidence(path) as evidence:
        evidence.start_run("candidates", "0.1.0")
        for number in range(3):
            evidence.record(bytes([number]) * 16, Response("cat", prompt_tokens=5, cached_tokens=1, output_tokens=2))
        evidence.record(b"x" * 16, Response(failure=Failure("timeout", "late")))
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE run SET report = NULL")
        database.commit()
    found = read_evidence(path)
    assert found is not None
    assert found.runs[0].answers == (4, 15, 3, 6, 1)


def test_nothing_an_empty_file_and_foreign_files(tmp_path: Path) -> None:
    assert read_evidence(tmp_path / "no.evidence") is None
    (tmp_path / "empty.evidence").touch()
    assert read_evidence(tmp_path / "empty.evidence") is None
    (tmp_path / "text.evidence").write_text("name,label\n" * 200)
    with pytest.raises(TableError, match=r"text\.evidence is damaged"):
        read_evidence(tmp_path / "text.evidence")
    with Evidence(tmp_path / "newer.evidence") as evidence:
        evidence.set_meta("plan", {})
    with closing(sqlite3.connect(tmp_path / "newer.evidence")) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(TableError, match="newer tagllm"):
        read_evidence(tmp_path / "newer.evidence")
    with closing(sqlite3.connect(tmp_path / "theirs.evidence")) as database:
        database.execute("CREATE TABLE note (text)")
    with pytest.raises(TableError):
        read_evidence(tmp_path / "theirs.evidence")
