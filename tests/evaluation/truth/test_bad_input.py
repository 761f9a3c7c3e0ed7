"""Truths that do not fit or say little: refused with advice, or counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tagllm_cli.errors import UsageError
from tests.evaluation.truth.reading import read


@pytest.mark.parametrize("content", ["", " \n\n", "\ufeff"])
@pytest.mark.parametrize("name", ["truth.csv", "truth.json"])
def test_an_empty_file_is_called_empty(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(UsageError, match=r"the truth .*truth\.\w+ is empty"):
        read(tmp_path, content, name)


def test_a_truth_without_any_label_is_read_with_a_warning(tmp_path: Path) -> None:
    found = read(tmp_path, "image,cat,dog\na/one.jpg,0,0\na/two.jpg,0,0\n")
    assert found.labels == {"a/one.jpg": set(), "a/two.jpg": set()}
    assert found.warnings == ("no image of the truth has a label: nothing can be found",)


def test_lines_that_say_the_same_count_once_and_are_counted(tmp_path: Path) -> None:
    found = read(tmp_path, "image,label\na/one.jpg,cat\na/one.jpg,dog\na/one.jpg,cat\na/two.jpg,cat\na/one.jpg,cat\n")
    assert found.labels == {"a/one.jpg": {"cat", "dog"}, "a/two.jpg": {"cat"}}
    assert "lines that repeat an image and its label, which count once: 2" in found.notes
    assert not found.warnings


COCO = {
    "images": [{"id": 1, "file_name": "a/one.jpg"}, {"id": 2, "file_name": "a/one.jpg"}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 2}],
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("truth.csv", "image,labels\na/one.jpg,cat|dog\na/one.jpg,cat\n"),
        ("truth.csv", "image,cat,dog\na/one.jpg,1,\na/one.jpg,,1\n"),
        (
            "truth.jsonl",
            '{"file_name": "a/one.jpg", "labels": ["cat"]}\n{"file_name": "a/one.jpg", "labels": ["dog"]}\n',
        ),
        ("truth.json", json.dumps(COCO)),
    ],
)
def test_an_image_that_is_there_twice_has_the_labels_of_both_and_is_counted(
    tmp_path: Path, name: str, content: str
) -> None:
    found = read(tmp_path, content, name)
    assert found.labels == {"a/one.jpg": {"cat", "dog"}}
    assert found.warnings == ("images that are there more than once, and whose labels are united: 1",)


@pytest.mark.parametrize(
    "text",
    [
        'image,label\n"a/one.jpg",cat\n"a/one.jpg"x,dog\n',
        'image,label\n""x,cat\na/two.jpg,dog\n',
        'image,label\na/one.jpg,"cat\n',
    ],
)
def test_quotes_that_arrow_would_take_lightly_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="neither JSON, Parquet nor a text"):
        read(tmp_path, text)


def test_quotes_inside_of_cells_are_read(tmp_path: Path) -> None:
    text = 'image,label\na/one.jpg,"hot\tdog"\n"a/""two"".jpg",cat\na 5" b.jpg,dog\n'
    assert read(tmp_path, text).labels == {"a/one.jpg": {"hot\tdog"}, 'a/"two".jpg': {"cat"}, 'a 5" b.jpg': {"dog"}}
