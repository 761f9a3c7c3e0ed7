"""Datumaro's JSON: annotations of people and of a model, in subsets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.human_labels.base import CheckedImage
from tagllm_cli.evaluation.human_labels.registry import read_human_labels
from tests.evaluation.human_labels.reading import by_image, read


def subset(*items: dict[str, Any], labels: tuple[str, ...] = ("cat", "dog")) -> dict[str, Any]:
    listed = [{"name": name, "parent": "", "attributes": []} for name in labels]
    categories = {"label": {"labels": listed, "label_groups": [], "attributes": ["occluded"]}, "mask": {"colormap": []}}
    return {"dm_format_version": "1.0", "media_type": 2, "infos": {}, "categories": categories, "items": [*items]}


def item(identity: str, *annotations: dict[str, Any], path: str | None = None, **attributes: Any) -> dict[str, Any]:
    image = {"image": {"path": path}} if path else {}
    return {"id": identity, "annotations": [*annotations], "attr": attributes, **image}


def said(label: Any, kind: str = "label", **attributes: Any) -> dict[str, Any]:
    return {"id": 0, "type": kind, "attributes": attributes, "group": 0, "label_id": label}


def test_an_annotation_without_score_is_a_persons(tmp_path: Path) -> None:
    annotations = (said(0), said(1, score=0.5), said(1, "bbox"), {"id": 3, "type": "caption", "caption": "a cat"})
    found = read(tmp_path, subset(item("a/one", *annotations, path="one.jpg"), item("b/three", path="three.png")))
    assert by_image(found.statements) == {"a/one.jpg": {"cat": "yes", "dog": "yes"}}
    assert (found.kept, found.names) == ([], ("cat", "dog"))
    assert found.checked == [CheckedImage("a/one.jpg"), CheckedImage("b/three.png")]


def test_the_attribute_decision_decides(tmp_path: Path) -> None:
    annotations = (said(0, score=0.9, decision="no"), said(1, score=0.5))
    found = read(tmp_path, subset(item("x", *annotations, image_id="a/one.jpg", fingerprint="ab", unknown=["cow"])))
    assert by_image(found.statements) == {"a/one.jpg": {"cat": "no"}}
    assert by_image(found.kept) == {"a/one.jpg": {"cow": "unknown", "dog": "yes"}}
    assert found.checked == [CheckedImage("a/one.jpg", fingerprint="ab")]


def test_subsets_are_read_together_each_with_its_own_labels(tmp_path: Path) -> None:
    read(tmp_path, subset(item("a/one", said(0), path="one.jpg")), "dataset/annotations/train.json")
    content = subset(item("a/two", said(0), path="two.jpg"), labels=("dog", "cat"))
    read(tmp_path, content, "dataset/annotations/val.json")
    found = read_human_labels(tmp_path / "dataset")
    assert by_image(found.statements) == {"a/one.jpg": {"cat": "yes"}, "a/two.jpg": {"dog": "yes"}}


def test_a_dataset_that_nobody_touched_says_so(tmp_path: Path) -> None:
    found = read(tmp_path, subset(item("a/one", said(0, score=0.5))))
    assert found.warnings == ("nobody has set or changed an annotation in this file",)


@pytest.mark.parametrize(
    "broken", [subset({"annotations": []}), subset(item("a", said(2))), subset(item("a", said("x")))]
)
def test_damaged_files_are_refused(tmp_path: Path, broken: Any) -> None:
    with pytest.raises(UsageError, match="file: an item") as error:
        read(tmp_path, broken)
    assert error.value.hint


def test_a_list_of_labels_that_is_none_is_refused(tmp_path: Path) -> None:
    broken = subset(item("a"))
    broken["categories"]["label"]["labels"] = ["cat"]
    with pytest.raises(UsageError, match="the labels of this Datumaro file") as error:
        read(tmp_path, broken)
    assert error.value.hint
