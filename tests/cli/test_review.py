"""`tagllm review` as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.review.tables import decided, entry, painted, row, save
from tests.support.command_line import check_error, one_object, tagllm


def test_the_page_is_written_and_what_comes_next_is_said(tmp_path: Path) -> None:
    path, _ = painted(tmp_path)
    out = tmp_path / "review.html"
    found = tagllm(f"review {path} --out {out} --limit 20")
    assert found.exit_code == 0, found.output
    assert f"{out}: 20 pairs of image and label of " in found.stdout
    assert f"next: tagllm import {path} decisions.jsonl" in found.stdout
    value = one_object(tagllm(f"review {path} --out {out} --labels dog,cat --json").stdout)
    assert (value["labels"], value["without_picture"], value["bytes"]) == (2, 0, out.stat().st_size)
    assert value["pairs"] == value["possible"] < 60  # of two labels, in 30 images


def test_pictures_that_are_gone_are_counted(tmp_path: Path) -> None:
    path, _ = painted(tmp_path)
    (tmp_path / "images").rename(tmp_path / "moved")
    found = tagllm(f"review {path} --out {tmp_path / 'a.html'}")
    assert (found.exit_code, "images without a picture on the page: 30" in found.stderr) == (0, True)
    found = tagllm(f"review {path} --out {tmp_path / 'a.html'} --root {tmp_path / 'moved'}")
    assert (found.exit_code, found.stderr) == (0, "")


def test_what_people_decided_is_counted(tmp_path: Path) -> None:
    path, rows = painted(tmp_path)
    save(path, decided(rows, "cat"))
    found = tagllm(f"review {path} --out {tmp_path / 'a.html'}")
    assert "pairs that people decided before, left out: " in found.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--out a.html --labels cow", "names that are no labels of the table: cow"),
        ("--out a.html --second other.parquet", "other.parquet has no image or no label of the table"),
        ("--out notes.html", "notes.html holds something else"),
        ("--out a.html --second empty.parquet", "there is no table at empty.parquet"),
        ("--out a.html --labels cat", "people decided all 1 pairs of labels.parquet that could be asked about"),
        ("--out a.html --truth truth.csv --human-only", "--human-only is about a table with decisions"),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("labels.parquet"), decided([row("a.png", entry("cat", 0.5))], "cat"))
    save(Path("other.parquet"), [row("b.png", entry("cat", 0.5))])
    Path("notes.html").write_text("my notes")
    Path("truth.csv").write_text("image,label\na.png,cat\n")
    check_error(f"review labels.parquet {options}", message, None)


def test_a_table_without_answers_has_nothing_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("labels.parquet"), [row("a.png")])
    check_error("review labels.parquet --out a.html", "has no pair of image and label to ask about", None)
