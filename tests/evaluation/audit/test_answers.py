"""Answers as people and spreadsheets leave them: read, or refused with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.audit.answers import Answers, read_answers
from tagllm_cli.evaluation.audit.design import load_design
from tests.evaluation.audit.folder import Audited, audited


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    return audited(tmp_path_factory.mktemp("made"))


@pytest.fixture
def some(made: Audited, tmp_path: Path) -> Audited:
    """An audit of 60 pairs."""
    return made.copied(tmp_path)


def read(some: Audited, path: Path) -> Answers:
    return read_answers(path, load_design(some.audit))


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        *((word, True) for word in ("yes", "Y", "1", "1.0", "true", "TRUE", "ja", "WAHR", "x", " yes ", "oui", "Sí")),
        *((word, False) for word in ("no", "N", "0", "false", "nein", "FALSCH", "non", "No.")),
        *((word, None) for word in ("unsure", "?", "u", "maybe", "unknown", "-1")),
    ],
)
def test_common_words_are_understood(some: Audited, word: str, answer: bool | None) -> None:
    found = read(some, some.answer(said=lambda place, there: word))
    assert set(found.given.values()) == {answer}
    assert len(found.given) == 60
    assert found.warnings == []


def test_another_word_is_refused_with_its_line(some: Audited) -> None:
    path = some.answer(said=lambda place, there: "cat?" if place == 4 else "no")
    with pytest.raises(UsageError, match=r"line 6: 'cat\?' in column 'answer' is no answer") as caught:
        read(some, path)
    assert "yes, no or unsure" in caught.value.hint


def test_half_a_file_is_half_an_audit(some: Audited) -> None:
    assert len(read(some, some.answer(said=lambda place, there: "yes" if place < 30 else "")).given) == 30
    lines = [{**line, "answer": ""} for line in some.lines()]
    found = read(some, some.write([*lines[:20], {**lines[20], "answer": "y"}]))
    assert (len(found.given), found.missing) == (1, 39)
    assert found.warnings == ["pairs of the audit that have no line, counted as not answered: 39"]


@pytest.mark.parametrize("said", ["", "nan", "-"])
def test_a_file_without_any_answer_is_refused(some: Audited, said: str) -> None:
    with pytest.raises(UsageError, match="none of 60 pairs is answered"):
        read(some, some.answer(said=lambda place, there: said))


def test_a_file_of_a_header_only_is_refused(some: Audited) -> None:
    path = some.audit / "audit.csv"
    path.write_text("pair,image,label,answer\n")
    with pytest.raises(UsageError, match="no line below the header"):
        read(some, path)


def test_a_pair_twice_counts_once_and_two_answers_count_as_none(some: Audited) -> None:
    lines = [{**line, "answer": "yes"} for line in some.lines()]
    found = read(some, some.write([*lines, lines[0], lines[0], {**lines[1], "answer": "no"}]))
    assert len(found.given) == 59
    assert found.conflicting == (lines[1]["pair"],)
    assert found.warnings == [
        "lines that repeat another one: 2",
        f"pairs answered in two ways, counted as not answered: 1 ({lines[1]['pair']})",
    ]


def test_lines_of_another_audit_are_counted_and_a_whole_file_of_them_is_refused(some: Audited, tmp_path: Path) -> None:
    other = audited(tmp_path / "other", size=61)
    foreign = [{**line, "answer": "yes"} for line in other.lines()]
    found = read(some, some.write([*foreign[:5], *({**line, "answer": "no"} for line in some.lines())]))
    assert (found.foreign, len(found.given)) == (5, 60)
    with pytest.raises(UsageError, match="none of its lines is of a pair of this audit"):
        read(some, some.write(foreign))


def test_image_and_label_name_a_pair_where_the_column_pair_is_gone(some: Audited) -> None:
    whole = read(some, some.answer())
    lines = [{key: line[key] for key in ("image", "label", "answer")} for line in some.lines()]
    for line, given in zip(lines, whole.given.values(), strict=True):
        line["answer"] = "y" if given else "n"
    assert read(some, some.write(lines)).given == whole.given


def test_a_name_that_a_spreadsheet_rewrote_is_counted_and_a_column_sorted_alone_is_refused(some: Audited) -> None:
    lines = [{**line, "answer": "yes"} for line in some.lines()]
    lines[3] = {**lines[3], "image": "1/4/2026"}
    found = read(some, some.write(lines))
    assert (found.altered, len(found.given)) == (1, 60)
    images = sorted(line["image"] for line in lines)
    with pytest.raises(UsageError, match="this line has those of another pair") as caught:
        read(some, some.write([{**line, "image": image} for line, image in zip(lines, images, strict=True)]))
    assert "Sort whole lines" in caught.value.hint


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_what_excel_saves_is_read(some: Audited, encoding: str, delimiter: str) -> None:
    plain = some.answer().read_text()
    path = some.audit / "excel.csv"
    path.write_bytes(plain.replace(",", delimiter).replace("\n", "\r\n").encode(encoding))
    assert read(some, path).given == read(some, some.audit / "audit.csv").given


def test_what_excel_saves_in_the_code_page_of_its_country_is_read(some: Audited) -> None:
    lines = [{**line, "answer": "sí", "image": "Käse.jpg"} for line in some.lines()]
    text = "".join(";".join(line) + "\r\n" for line in (lines[0], *(each.values() for each in lines)))
    path = some.audit / "excel.csv"
    path.write_bytes(text.encode("cp1252"))
    found = read(some, path)
    assert (set(found.given.values()), len(found.given), found.altered) == ({True}, 60, 60)


def test_empty_cells_that_excel_leaves_out_at_the_end_of_a_line_are_not_answered(some: Audited) -> None:
    given = some.answer().read_text().splitlines()
    path = some.audit / "excel.csv"
    path.write_text("\n".join([*given[:21], *(line.rpartition(",")[0] for line in given[21:])]))
    found = read(some, path)
    assert (len(found.given), found.missing) == (20, 0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("pair,image,label\nx,y,z\n", "no column is called `answer`"),
        ("image,answer\ny,yes\n", "neither a column `pair` nor"),
        ('{"pair": 1}', "this is no CSV"),
        ("", "this is no CSV"),
    ],
)
def test_other_files_are_refused(some: Audited, content: str, said: str) -> None:
    path = some.audit / "odd.csv"
    path.write_text(content)
    with pytest.raises(UsageError, match=said):
        read(some, path)
