"""What people decided stays, whatever the table is made anew for."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tagllm_cli.errors import TableError
from tagllm_cli.labeling.human import HumanOverlay
from tagllm_cli.labeling.thresholds import Thresholds
from tagllm_cli.pipeline.label.job import RunOptions
from tagllm_cli.pipeline.label.run import run_job
from tagllm_cli.pipeline.progress import Silent
from tagllm_cli.records import Decision, Row
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.store.evidence_snapshot import read_decisions
from tagllm_cli.store.human_labels import HumanDecision
from tagllm_cli.store.merge.merge import merge_tables
from tagllm_cli.store.merge.parts import evidence_of
from tagllm_cli.store.table import open_table, write_file
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import LABELS, Workspace

YES, NO = Decision.YES, Decision.NO


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    """Twelve images, labeled; a person has turned round each label of the first two."""
    work = Workspace(tmp_path, 12)
    work.both()
    decide(work.labels_out, {name: turned(work, name) for name in ("000.png", "001.png")})
    work.disambiguate()
    return work


def turned(work: Workspace, image: str) -> dict[str, Decision]:
    before = yes(work.rows(work.labels_out)[image])
    return {name: NO if name in before else YES for name in LABELS}


def yes(row: Row) -> set[str]:
    return {entry.name for entry in row.labels or () if entry.decision == YES}


def by_people(row: Row) -> dict[str, Decision | None]:
    return {entry.name: entry.decision for entry in row.labels or () if entry.source == "human"}


def decide(table: Path, decisions: Mapping[str, Mapping[str, Decision]], *, when: int = 10) -> None:
    rows = {row.image_id: row for row in open_table(table).rows()}
    with Evidence(evidence_of(table)) as evidence:
        evidence.record_decisions(
            [
                HumanDecision(image, rows[image].fingerprint, label, said.value, "ann", when, "test", b"t" * 16, when)
                for image, labels in decisions.items()
                for label, said in labels.items()
            ]
        )


def check(work: Workspace, table: Path | None = None) -> None:
    rows = work.rows(table or work.labels_out)
    for image in ("000.png", "001.png"):
        assert set(by_people(rows[image])) == set(LABELS)
    assert not any(by_people(row) for image, row in rows.items() if image > "001.png")


def test_the_next_run_shows_it_and_asks_nothing(work: Workspace) -> None:
    check(work)
    before = work.labels_out.read_bytes()
    assert work.disambiguate().stats.asked == 0
    assert work.labels_out.read_bytes() == before
    work.labels_out.unlink()
    assert work.disambiguate(offline=True).stats.asked == 0
    assert work.labels_out.read_bytes() == before


def test_it_stays_with_new_images_another_threshold_and_one_more_label(work: Workspace) -> None:
    decided = {image: by_people(row) for image, row in work.rows(work.labels_out).items()}
    work.paint(100, "0000.png")
    work.both()
    check(work)
    work.disambiguate({"thresholds": Thresholds(0.9)})
    check(work)
    work.write_vocabulary([*LABELS, "horse"])
    work.both()
    rows = work.rows(work.labels_out)
    assert {image: by_people(rows[image]) for image in decided} == decided


def test_it_survives_a_new_plan_and_another_model(work: Workspace) -> None:
    work.engine = RuleEngine()
    work.candidates({"group_size": 3}, replan=True)
    work.disambiguate(replan=True)
    check(work)


def test_it_follows_the_bytes_to_another_name(work: Workspace) -> None:
    (work.images / "000.png").rename(work.images / "zzz.png")
    work.both()
    rows = work.rows(work.labels_out)
    assert set(by_people(rows["zzz.png"])) == set(LABELS)


def test_it_is_not_about_other_bytes(work: Workspace) -> None:
    work.paint(77, "000.png")
    work.both()
    rows = work.rows(work.labels_out)
    assert not by_people(rows["000.png"])
    assert set(by_people(rows["001.png"])) == set(LABELS)
    work.paint(0, "000.png")
    work.both()
    check(work)


def test_decisions_about_candidates_change_no_question_and_are_those_of_the_label_table(work: Workspace) -> None:
    rows = work.rows()
    decide(work.out, {"005.png": dict.fromkeys(LABELS, NO), "006.png": dict.fromkeys(LABELS, YES)})
    work.candidates()
    assert set(by_people(work.rows()["005.png"])) == set(LABELS)
    assert work.disambiguate().stats.asked == 0
    assert by_people(work.rows(work.labels_out)["005.png"]) == dict.fromkeys(LABELS, NO)
    assert by_people(work.rows(work.labels_out)["006.png"]) == dict.fromkeys(LABELS, YES)
    check_others = {image for image, row in work.rows(work.labels_out).items() if by_people(row)}
    assert check_others == {"000.png", "001.png", "005.png", "006.png"}
    assert {entry.name for entry in work.rows()["005.png"].labels or ()} >= {
        entry.name for entry in rows["005.png"].labels or ()
    }


def test_decisions_about_candidates_are_taken_over_offline(work: Workspace) -> None:
    decide(work.out, {"005.png": dict.fromkeys(LABELS, NO)})
    work.candidates(offline=True)
    work.disambiguate(offline=True)
    assert by_people(work.rows(work.labels_out)["005.png"]) == dict.fromkeys(LABELS, NO)


def test_decisions_about_candidates_are_taken_over_in_one_pass(work: Workspace) -> None:
    decide(work.out, {"005.png": {"cat": NO}})
    work.both()
    assert by_people(work.rows(work.labels_out)["005.png"]) == {"cat": NO}


def test_decisions_are_read_beside_a_log_that_a_killed_process_left(work: Workspace, tmp_path: Path) -> None:
    rows, evidence = work.rows(), evidence_of(work.out)
    left = tmp_path / "left.evidence"
    decision = HumanDecision("1", rows["005.png"].fingerprint, "", "no", "ann", 5, "o", b"t" * 16, 6, ("cat", "dög"))
    with Evidence(evidence) as file:
        file.record_decisions([decision])
        file.commit()
        for ending in ("", "-wal"):
            shutil.copyfile(f"{evidence}{ending}", f"{left}{ending}")
    assert read_decisions(left) == read_decisions(evidence) == [decision]
    assert Path(f"{left}-wal").exists()
    with closing(sqlite3.connect(left)) as db:
        db.execute("UPDATE human_decision SET decision = 'yes'")
        db.commit()
    with pytest.raises(TableError, match="what people decided is not what was written"):
        read_decisions(left)


def test_candidates_whose_evidence_cannot_be_read_are_labeled_all_the_same(work: Workspace) -> None:
    evidence_of(work.out).write_bytes(b"SQLite format 3" + bytes(5000))
    work.out.touch()  # it is another table
    assert work.disambiguate().error is None
    check(work)


class Notes(Silent):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_a_run_says_that_decisions_in_candidates_without_evidence_are_lost(work: Workspace, tmp_path: Path) -> None:
    decide(work.out, {"005.png": {"cat": YES}})
    work.candidates()
    original = work.out
    for copied in (False, True):
        (folder := tmp_path / str(copied)).mkdir()
        shutil.copy(original, folder)
        if copied:
            shutil.copy(evidence_of(original), folder)
        reporter = Notes()
        work.out, work.labels_out = folder / work.out.name, folder / "l.parquet"
        run_job(work.labels_job(), RunOptions(), reporter)
        assert any("is not taken over" in note for note in reporter.notes) != copied


def test_a_run_says_which_decisions_apply_to_nothing(work: Workspace) -> None:
    (work.images / "000.png").unlink()
    work.paint(77, "001.png")
    work.write_vocabulary([name for name in LABELS if name != "cat"])
    first, second = work.both()
    assert second is not None
    told = "\n".join(second.lines())
    count = len(LABELS)
    assert f"{count} decisions of people about 1 image whose bytes have changed (first: 001.png)" in told
    assert f"{count} decisions of people about 1 image that is gone (first: 000.png)" in told
    assert "2 decisions of people about 1 label that the vocabulary lacks (first: cat)" in told
    assert second.to_json()["people"]["gone_labels"] == {"cat": 2}
    assert first.people is None


def test_decisions_over_a_table_on_disk_give_the_bytes_of_the_next_run(work: Workspace) -> None:
    decide(work.labels_out, {"007.png": turned(work, "007.png")}, when=20)
    table = open_table(work.labels_out)
    pieces = (pa.Table.from_batches([batch]) for batch in table.batches(5))
    with Evidence(evidence_of(work.labels_out)) as evidence:
        fingerprints = {some[0].fingerprint for some in evidence.human}
        changed = HumanOverlay(table.info).tables(pieces, fingerprints, evidence.human.in_force)
        write_file(work.labels_out.with_name("patched.parquet"), table.info, changed)
    work.disambiguate()
    assert work.labels_out.with_name("patched.parquet").read_bytes() == work.labels_out.read_bytes()


def test_merged_tables_have_the_decisions_of_all_parts(tmp_path: Path, work: Workspace) -> None:
    other = Workspace(tmp_path / "other", 12)
    for number in range(2):
        other.paint(50 + number, f"b{number}.png")
    other.both()
    decide(other.labels_out, {"b0.png": {"cat": YES}, "004.png": {"cat": YES}})
    decide(other.labels_out, {"000.png": {"cat": NO, "dog": NO}}, when=30)
    other.disambiguate()
    merged = tmp_path / "merged.parquet"
    summary = merge_tables(merged, [work.labels_out, other.labels_out], overlay=HumanOverlay)
    assert summary.added.decisions == 2 * len(LABELS) + 4
    rows: dict[str, Any] = work.rows(merged)
    assert by_people(rows["b0.png"]) == {"cat": YES}
    assert by_people(rows["004.png"]) == {"cat": YES}
    assert by_people(rows["000.png"])["cat"] == by_people(rows["000.png"])["dog"] == NO
    before = merged.read_bytes()
    assert merge_tables(merged, [work.labels_out, other.labels_out], overlay=HumanOverlay).added.is_nothing
    assert merged.read_bytes() == before
