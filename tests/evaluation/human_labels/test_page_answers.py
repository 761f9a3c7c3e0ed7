"""What was decided on our own pages, read from whole, damaged, foreign and edited files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.human_labels.base import HumanLabels, Statement
from tagllm_cli.evaluation.human_labels.readers import page_answers
from tagllm_cli.evaluation.truth.base import TableContext, TruthFile
from tagllm_cli.records import digest16
from tests.evaluation.audit.folder import audited
from tests.evaluation.review.tables import NAMES, vocabulary

DIGEST = digest16("\n".join(NAMES).encode()).hex()
IMAGES = ("a/1.png", "a/2.png")
LINES = [
    {"image": "a/1.png", "label": "cat", "decision": "yes", "when": "2026-03-01T10:00:00.250Z"},
    {"image": "a/1.png", "label": "=cup", "decision": "unknown", "when": "2026-03-01T10:00:01+02:00"},
    {"image": "a/2.png", "label": "cat", "decision": "withdrawn", "when": "1969-12-31T23:59:59.999999Z"},
]


def head(**changed: Any) -> dict[str, Any]:
    """Return the line about the page."""
    table = {"name": "labels.parquet", "images": 2, "vocabulary": DIGEST}
    return {"tagllm_review": 1, "page": "0a", "table": table, "tool": "0.2.0", "decisions": len(LINES), **changed}


def file(path: Path, *lines: Any, end: str = "\n", names: tuple[str, ...] = NAMES) -> TruthFile:
    """Write lines of JSON (or text), and return the file as it is read for a table."""
    said = [
        line if isinstance(line, str) else json.dumps({"who": "Ann", "fingerprint": "ab" * 16, **line})
        for line in lines
    ]
    path.write_text("\n".join(said) + end, encoding="utf-8")
    return TruthFile(path, table=TableContext(IMAGES, vocabulary(names)))


def read(path: Path, *lines: Any, **options: Any) -> HumanLabels:
    found = file(path, *lines, **options)
    assert page_answers.REVIEW.recognizes(found)
    assert not page_answers.AUDIT.recognizes(found)
    return page_answers.REVIEW.read(found)


def test_every_decision_is_read_with_who_and_when(tmp_path: Path) -> None:
    found = read(tmp_path / "decisions.jsonl", head(), *LINES)
    print_ = "ab" * 16
    assert list(found.statements) == [
        Statement("a/1.png", "cat", "yes", "Ann", 1772359200_250000, print_),
        Statement("a/1.png", "=cup", "unknown", "Ann", 1772352001_000000, print_),
        Statement("a/2.png", "cat", "withdrawn", "Ann", -1, print_),
    ]
    assert (found.is_explicit, found.checked, found.warnings) == (True, (), ())


def test_files_of_several_pages_may_stand_one_after_the_other(tmp_path: Path) -> None:
    lines = [head(decisions=1), LINES[0], head(decisions=2, page="1b"), *LINES[1:]]
    assert len(read(tmp_path / "both.jsonl", *lines).statements) == 3


def test_a_page_of_other_labels_is_read_by_name_with_a_warning(tmp_path: Path) -> None:
    (warning,) = read(tmp_path / "a.jsonl", head(), *LINES, names=("cat", "cow")).warnings
    assert "other labels (labels.parquet)" in warning


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([head(), *LINES[:2]], "it is cut off: 2 of 3 decisions are there"),
        ([head(), *LINES[:2], '{"image": "a/2.png", "la'], "it is cut off: 2 of 3 decisions"),
        ([head()], "it is cut off: 0 of 3"),
        ([head(), LINES[0], head(), *LINES], "it is cut off: 1 of 3"),
        ([head(decisions=0)], "it has no decision"),
        ([head(decisions=2), *LINES], "line 4: there are more decisions"),
        ([head(tagllm_review=2), *LINES], "line 1: it is of version 2 of the page"),
        ([head(tagllm_review="x"), *LINES], "line 1: no page has the version 'x'"),
        ([head(table="labels"), *LINES], "line 1: it does not say of which page it is"),
        ([head(), LINES[0], "{]", LINES[1]], "line 3: not JSON"),
        ([head(decisions=1), {**LINES[0], "decision": "maybe"}], "line 2: 'maybe' is no decision"),
        ([head(decisions=1), {**LINES[0], "label": 3}], "line 2: a decision needs texts"),
        ([head(decisions=1), {**LINES[0], "when": "yesterday"}], "line 2: its time or its fingerprint is none"),
        ([head(decisions=1), {**LINES[0], "fingerprint": "xyz"}], "line 2: its time or its fingerprint is none"),
        ([head(decisions=1), "[1]"], "line 2: this is no decision"),
        ([head(decisions=1), {**LINES[0], "image": "other/9.png"}], "it is about another table (labels.parquet)"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(tmp_path: Path, lines: list[Any], message: str) -> None:
    end = "" if isinstance(lines[-1], str) and lines[-1].endswith("la") else "\n"
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "decisions.jsonl", *lines, end=end)
    assert message in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_cut_off_is_taken_when_its_first_line_says_so(tmp_path: Path) -> None:
    found = read(tmp_path / "a.jsonl", head(decisions=2), *LINES[:2], '{"image": "a/2.', end="")
    assert len(found.statements) == 2


@pytest.mark.parametrize("text", ["", "[]", '{"images": []}', "image,label\na,b\n", '{"image": "a", "label": "cat"}\n'])
def test_other_files_are_not_taken_for_a_page(tmp_path: Path, text: str) -> None:
    (tmp_path / "other").write_text(text)
    assert not page_answers.REVIEW.recognizes(TruthFile(tmp_path / "other"))
    assert not page_answers.AUDIT.recognizes(TruthFile(tmp_path / "other"))
    assert not page_answers.REVIEW.recognizes(TruthFile(tmp_path))
    assert not page_answers.AUDIT.recognizes(TruthFile(tmp_path))


def german(lines: list[dict[str, str]]) -> list[dict[str, str]]:
    for line in lines[:3]:
        line["answer"] = {"yes": "ja", "no": "Nein", "unsure": "unsicher"}[line["answer"]]
    return lines


@pytest.mark.parametrize("changed", [lambda lines: lines, german])
@pytest.mark.parametrize("has_design", [True, False])
def test_answers_of_an_audit_are_read_with_and_without_its_design(
    tmp_path: Path, changed: Callable[[list[dict[str, str]]], list[dict[str, str]]], has_design: bool
) -> None:
    some = audited(tmp_path, size=20)
    some.answer(said=lambda place, there: "unsure" if place == 2 else "" if place == 5 else "yes" if there else "no")
    lines = some.lines()
    path = some.write(changed(some.lines()), "answers.csv")
    if not has_design:
        (some.audit / "audit.json").unlink()
    assert page_answers.AUDIT.recognizes(TruthFile(path))
    found = page_answers.AUDIT.read(TruthFile(path))
    expected = [
        (line["image"].removeprefix("'"), line["label"].removeprefix("'"), line["answer"].replace("unsure", "unknown"))
        for line in lines
        if line["answer"]
    ]
    assert [(each.image, each.label, each.decision) for each in found.statements] == expected
    assert all((each.who, each.when) == ("", None) for each in found.statements)
    assert len(expected) == 19


def test_an_audit_without_answers_or_without_names_is_refused(tmp_path: Path) -> None:
    some = audited(tmp_path, size=20)
    (some.audit / "audit.json").unlink()
    with pytest.raises(UsageError, match="none of its pairs is answered"):
        page_answers.AUDIT.read(TruthFile(some.audit / "audit.csv"))
    (tmp_path / "pairs.csv").write_text("pair,answer\nbcdfghjk,yes\n")
    with pytest.raises(UsageError, match="names its pairs by letters"):
        page_answers.AUDIT.read(TruthFile(tmp_path / "pairs.csv"))
