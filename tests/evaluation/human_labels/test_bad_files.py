"""Files that are cut off, of another tool, or nothing at all: refused in two lines, whichever reader they look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.human_labels.registry import READERS, read_human_labels
from tagllm_cli.evaluation.truth.base import TruthFile
from tests.evaluation.human_labels.reading import read
from tests.support.annotation_tools import cvat_image, cvat_tag, cvat_xml, label_studio_annotation

CHOICE = {"from_name": "labels", "to_name": "image", "type": "choices", "value": {"choices": ["cat"]}}
FILES: dict[str, Any] = {
    "label studio": json.dumps(
        [{"id": 1, "data": {"image": "a.jpg"}, "annotations": [label_studio_annotation([CHOICE])]}]
    ),
    "cvat": cvat_xml(["cat"], cvat_image(0, "a.jpg", cvat_tag("cat"))),
    "fiftyone": json.dumps({"samples": [{"filepath": "a.jpg", "t": {"_cls": "Classification", "label": "cat"}}]}),
    "datumaro": json.dumps({"categories": {"label": {"labels": [{"name": "cat"}]}}, "items": [{"id": "a"}]}),
}


@pytest.mark.parametrize("tool", FILES)
def test_a_file_that_is_cut_off_anywhere_is_refused_with_advice(tmp_path: Path, tool: str) -> None:
    text = FILES[tool]
    assert read(tmp_path, text).checked
    for end in range(1, len(text.rstrip()), max(1, len(text) // 40)):
        with pytest.raises(UsageError) as error:
            read(tmp_path, text[:end])
        assert str(tmp_path / "file") in str(error.value)


@pytest.mark.parametrize("tool", FILES)
def test_each_file_is_of_one_tool(tmp_path: Path, tool: str) -> None:
    path = tmp_path / "file"
    path.write_text(FILES[tool])
    tools = [reader for reader in READERS if reader.name in ("Label Studio", "CVAT for images", "FiftyOne", "Datumaro")]
    assert len(tools) == 4
    assert sum(reader.recognizes(TruthFile(path)) for reader in tools) == 1


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "[1, 2]",
        "null",
        '{"images": [], "annotations": []}',
        "<html></html>",
        '{"samples": 3}',
        "\0" * 99,
    ],
)
def test_what_no_tool_wrote_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError):
        read(tmp_path, content)


def test_what_is_not_there_is_refused_with_the_forms(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file") as error:
        read_human_labels(tmp_path / "no.json")
    assert "Label Studio" in error.value.hint
    with pytest.raises(UsageError, match="is a folder without"):
        read_human_labels(tmp_path)


@pytest.mark.parametrize("content", ["<!DOCTYPE html>\n<html>", "\n<HTML lang=en>"])
def test_the_page_itself_is_told_from_what_was_saved_on_it(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match="is a web page") as error:
        read(tmp_path, content)
    assert "decisions.jsonl" in error.value.hint


def test_a_folder_of_splits_is_refused_with_the_folders_to_name(tmp_path: Path) -> None:
    for split in ("train", "val"):
        read(tmp_path, '{"file_name": "one.jpg", "labels": ["cat"]}\n', f"dataset/{split}/metadata.jsonl")
    with pytest.raises(UsageError, match="in the folders of its splits") as error:
        read_human_labels(tmp_path / "dataset")
    assert error.value.hint == f"Name them: {tmp_path}/dataset/train {tmp_path}/dataset/val"
