"""Files of decisions into the evidence of a table, which shows them at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import TableError, UsageError
from tagllm_cli.evaluation.human_labels.options import ImportOptions
from tagllm_cli.evaluation.human_labels.summary import ImportSummary
from tagllm_cli.evaluation.human_labels.take_in import import_files
from tagllm_cli.records import Decision, DecodedImage, Request, Response
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.store.merge.parts import evidence_of
from tagllm_cli.store.table import open_table
from tests.support.command_line import tagllm
from tests.support.decisions import human_labels_of, labels_of, on_record, table_rows, write_records, write_sheet
from tests.support.rule_engine import RuleEngine, answer
from tests.support.workspace import LABELS, Workspace, snapshot


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    work = Workspace(tmp_path, 8)
    work.both()
    return work


def take_in(work: Workspace, *files: Path, table: Path | None = None, **options: Any) -> ImportSummary:
    return import_files(table or work.labels_out, files, ImportOptions(**options))


def sheet(work: Workspace, *lines: Any, name: str = "said.csv") -> Path:
    return write_sheet(work.images.parent / name, lines)


def test_decisions_show_at_once_and_the_next_run_has_nothing_to_do(work: Workspace) -> None:
    before = labels_of(work.labels_out, "000.png")
    gone, new = sorted(before)[0], sorted(set(LABELS) - before)[0]
    summary = take_in(work, sheet(work, ("000.png", gone, "no"), ("000.png", new, "yes")))
    assert (summary.recorded, summary.changes.pairs) == (2, {"added": 1, "removed": 1})
    assert labels_of(work.labels_out, "000.png") == before - {gone} | {new}
    shown = work.labels_out.read_bytes()
    state = work.labels_out.stat()
    again = work.disambiguate()
    assert again.stats.asked == 0
    assert work.labels_out.stat().st_mtime_ns == state.st_mtime_ns
    counted = again.rows
    work.labels_out.unlink()
    assert work.disambiguate(offline=True).rows == counted
    assert work.labels_out.read_bytes() == shown


def test_an_undated_statement_gets_the_time_of_the_import_and_a_dated_one_keeps_its_own(work: Workspace) -> None:
    take_in(
        work,
        sheet(
            work,
            ("000.png", "cat", "yes", "ann", "2026-05-01T12:00:00Z"),
            ("000.png", "dog", "yes", "ann", ""),
            ("000.png", "cow", "no", "ann", ""),
        ),
    )
    times = {each.label: each.decided for each in on_record(work.labels_out)}
    (recorded,) = {each.recorded for each in on_record(work.labels_out)}
    assert times["cat"] == 1777636800 * 10**6
    assert recorded < times["dog"] < times["cow"] < recorded + 10


def test_importing_twice_changes_nothing(work: Workspace) -> None:
    said = sheet(work, ("000.png", "cat", "yes"), ("000.png", "dog", "no"), ("001.png", "cat", "unknown"))
    take_in(work, said)
    before = snapshot(work.out.parent)
    for only_changes in (False, True):
        again = take_in(work, said, only_changes=only_changes)
        assert (again.recorded, again.changes.rows) == (0, 0)
    after = snapshot(work.out.parent)
    assert after["l.parquet"] == before["l.parquet"]
    assert len(on_record(work.labels_out)) == 3


def test_what_the_same_person_says_again_in_another_file_adds_nothing(work: Workspace) -> None:
    lines = [("000.png", "cat", "yes", "ann"), ("000.png", "dog", "no", "ann")]
    first = sheet(work, *lines)
    take_in(work, first)
    assert take_in(work, sheet(work, *lines, ("001.png", "cat", "no", "ann"), name="more.csv")).recorded == 1
    assert take_in(work, sheet(work, ("000.png", "cat", "yes", "ben"), name="ben.csv")).recorded == 1
    assert take_in(work, sheet(work, ("000.png", "cat", "no", "ann"), name="late.csv")).recorded == 1
    assert take_in(work, first).recorded == 0  # it was said before that
    assert human_labels_of(work.labels_out, "000.png")["cat"] == "no"
    assert take_in(work, sheet(work, ("000.png", "cat", "yes", "ann"), name="again.csv")).recorded == 1
    assert human_labels_of(work.labels_out, "000.png")["cat"] == "yes"


def test_complete_says_no_to_everything_that_is_not_listed(work: Workspace) -> None:
    said = write_sheet(work.images.parent / "truth.csv", [("000.png", "cat"), ("001.png", "")], ("image", "label"))
    only = take_in(work, said)
    assert [human_labels_of(work.labels_out, image) for image in ("000.png", "001.png")] == [{"cat": "yes"}, {}]
    assert any("--complete" in note for note in only.notes())
    take_in(work, said, complete=True)
    everything = dict.fromkeys(LABELS, "no")
    assert human_labels_of(work.labels_out, "000.png") == {**everything, "cat": "yes"}
    assert human_labels_of(work.labels_out, "001.png") == everything
    assert not human_labels_of(work.labels_out, "002.png")
    assert take_in(work, said, complete=True).recorded == 0


def test_complete_is_about_the_labels_that_could_be_chosen(work: Workspace) -> None:
    coco = {
        "images": [{"id": 1, "file_name": "000.png"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1}],
    }
    path = work.images.parent / "coco.json"
    path.write_text(json.dumps(coco))
    take_in(work, path, complete=True)
    assert human_labels_of(work.labels_out, "000.png") == {"cat": "yes", "dog": "no"}


def test_complete_is_narrowed_by_labels_and_several_sets_add_up(work: Workspace) -> None:
    said = sheet(work, ("000.png", "cat", "yes"))
    take_in(work, said, complete=True, labels=("dog", "cow"))
    assert human_labels_of(work.labels_out, "000.png") == {"dog": "no", "cow": "no"}
    take_in(work, said, complete=True, labels=("cup", "cat"))
    assert human_labels_of(work.labels_out, "000.png") == {"dog": "no", "cow": "no", "cup": "no", "cat": "yes"}


def test_a_later_complete_import_overrides_what_the_same_person_said_before(work: Workspace) -> None:
    take_in(work, sheet(work, ("000.png", "cat", "yes"), ("000.png", "dog", "yes")))
    take_in(work, sheet(work, ("000.png", "cat", "yes"), name="other.csv"), complete=True)
    assert human_labels_of(work.labels_out, "000.png") == {**dict.fromkeys(LABELS, "no"), "cat": "yes"}


def test_only_changes_records_what_differs_from_the_table(work: Workspace) -> None:
    before = labels_of(work.labels_out, "000.png")
    gone, new = sorted(before)[0], sorted(set(LABELS) - before)[0]
    after = before - {gone} | {new}
    lines = [("000.png", name) for name in sorted(after)]
    lines += [("001.png", name) for name in sorted(labels_of(work.labels_out, "001.png"))] or [("001.png", "")]
    said = write_sheet(work.images.parent / "tags.csv", lines, ("image", "label"))
    summary = take_in(work, said, complete=True, only_changes=True)
    assert summary.recorded == 2
    assert human_labels_of(work.labels_out, "000.png") == {gone: "no", new: "yes"}
    assert human_labels_of(work.labels_out, "001.png") == {}
    assert take_in(work, said, complete=True, only_changes=True).recorded == 0


def test_only_changes_does_not_let_an_overruled_change_win(work: Workspace) -> None:
    before = labels_of(work.labels_out, "000.png")
    first, *_ = sorted(before)
    said = sheet(
        work,
        ("000.png", first, "no", "ann", "2026-05-02"),
        ("000.png", first, "yes", "ben", "2026-05-03"),
        ("001.png", first, "yes" if first in labels_of(work.labels_out, "001.png") else "no", "ben", "2026-05-03"),
    )
    summary = take_in(work, said, only_changes=True)
    assert (summary.recorded, summary.files[0].unchanged) == (2, 1)
    assert labels_of(work.labels_out, "000.png") == before
    assert human_labels_of(work.labels_out, "000.png") == {first: "yes"}
    assert take_in(work, said, only_changes=True).recorded == 0


def test_two_people_who_disagree_are_both_kept_and_the_later_one_counts(work: Workspace) -> None:
    take_in(work, sheet(work, ("000.png", "cat", "yes", "ann", "2026-05-02"), name="a.csv"))
    summary = take_in(work, sheet(work, ("000.png", "cat", "no", "ben", "2026-05-01"), name="b.csv"))
    assert human_labels_of(work.labels_out, "000.png") == {"cat": "yes"}
    assert summary.people is not None
    (conflict,) = summary.people.conflicts
    assert str(conflict) == "000.png, cat: ben no, ann yes"
    assert any("people disagree about 1 pair" in warning for warning in summary.warnings())
    assert summary.to_json()["people"]["conflicts"][0]["label"] == "cat"


def test_of_one_image_in_two_tasks_the_later_statement_counts_and_is_counted(work: Workspace) -> None:
    said = [
        {"image": f"/data/upload/3/{upload}-000.png", "label": "cat", "decision": decision}
        for upload, decision in (("0a1b2c3d", "yes"), ("4e5f6a7b", "no"))
    ]
    summary = take_in(work, write_records(work.images.parent / "tasks.jsonl", said))
    assert (summary.files[0].contradictions, summary.recorded) == (1, 1)
    assert human_labels_of(work.labels_out, "000.png") == {"cat": "no"}


def test_withdrawing_a_file_brings_back_what_was_before(work: Workspace) -> None:
    before = work.labels_out.read_bytes()
    first = sheet(work, ("000.png", "cat", "yes", "ann"), name="a.csv")
    second = sheet(
        work,
        ("000.png", "cat", "no", "ann"),
        (
            "001.png",
            "dog",
            "no",
            "ann",
        ),
        name="b.csv",
    )
    take_in(work, first)
    shown = work.labels_out.read_bytes()
    take_in(work, second, complete=True)
    take_in(work, second, withdraw=True)
    assert work.labels_out.read_bytes() == shown
    assert take_in(work, second, withdraw=True).recorded == 0
    take_in(work, second)
    assert human_labels_of(work.labels_out, "000.png") == {"cat": "no"}
    for each in (second, first):
        take_in(work, each, withdraw=True)
    assert work.labels_out.read_bytes() == before
    assert work.disambiguate(offline=True).stats.asked == 0
    assert work.labels_out.read_bytes() == before


def test_a_dated_file_can_be_withdrawn_and_imported_again(work: Workspace) -> None:
    said = sheet(work, ("000.png", "cat", "yes", "ann", "2026-05-01"))
    for _ in range(3):
        take_in(work, said)
        assert human_labels_of(work.labels_out, "000.png") == {"cat": "yes"}
        take_in(work, said, withdraw=True)
        assert human_labels_of(work.labels_out, "000.png") == {}


def test_a_file_that_says_the_same_can_be_withdrawn_for_another(work: Workspace) -> None:
    take_in(work, sheet(work, ("000.png", "cat", "yes", "ann"), ("000.png", "dog", "no", "ann"), name="a.csv"))
    summary = take_in(work, sheet(work, ("000.png", "cat", "yes", "ann"), name="part.csv"), withdraw=True)
    assert summary.recorded == 1
    assert human_labels_of(work.labels_out, "000.png") == {"dog": "no"}


def test_a_folder_that_was_written_again_is_withdrawn_as_it_was_imported(work: Workspace) -> None:
    folder = work.images.parent / "captions"
    folder.mkdir()
    (folder / "000.txt").write_text("cat\n")
    take_in(work, folder, who="ann")
    good = work.labels_out.read_bytes()
    (folder / "000.txt").write_text("cat, dog\n")
    take_in(work, folder, who="ann", complete=True)
    assert work.labels_out.read_bytes() != good
    (folder / "000.txt").write_text("cow\n")  # as the next export writes it
    summary = take_in(work, folder, withdraw=True)
    assert any("what was imported then is taken back" in each for each in summary.warnings())
    assert work.labels_out.read_bytes() == good
    assert take_in(work, folder, withdraw=True).recorded == 0
    assert work.labels_out.read_bytes() == good


def test_a_person_takes_back_in_a_file_what_that_person_said(work: Workspace) -> None:
    take_in(work, sheet(work, ("000.png", "cat", "yes", "ann"), ("000.png", "dog", "yes", "ben"), name="a.csv"))
    take_in(
        work, sheet(work, ("000.png", "cat", "withdrawn", "ann"), ("000.png", "dog", "withdrawn", "ann"), name="b.csv")
    )
    assert human_labels_of(work.labels_out, "000.png") == {"dog": "yes"}


def test_a_decision_about_other_bytes_is_kept_and_never_applied(work: Workspace) -> None:
    said = sheet(work, ("000.png", "cat", "yes", "ann", "", "ab" * 16), ("001.png", "cat", "yes", "ann", "", ""))
    summary = take_in(work, said)
    assert summary.recorded == 2
    assert human_labels_of(work.labels_out, "000.png") == {}
    assert summary.people is not None
    assert summary.people.stale.to_json() == {"decisions": 1, "images": 1, "examples": ["000.png"]}
    assert any("whose bytes have changed (first: 000.png)" in warning for warning in summary.warnings())


def test_what_was_taken_back_is_stale_no_more(work: Workspace) -> None:
    said = sheet(work, ("000.png", "cat", "yes", "ann", "", "ab" * 16), ("001.png", "cat", "yes", "ann", "", ""))
    take_in(work, said)
    summary = take_in(work, said, withdraw=True)
    assert summary.people is not None
    assert summary.people.problems(()) == []


def test_an_image_with_another_name_is_known_by_its_bytes(work: Workspace) -> None:
    fingerprint = table_rows(work.labels_out)["003.png"].fingerprint.hex()
    take_in(work, sheet(work, ("elsewhere.png", "cat", "yes", "ann", "", fingerprint)))
    assert human_labels_of(work.labels_out, "003.png") == {"cat": "yes"}


@pytest.mark.parametrize("form", ["coco", "jsonl"])
def test_an_export_that_nobody_changed_holds_no_decision_about_unknown_labels(tmp_path: Path, form: str) -> None:
    work = Workspace(tmp_path, 8)
    work.engine = RuleEngine(answer=doubting)
    work.both()
    assert any(entry.decision == "unknown" for row in work.rows(work.labels_out).values() for entry in row.labels or ())
    assert tagllm(f"export {work.labels_out} --format {form} --out {tmp_path}/exported").exit_code == 0
    summary = take_in(work, tmp_path / "exported", complete=True, only_changes=True)
    assert (summary.recorded, summary.changes.rows) == (0, 0)


def doubting(picture: DecodedImage | None, request: Request) -> Response:
    """Answer as the rules do, but leave every question about a cat in doubt."""
    found = answer(picture, request)
    return replace(found, first_logprobs={"maybe": -0.1}) if found.first_logprobs and "cat" in request.text else found


def test_a_decision_from_the_future_gets_the_time_of_the_import_and_can_be_overruled(work: Workspace) -> None:
    future = sheet(work, ("000.png", "cat", "yes", "ann", "2199-01-01"), name="future.csv")
    summary = take_in(work, future)
    assert (summary.files[0].in_future, take_in(work, future).recorded) == (1, 0)
    assert any("from the future" in warning for warning in summary.warnings())
    take_in(work, sheet(work, ("000.png", "cat", "no", "ann", "")))
    assert human_labels_of(work.labels_out, "000.png") == {"cat": "no"}


def test_decisions_are_counted_with_those_about_all_other_labels(work: Workspace) -> None:
    said = sheet(work, ("000.png", "cat", "yes"), ("001.png", "dog", "yes"))
    summary = take_in(work, said, complete=True)
    assert (summary.recorded, summary.files[0].statements) == (4, 4)
    assert "4 decisions recorded, about 2 images" in summary.lines()[0]
    changed = take_in(work, sheet(work, ("000.png", "cat", "no"), name="b.csv"), complete=True, only_changes=True)
    assert (changed.recorded, changed.files[0].statements) == (1, 1)


def test_labels_of_a_complete_import_are_taken_back_alone_and_come_back(work: Workspace) -> None:
    said = sheet(work, ("000.png", "cat", "yes", "ann"))
    take_in(work, said, complete=True)
    shown = human_labels_of(work.labels_out, "000.png")
    take_in(work, said, withdraw=True, labels=("dog", "cow"))
    assert human_labels_of(work.labels_out, "000.png") == {
        label: decision for label, decision in shown.items() if label not in ("dog", "cow")
    }
    take_in(work, said, complete=True)
    assert human_labels_of(work.labels_out, "000.png") == shown
    assert take_in(work, said, complete=True).recorded == 0


def test_only_changes_knows_images_by_their_bytes(work: Workspace) -> None:
    row = table_rows(work.labels_out)["003.png"]
    lines = [
        ("elsewhere.png", entry.name, str(entry.decision), "ann", "", row.fingerprint.hex())
        for entry in row.labels or ()
    ]
    summary = take_in(work, sheet(work, *lines), only_changes=True)
    assert (summary.recorded, summary.files[0].unchanged) == (0, len(lines))


def test_a_dry_run_says_what_would_change_and_changes_nothing(work: Workspace) -> None:
    said = sheet(work, ("000.png", "cat", "no"), ("000.png", "dog", "yes"), ("nowhere.png", "dog", "yes"))
    before = snapshot(work.out.parent)
    summary = take_in(work, said, dry_run=True)
    assert snapshot(work.out.parent) == before
    real = take_in(work, said)
    assert (real.recorded, real.changes) == (summary.recorded, summary.changes)
    assert summary.files[0].missing_images == ["nowhere.png"]


def test_a_candidate_table_takes_decisions_and_the_label_table_gets_them(work: Workspace) -> None:
    take_in(work, sheet(work, ("000.png", "cat", "yes"), ("001.png", "dog", "no")), table=work.out)
    assert human_labels_of(work.out, "000.png") == {"cat": "yes"}
    assert work.candidates().stats.asked == 0
    assert work.disambiguate().stats.asked == 0
    assert human_labels_of(work.labels_out, "000.png") == {"cat": "yes"}
    assert human_labels_of(work.labels_out, "001.png") == {"dog": "no"}
    take_in(work, sheet(work, ("002.png", "dog", "no"), name="more.csv"), table=work.out)
    work.both()
    assert human_labels_of(work.labels_out, "002.png") == {"dog": "no"}


def test_an_image_that_was_never_read_is_listed(work: Workspace) -> None:
    work.candidates()
    work.paint(99, "late.png")
    work.candidates(tables_only=True)
    assert not table_rows(work.out)["late.png"].fingerprint
    summary = take_in(work, sheet(work, ("late.png", "cat", "yes"), ("000.png", "cat", "yes")), table=work.out)
    assert (summary.files[0].unread, summary.recorded) == (["late.png"], 1)


def test_decisions_about_a_failed_image_are_its_labels(work: Workspace) -> None:
    (work.images / "bad.png").write_bytes(b"no image")
    work.both()
    take_in(work, sheet(work, ("bad.png", "cat", "yes")))
    row = table_rows(work.labels_out)["bad.png"]
    assert row.status == "failed"
    assert {entry.name: entry.decision for entry in row.labels or ()} == {
        **dict.fromkeys(LABELS, Decision.UNKNOWN),
        "cat": Decision.YES,
    }


def test_what_was_recorded_and_not_shown_is_shown_by_the_next_import_or_run(work: Workspace) -> None:
    said = sheet(work, ("000.png", "cat", "yes"), ("000.png", "dog", "yes"))
    before = work.labels_out.read_bytes()
    take_in(work, said)
    shown = work.labels_out.read_bytes()
    work.labels_out.write_bytes(before)  # as if it was killed before the table took its place
    assert take_in(work, said).recorded == 0
    assert work.labels_out.read_bytes() == shown
    work.labels_out.write_bytes(before)
    work.disambiguate()
    assert work.labels_out.read_bytes() == shown


def test_a_table_that_is_behind_its_evidence_is_finished_by_the_next_run(work: Workspace) -> None:
    old = work.labels_out.read_bytes()
    work.paint(50, "new.png")
    work.both()
    new = work.labels_out.read_bytes()
    work.labels_out.write_bytes(old)
    take_in(work, sheet(work, ("000.png", "cat", "yes")))
    assert len(open_table(work.labels_out)) == 8
    work.disambiguate()
    assert len(open_table(work.labels_out)) == 9
    assert human_labels_of(work.labels_out, "000.png") == {"cat": "yes"}
    assert new != work.labels_out.read_bytes()


def test_a_table_without_evidence_or_in_use_is_refused(work: Workspace) -> None:
    said = sheet(work, ("000.png", "cat", "yes"))
    with Evidence(evidence_of(work.labels_out)), pytest.raises(TableError, match="another tagllm is writing"):
        take_in(work, said)
    evidence_of(work.labels_out).unlink()
    with pytest.raises(TableError, match="its evidence l\\.evidence is not"):
        take_in(work, said)


def test_the_table_itself_is_no_file_of_decisions(work: Workspace) -> None:
    for path, words in ((work.labels_out, "the table itself"), (work.out, "is a Parquet file")):
        with pytest.raises(UsageError, match=words):
            take_in(work, path)
