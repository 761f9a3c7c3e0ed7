"""COCO and LVIS, Label Studio, JSON Lines and other JSON with an object per image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.truth import load_truth
from tests.evaluation.truth.reading import EXPECTED, read

COCO: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "val/1.jpg"},
        {"id": 2, "file_name": "val/2.jpg"},
        {"id": 3, "file_name": "val/3.jpg"},
    ],
    "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 9, "name": "boat"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "iscrowd": 0, "segmentation": [[0.5, 1.5, 2.5]]},
        {"id": 2, "image_id": 1, "category_id": 3, "iscrowd": 0},
        {"id": 3, "image_id": 2, "category_id": 7, "iscrowd": 1, "segmentation": {"counts": [1, 2], "size": [1, 3]}},
        {"id": 4, "image_id": 2, "category_id": 3, "iscrowd": 0},
    ],
}
COCO_LABELS = {"val/1.jpg": {"cat"}, "val/2.jpg": {"cat", "dog"}, "val/3.jpg": set[str]()}


def lines(*records: Any) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_coco_counts_crowds_as_present_and_images_without_annotations_as_negatives(
    tmp_path: Path, encoding: str
) -> None:
    found = read(tmp_path, json.dumps(COCO).encode(encoding), "instances.json")
    assert found.labels == COCO_LABELS
    assert found.names == ("dog", "cat", "boat")
    assert (found.exhaustive, found.absent, found.warnings) == (True, None, ())


def test_coco_without_file_names_is_keyed_by_number(tmp_path: Path) -> None:
    images = [{"id": image["id"]} for image in COCO["images"]]
    assert set(read(tmp_path, {**COCO, "images": images}).labels) == {"1", "2", "3"}


def test_annotations_that_a_subset_leaves_over_are_counted(tmp_path: Path) -> None:
    found = read(tmp_path, {**COCO, "images": COCO["images"][:1], "categories": COCO["categories"][1:]})
    assert found.labels == {"val/1.jpg": {"cat"}}
    assert found.warnings == ("annotations about images that the file does not list, left out: 2 (id 2)",)
    found = read(tmp_path, {**COCO, "categories": COCO["categories"][1:]})
    assert found.warnings == ("annotations about categories that the file does not list, left out: 1 (id 7)",)


def test_ids_that_are_written_alike_are_equal(tmp_path: Path) -> None:
    images = [{**image, "id": str(image["id"])} for image in COCO["images"]]
    found = read(tmp_path, {**COCO, "images": images})
    assert (found.labels, found.warnings) == (COCO_LABELS, ())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"annotations": [{"image_id": 1, "caption": "a cat"}]}, "category_id"),
        ({"annotations": [{"image_id": 99, "category_id": 3}]}, "there is no image '99'"),
        ({"annotations": [{"image_id": 1, "category_id": 99}]}, "there is no category '99'"),
        ({"annotations": None}, "COCO"),
        ({"images": [1, 2]}, "COCO"),
        ({"images": [], "annotations": []}, "any image"),
        ({"categories": [{"id": 3}]}, "name"),
    ],
)
def test_malformed_coco_is_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(tmp_path, {**COCO, **change}, "instances.json")


def test_a_coco_result_file_is_no_truth(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without images and category names"):
        read(tmp_path, COCO["annotations"], "results.json")


def test_lvis_judges_only_what_was_looked_for(tmp_path: Path) -> None:
    url = "http://images.cocodataset.org/train2017/{}.jpg"
    images = [
        {"id": 1, "coco_url": url.format(1), "neg_category_ids": [7], "not_exhaustive_category_ids": [3]},
        {"id": 2, "coco_url": url.format(2), "neg_category_ids": [], "not_exhaustive_category_ids": [9]},
    ]
    found = read(tmp_path, {**COCO, "images": images})
    assert found.labels == {"train2017/1.jpg": {"cat"}, "train2017/2.jpg": {"cat", "dog"}}
    assert found.absent == {"train2017/1.jpg": {"dog"}}
    assert [found.unjudged(key) for key in found.labels] == [{"boat"}, {"boat"}]


@pytest.mark.parametrize("text", ['{"images": [', "[1, 2", "[1, 2]", '{"images": []}', "[" * 100_000, "[]", "{}"])
def test_other_json_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"truth\.json"):
        read(tmp_path, text, "truth.json")


RECORDS = [
    {"file_name": "a/one.jpg", "labels": ["cat", "dog"]},
    {"file_name": "a/two.jpg", "labels": ["hot dog"]},
    {"file_name": "b/three.png", "labels": []},
]
FORMS: dict[str, Any] = {
    "JSON Lines": lines(*RECORDS),
    "one line": lines({"file_name": "a/one.jpg", "labels": ["cat", "dog"]}),
    "blank lines and a byte order mark": "\ufeff" + lines(*RECORDS).replace("\n", "\r\n\r\n"),
    "a list": RECORDS,
    "names to labels": {record["file_name"]: record["labels"] for record in RECORDS},
    "names to marks": {
        key: {"cat": int("cat" in names), "dog": "dog" in names, "hot dog": "hot dog" in names}
        for key, names in EXPECTED.items()
    },
    "texts": [{**record, "labels": ", ".join(record["labels"])} for record in RECORDS],
    "objects": [{**record, "labels": [{"name": name} for name in record["labels"]]} for record in RECORDS],
    "objects with labels": [
        {"image": record["file_name"], "objects": [{"label": name, "bbox": [1, 2, 3, 4]} for name in record["labels"]]}
        for record in RECORDS
    ],
    "detection of datasets": [
        {"file_name": record["file_name"], "objects": {"bbox": [[1, 2, 3, 4]], "categories": record["labels"]}}
        for record in RECORDS
    ],
    "an image with bytes": [{"image": {"bytes": None, "path": r["file_name"]}, "labels": r["labels"]} for r in RECORDS],
    "numbers beside names": lines(*({"id": number, **record} for number, record in enumerate(RECORDS))),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(tmp_path: Path, form: str) -> None:
    found = read(tmp_path, FORMS[form], "metadata.jsonl").labels
    assert found == {key: names for key, names in EXPECTED.items() if form != "one line" or key == "a/one.jpg"}


def test_our_own_lines_leave_undecided_labels_unjudged(tmp_path: Path) -> None:
    line = {"image_id": "a/one.jpg", "file_name": "x/one.jpg", "labels": ["cat"], "scores": [0.9], "unknown": ["dog"]}
    found = read(tmp_path, lines(line, {**line, "image_id": "a/two.jpg", "unknown": []}))
    assert found.labels == {"a/one.jpg": {"cat"}, "a/two.jpg": {"cat"}}
    assert found.unknown == {"a/one.jpg": {"dog"}}


def test_marks_leave_what_is_null_unjudged(tmp_path: Path) -> None:
    found = read(tmp_path, {"a/one.jpg": {"cat": 1, "dog": 0, "person": None}, "a/two.jpg": {"cat": -1}})
    assert found.labels == {"a/one.jpg": {"cat"}, "a/two.jpg": set()}
    assert (found.unjudged("a/one.jpg"), found.unjudged("a/two.jpg")) == ({"person"}, {"cat", "dog", "person"})


def test_images_whose_labels_are_null_are_not_in_the_truth(tmp_path: Path) -> None:
    found = read(tmp_path, lines(*RECORDS, {"file_name": "c.jpg", "labels": None}))
    assert "c.jpg" not in found.labels
    assert found.notes == ("images whose labels are null, left out: 1",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lines({"file_name": "a/one.jpg", "labels": [3, 17]}, RECORDS[1]), "line 1: .* are numbers, such as 3"),
        (lines(RECORDS[0], {"file_name": "a/two.jpg", "labels": 0.5}), "line 2: under 'labels': 0.5 holds no label"),
        (lines(RECORDS[0]) + '{"file_name": "a/two.jpg", "labels": [\n', "line 2: not JSON"),
        (lines(RECORDS[0], {"labels": ["cat"]}), "line 2: there is no image under 'file_name'"),
        (lines({"file_name": "a/one.jpg", "width": 3}, RECORDS[1] | {"labels": 1}), "line 2: .*numbers, such as 1"),
        (lines({"file_name": "a/one.jpg", "width": 3}, {"file_name": "x"}), "no column holds labels"),
        (["a/one.jpg"], "no object per image"),
        (lines({"size": 4, "labels": ["cat"]}, {"size": 4, "labels": []}), "no column names the image"),
    ],
)
def test_what_cannot_be_read_names_the_line(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(tmp_path, content, "metadata.jsonl")


def choice(*names: str, kind: str = "choices", **more: Any) -> dict[str, Any]:
    return {"result": [{"type": kind, "value": {kind: list(names)}, "from_name": "choice"}], **more}


def task(image: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {"id": 1, "data": {"image": image, "source": "survey"}, "annotations": list(annotations)}


def test_label_studio_json_is_read_with_boxes_and_choices(tmp_path: Path) -> None:
    tasks = [
        task("/data/local-files/?d=photos/a/one.jpg", choice("cat", "dog")),
        task("/data/upload/3/0a1b2c3d-two.jpg", choice("hot dog", kind="rectanglelabels")),
        task("s3://bucket/b/three.png", {"result": [{"type": "rating", "value": {"rating": 4}}]}),
        task("/data/upload/3/0a1b2c3d-four.jpg"),
        task("/data/upload/3/0a1b2c3d-five.jpg", choice("cat", was_cancelled=True)),
    ]
    found = read(tmp_path, tasks, "project.json")
    assert list(found.labels.values()) == list(EXPECTED.values())
    assert found.notes == ("tasks without an annotation: 2",)


def test_what_annotators_disagree_on_is_not_judged(tmp_path: Path) -> None:
    found = read(tmp_path, [task("a/one.jpg", choice("cat", "dog"), choice("cat", "person"))])
    assert (found.labels["a/one.jpg"], found.unjudged("a/one.jpg")) == ({"cat"}, {"dog", "person"})
    assert "annotators disagree" in found.warnings[0]


HEADER = "annotation_id,annotator,choice,created_at,id,image,lead_time"
LABEL_STUDIO_ROWS = [
    (1, '{"choices":["cat", "dog"]}', "/data/local-files/?d=photos/a/one.jpg"),
    (2, "hot dog", "https://host/data/upload/3/0a1b2c3d-two.jpg?x=1"),
    (3, "", "b/three.png"),
]


def test_label_studio_csv_is_read(tmp_path: Path) -> None:
    rows = [
        f'{n},1,"{text}",2026,0,{image},3.2'
        for n, cell, image in LABEL_STUDIO_ROWS
        for text in [cell.replace('"', '""')]
    ]
    found = read(tmp_path, "\n".join([HEADER, *rows]))
    assert list(found.labels.values()) == list(EXPECTED.values())
    assert found.dialect == "Label Studio (image, choice)"


def test_label_studio_boxes_in_csv_and_json_min_are_read(tmp_path: Path) -> None:
    boxes = json.dumps([{"x": 1, "rectanglelabels": ["cat"]}, {"x": 2, "rectanglelabels": ["dog"]}])
    quoted = boxes.replace('"', '""')
    csv = read(tmp_path, f'annotation_id,annotator,image,label,lead_time\n1,1,a/one.jpg,"{quoted}",2\n')
    small = read(tmp_path, [{"image": "a/one.jpg", "annotation_id": 1, "annotator": 1, "label": json.loads(boxes)}])
    assert csv.labels == small.labels == {"a/one.jpg": {"cat", "dog"}}


def test_label_studio_with_two_controls_asks_which(tmp_path: Path) -> None:
    text = "annotation_id,annotator,image,lead_time,mood,weather\n1,1,a/one.jpg,2,good,rain\n"
    with pytest.raises(UsageError, match="no column holds labels") as error:
        read(tmp_path, text)
    assert "--label-column" in error.value.hint
    assert read(tmp_path, text, label_column="weather").labels == {"a/one.jpg": {"rain"}}


def test_json_is_read_without_a_table_too(tmp_path: Path) -> None:
    for name, content in {"a.jsonl": lines(*RECORDS), "b.json": json.dumps(FORMS["names to labels"])}.items():
        (tmp_path / name).write_text(content)
        assert load_truth(tmp_path / name).labels == EXPECTED
