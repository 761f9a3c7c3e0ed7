"""The folder of an audit: self-contained, blind, and never written twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.audit.create import create_audit
from tagllm_cli.evaluation.audit.design import load_design
from tagllm_cli.records import Decision, LabelEntry
from tagllm_cli.store.table import open_table, write_table
from tests.evaluation.audit.folder import Audited, audited, without
from tests.support.workspace import snapshot


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    return audited(tmp_path_factory.mktemp("made"), paint=True)


@pytest.fixture
def some(made: Audited, tmp_path: Path) -> Audited:
    """An audit of 60 pairs, with pictures."""
    return made.copied(tmp_path)


def test_an_audit_is_a_page_a_csv_and_a_design(some: Audited) -> None:
    assert sorted(path.name for path in some.audit.iterdir()) == ["audit.csv", "audit.html", "audit.json"]
    design = load_design(some.audit)
    assert [line["pair"] for line in some.lines()] == [pair.id for pair in design.pairs]
    assert {line["answer"] for line in some.lines()} == {""}
    assert sum(stratum.pairs for stratum in design.strata) == 240
    assert sum(stratum.drawn for stratum in design.strata) == len({pair.id for pair in design.pairs}) == 60
    for pair in design.pairs:
        stratum = design.strata[pair.stratum]
        assert pair.label == stratum.label
        assert pair.probability == pytest.approx(stratum.expected / stratum.pairs, abs=1e-6)


def test_no_spreadsheet_takes_a_name_for_a_formula(some: Audited) -> None:
    names = {line[column] for line in some.lines() for column in ("image", "label")}
    assert any(name.startswith("'=") for name in names)
    assert not any(name.startswith(("=", "+", "-", "@")) for name in names)


def test_neither_page_nor_csv_says_what_the_model_said(some: Audited) -> None:
    page = (some.audit / "audit.html").read_text(encoding="utf-8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert set(data) == {"id", "images", "labels", "pairs"}
    assert all(len(pair) == 3 for pair in data["pairs"])
    assert "probability" not in page
    assert list(some.lines()[0]) == ["pair", "image", "label", "answer"]


def test_the_same_command_again_leaves_everything_as_it_is(some: Audited) -> None:
    some.answer(said=lambda place, there: "yes" if place < 7 else "")
    before = snapshot(some.audit)
    again = create_audit(some.table, some.audit, size=60)
    assert (again.existed, again.answered) == (True, 7)
    assert "holds this audit already" in again.lines()[0]
    assert snapshot(some.audit) == before


@pytest.mark.parametrize(("size", "seed"), [(61, 0), (60, 1)])
def test_another_audit_never_replaces_one(some: Audited, size: int, seed: int) -> None:
    before = snapshot(some.audit)
    with pytest.raises(UsageError, match="holds another audit"):
        create_audit(some.table, some.audit, size=size, seed=seed)
    with pytest.raises(UsageError, match="holds another audit"):
        create_audit(some.write_table(without(some.rows)), some.audit, size=60)
    assert snapshot(some.audit) == before


def test_a_place_that_takes_no_folder_is_refused_before_the_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out, said in ((Path("s3://bucket/audit"), "is a URL"), (tmp_path / "file" / "audit", "it is not a folder")):
        with pytest.raises(UsageError, match=said):
            create_audit(tmp_path / "nowhere.parquet", out, size=60)


def test_a_folder_with_anything_else_is_refused(some: Audited, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError):
        create_audit(some.table, tmp_path / "full", size=5)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    assert not create_audit(some.table, tmp_path / "empty", size=5).existed


def test_the_same_table_seed_and_size_give_the_same_files(some: Audited, tmp_path: Path) -> None:
    create_audit(some.table, tmp_path / "again", size=60)
    assert snapshot(tmp_path / "again") == snapshot(some.audit)


def test_failed_images_are_not_asked_about_and_a_table_of_failures_is_refused(some: Audited, tmp_path: Path) -> None:
    table = some.write_table(without(some.rows, every=2))
    found = create_audit(table, tmp_path / "half", size=10_000)
    assert "images without an answer, of which no pair is drawn: 30" in found.warnings
    asked = {pair.image for pair in load_design(tmp_path / "half").pairs}
    assert asked == {row.image_id for row in some.rows[1::2]}
    with pytest.raises(UsageError, match="no answered image"):
        create_audit(some.write_table(without(some.rows, every=1)), tmp_path / "none", size=5)


def test_images_that_are_gone_are_counted(some: Audited, tmp_path: Path) -> None:
    info = open_table(some.table).info
    gone = tmp_path / "gone.parquet"
    write_table(gone, replace(info, source=replace(info.source, uri=str(tmp_path / "nothing"))), some.rows)
    found = create_audit(gone, tmp_path / "blind", size=60)
    assert found.unseen == len({pair.image for pair in found.design.pairs})
    assert "without a picture" in found.warnings[0]
    assert json.loads(json.dumps(found.to_json()))["without_picture"] == found.unseen


def test_cards_are_shown_and_a_card_file_replaces_them(some: Audited, tmp_path: Path) -> None:
    assert "a domestic dog, not a wolf" in (some.audit / "audit.html").read_text(encoding="utf-8")
    (tmp_path / "cards.yaml").write_text("cards:\n- {name: dog, description: any canine}\n")
    create_audit(some.table, tmp_path / "carded", size=60, concepts=tmp_path / "cards.yaml")
    page = (tmp_path / "carded" / "audit.html").read_text(encoding="utf-8")
    assert "any canine" in page
    assert "a domestic dog" not in page


def test_names_that_are_no_unicode_are_drawn_and_estimated(some: Audited, tmp_path: Path) -> None:
    rows = [replace(row, image_id=f"a/{place} \u202e</script>.png") for place, row in enumerate(some.rows)]
    table = some.write_table(rows)
    assert create_audit(table, tmp_path / "odd", size=20).design.pairs


def test_pairs_that_people_decided_are_counted_and_not_drawn(some: Audited, tmp_path: Path) -> None:
    by_people = (LabelEntry("cat", Decision.NO, score=0.0, source="human"),)
    rows = [replace(row, labels=by_people) if place < 8 else row for place, row in enumerate(some.rows)]
    found = create_audit(some.write_table(rows), tmp_path / "rest", size=10_000)
    assert (found.human, len(found.design.pairs)) == (8, 232)
    assert "pairs that people decided, which are not drawn: 8" in found.warnings
