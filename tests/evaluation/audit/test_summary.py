"""`evaluate --audit`: answers are facts about pairs, decisions those of the table that is given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.audit.create import create_audit
from tagllm_cli.evaluation.audit.summary import AuditEvaluation, evaluate_audit
from tagllm_cli.records import Decision, LabelEntry, Row
from tagllm_cli.text import undefused
from tests.evaluation.audit.folder import NAMES, Audited, audited, without


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    return audited(tmp_path_factory.mktemp("made"), size=10_000)


@pytest.fixture
def whole(made: Audited, tmp_path: Path) -> Audited:
    """An audit of every pair, answered."""
    found = made.copied(tmp_path)
    found.answer()
    return found


def figures(found: AuditEvaluation) -> list[float]:
    return [found.figures[name].value or 0.0 for name in ("op", "or", "of1")]


def exact(some: Audited, rows: list[Row]) -> list[float]:
    said = {(row.image_id, each.name) for row in rows for each in row.labels or () if each.decision == Decision.YES}
    true = {(image, name) for image, names in some.true.items() for name in names}
    hits = len(said & true)
    return [hits / len(said), hits / len(true), 2 * hits / (len(said) + len(true))]


def test_all_pairs_answered_give_the_figures_of_the_table(whole: Audited) -> None:
    found = evaluate_audit(whole.table, whole.audit)
    assert figures(found) == pytest.approx(exact(whole, whole.rows))
    assert found.figures["mean_true"].value == pytest.approx(sum(map(len, whole.true.values())) / len(whole.true))
    assert (found.yes + found.no, found.unsure, found.warnings, found.notes) == (240, 0, (), [])


def test_a_table_that_was_labeled_anew_is_measured_by_its_own_decisions(whole: Audited) -> None:
    def later(row: Row) -> Row:
        kept = [
            replace(each, decision=Decision.NO if each.name == "cat" else Decision.YES) for each in row.labels or ()
        ]
        return replace(row, labels=tuple(kept[1:] if row.image_id > "a/03" else kept))

    rows = [later(row) for row in whole.rows]
    found = evaluate_audit(whole.write_table(rows), whole.audit)
    assert figures(found) == pytest.approx(exact(whole, rows))
    assert found.warnings == ()


def test_unsure_pairs_are_left_out_and_bounded(whole: Audited) -> None:
    whole.answer(said=lambda place, there: "unsure" if place % 10 == 0 else "yes" if there else "no")
    found = evaluate_audit(whole.table, whole.audit)
    assert (found.unsure, found.yes + found.no) == (24, 216)
    for name, true in zip(("op", "or", "of1"), exact(whole, whole.rows), strict=True):
        low, high = found.bounds[name]
        assert low <= true <= high
        assert low <= (found.figures[name].value or 0) <= high
    assert "if unsure" in found.overall()[0]


def test_bounds_hold_the_estimate_where_a_group_is_mostly_unsure(whole: Audited) -> None:
    said = {(row.image_id, each.name): each.decision for row in whole.rows for each in row.labels or ()}
    seen = 0

    def answer(line: dict[str, str]) -> str:
        nonlocal seen
        pair = undefused(line["image"]), undefused(line["label"])
        if said.get(pair) == Decision.NO:
            seen += 1
            return "yes" if seen <= 4 else "unsure" if seen <= 8 else ""
        return "yes" if pair in said else "no"

    lines = whole.lines()
    for line in lines:
        line["answer"] = answer(line)
    found = evaluate_audit(whole.table, whole.write(lines))
    assert found.unsure == 4
    for name, (low, high) in found.bounds.items():
        assert low <= (found.figures[name].value or 0) <= high, name


def test_json_has_plain_values_under_stable_keys(whole: Audited) -> None:
    value = evaluate_audit(whole.table, whole.audit / "audit.csv").to_json()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert list(value["of1"]) == ["value", "low", "high", "more_answers", "if_unsure"]
    assert [label["name"] for label in value["labels"]] == list(NAMES)


def test_what_the_table_no_longer_has_is_counted(whole: Audited) -> None:
    names = tuple(name for name in NAMES if name != "cat")
    rows = [
        replace(row, labels=tuple(each for each in row.labels or () if each.name != "cat"))
        for row in without(whole.rows, every=3)[10:]
    ]
    found = evaluate_audit(whole.write_table(rows, (*names, "zebra")), whole.audit)
    assert "labels that the audit did not have, left out: zebra" in found.warnings
    assert "labels of the audit that the table no longer has, left out: cat" in found.warnings
    assert any("drawn from 60 answered images, and the table has 34" in each for each in found.warnings)
    assert f"answers about images or labels that the table no longer has, left out: {240 - 34 * 3}" in found.warnings
    assert "images without an answer, which the figures leave out: 16" in found.warnings
    assert [label.name for label in found.labels] == list(names)


def test_images_that_came_later_make_the_figures_uncertain_and_are_told(whole: Audited) -> None:
    more = [replace(row, image_id=f"later/{row.image_id}", uri=f"later/{row.image_id}") for row in whole.rows]
    found = evaluate_audit(whole.write_table([*whole.rows, *more]), whole.audit)
    assert figures(found) == pytest.approx(exact(whole, whole.rows))
    assert any("drawn from 60 answered images, and the table has 120" in each for each in found.warnings)
    for name, figure in zip(("op", "or", "of1"), figures(found), strict=True):
        # The answers are half of all pairs: as good as a sample of 240 without replacement.
        low, high = found.figures[name].low or 0, found.figures[name].high or 0
        assert low < figure - 0.01 < figure + 0.01 < high


def test_what_people_decided_since_is_left_out(whole: Audited) -> None:
    rows = [
        replace(row, labels=(LabelEntry("cat", Decision.YES, score=1.0, source="human"),)) if place < 5 else row
        for place, row in enumerate(whole.rows)
    ]
    found = evaluate_audit(whole.write_table(rows), whole.audit)
    assert found.human == 5
    assert "answers about labels that people have decided since, left out: 5" in found.warnings
    assert found.yes + found.no == 235


def test_another_table_another_vocabulary_and_another_stage_are_refused(whole: Audited) -> None:
    others = [replace(row, image_id=f"other/{place}", uri="x") for place, row in enumerate(whole.rows)]
    with pytest.raises(UsageError, match="has no image of the audit"):
        evaluate_audit(whole.write_table(others), whole.audit)
    strange = [replace(row, labels=()) for row in whole.rows]
    with pytest.raises(UsageError, match="has no label of the audit"):
        evaluate_audit(whole.write_table(strange, ("okapi", "zebra")), whole.audit)
    candidates = [
        replace(
            row, labels=tuple(replace(each, decision=None, probability=None, mass=None) for each in row.labels or ())
        )
        for row in whole.rows
    ]
    with pytest.raises(UsageError, match="is a table of candidates, and the audit is of labels"):
        evaluate_audit(whole.write_table(candidates, stage="candidates"), whole.audit)


def test_a_candidate_table_is_measured_by_what_was_proposed(whole: Audited) -> None:
    rows = [
        replace(
            row, labels=tuple(replace(each, decision=None, probability=None, mass=None) for each in row.labels or ())
        )
        for row in whole.rows
    ]
    table = whole.write_table(rows, stage="candidates")
    folder = whole.audit.with_name("of candidates")
    create_audit(table, folder, size=10_000)
    found = evaluate_audit(table, replace(whole, audit=folder).answer())
    listed = {(row.image_id, each.name) for row in rows for each in row.labels or ()}
    true = {(image, name) for image, names in whole.true.items() for name in names}
    assert found.figures["or"].value == pytest.approx(len(listed & true) / len(true))


def test_answers_without_their_design_are_refused(whole: Audited, tmp_path: Path) -> None:
    moved = tmp_path / "answers.csv"
    moved.write_bytes((whole.audit / "audit.csv").read_bytes())
    with pytest.raises(UsageError, match=r"audit\.json cannot be read") as caught:
        evaluate_audit(whole.table, moved)
    assert "into the folder of `audit`" in caught.value.hint
    with pytest.raises(UsageError, match="there is no file"):
        evaluate_audit(whole.table, tmp_path / "nothing.csv")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 1, "pairs": []}', "\x00"])
def test_a_design_that_makes_no_sense_is_refused(whole: Audited, content: str) -> None:
    (whole.audit / "audit.json").write_text(content)
    with pytest.raises(UsageError, match="is no design of an audit"):
        evaluate_audit(whole.table, whole.audit)
