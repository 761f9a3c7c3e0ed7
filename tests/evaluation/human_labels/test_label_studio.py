"""Label Studio's exports: who said what and when, and what nobody said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.human_labels.base import CheckedImage, Statement
from tests.evaluation.human_labels.reading import by_image, read
from tests.support.annotation_tools import ANNOTATOR, DECIDED_AT, label_studio_annotation

ONE = "/data/local-files/?d=photos/a/one.jpg"
TWO = "/data/upload/3/0a1b2c3d-two.jpg"


def chosen(*names: str, control: str = "labels", kind: str = "choices") -> dict[str, Any]:
    return {"from_name": control, "to_name": "image", "type": kind, "value": {kind: list(names)}, "origin": "manual"}


def annotation(*names: str, who: Any = ANNOTATOR, **other: Any) -> dict[str, Any]:
    return label_studio_annotation([chosen(*names)] if names else [], who, **other)


def task(image: str, *annotations: dict[str, Any], **other: Any) -> dict[str, Any]:
    prediction = {"model_version": "m", "result": [chosen("dog")], "score": 0.5}
    return {"id": 1, "data": {"image": image}, "annotations": [*annotations], "predictions": [prediction], **other}


def test_choices_are_what_the_annotator_says(tmp_path: Path) -> None:
    found = read(tmp_path, [task(ONE, annotation("cat", "dog")), task(TWO, annotation())])
    assert found.statements == [Statement(ONE, name, "yes", ANNOTATOR, DECIDED_AT) for name in ("cat", "dog")]
    assert found.checked == [CheckedImage(image, ANNOTATOR, DECIDED_AT) for image in (ONE, TWO)]
    assert (found.form, found.kept, found.is_explicit) == ("Label Studio JSON", [], False)


def test_each_annotator_is_a_person(tmp_path: Path) -> None:
    people = ("a@example.org", "b@example.org", {"id": 3, "username": "carl"}, 4, None)
    found = read(tmp_path, [task(ONE, *(annotation("cat", who=who) for who in people))])
    assert [each.who for each in found.statements] == ["a@example.org", "b@example.org", "carl", "4", ""]
    assert len(found.checked) == 5


def test_two_people_who_disagree_are_both_there(tmp_path: Path) -> None:
    both = [annotation("cat", who="a@x", updated_at="2026-11-28T10:00:00Z"), annotation("dog", who="b@x")]
    found = read(tmp_path, [task(ONE, *both)])
    assert [(each.who, each.label) for each in found.statements] == [("a@x", "cat"), ("b@x", "dog")]
    assert [each.who for each in found.checked] == ["a@x", "b@x"]


def test_the_same_image_in_two_tasks_is_what_its_annotator_said_last(tmp_path: Path) -> None:
    earlier = annotation("cat", updated_at="2026-11-27T10:00:00Z")
    found = read(tmp_path, [task(ONE, annotation("dog")), task(ONE, earlier), task(ONE, annotation("cat", who="b@x"))])
    assert [(each.who, each.label) for each in found.statements] == [(ANNOTATOR, "dog"), ("b@x", "cat")]
    assert "annotations that the same person replaced by a later one of the same image: 1" in found.notes


def test_what_nobody_submitted_says_nothing(tmp_path: Path) -> None:
    rejected = annotation("cat", reviews=[{"accepted": True}, {"accepted": False}])
    accepted = annotation("dog", who="b@x", reviews=[{"accepted": False}, {"accepted": True}])
    found = read(
        tmp_path,
        [
            task(ONE, annotation("cat", was_cancelled=True), rejected, accepted),
            task(TWO, drafts=[{"result": [chosen("cat")]}]),
        ],
    )
    assert by_image(found.statements) == {ONE: {"dog": "yes"}}
    assert [each.image for each in found.checked] == [ONE]
    assert found.notes == (
        "tasks without an annotation: 1",
        "annotations that were skipped: 1",
        "annotations that a reviewer rejected: 1",
        "drafts, which nobody submitted: 1",
    )


def test_a_taxonomy_and_boxes_name_labels(tmp_path: Path) -> None:
    taxonomy = {"from_name": "t", "type": "taxonomy", "value": {"taxonomy": [["animal", "cat"], ["food", "hot dog"]]}}
    box = chosen("dog", kind="rectanglelabels")
    found = read(tmp_path, [task(ONE, label_studio_annotation([taxonomy, box, box]))])
    assert by_image(found.statements) == {ONE: {"cat": "yes", "hot dog": "yes", "dog": "yes"}}


def test_one_of_several_controls_is_named(tmp_path: Path) -> None:
    result = [chosen("cat"), chosen("rain", control="weather")]
    tasks = [task(ONE, label_studio_annotation(result))]
    assert by_image(read(tmp_path, tasks).statements) == {ONE: {"cat": "yes", "rain": "yes"}}
    assert by_image(read(tmp_path, tasks, label_column="labels").statements) == {ONE: {"cat": "yes"}}


def test_ours_come_back_with_id_and_fingerprint_and_what_cannot_be_told(tmp_path: Path) -> None:
    data = {"image": ONE, "image_id": "a/one.jpg", "fingerprint": "ab" * 16, "scores": {"dog": 0.5}, "human": {}}
    result = [chosen("cat"), chosen("dog", control="unclear")]
    found = read(tmp_path, [{**task(ONE, label_studio_annotation(result)), "data": data}])
    assert [(each.image, each.label, each.decision) for each in found.statements] == [
        ("a/one.jpg", "cat", "yes"),
        ("a/one.jpg", "dog", "unknown"),
    ]
    assert {each.fingerprint for each in found.statements} == {"ab" * 16}
    assert found.checked == [CheckedImage("a/one.jpg", ANNOTATOR, DECIDED_AT, "ab" * 16)]


def test_json_min_has_the_annotator_and_the_time(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"image": ONE, "id": 1, "labels": {"choices": ["cat", "dog"]}, "annotator": 7, "annotation_id": 1},
        {"image": TWO, "id": 2, "labels": "hot dog", "annotator": 8, "annotation_id": 2},
    ]
    found = read(tmp_path, [{**row, "updated_at": "2026-11-28T10:00:00.250000Z", "lead_time": 1} for row in rows])
    assert [(each.label, each.who, each.when) for each in found.statements] == [
        ("cat", "7", DECIDED_AT),
        ("dog", "7", DECIDED_AT),
        ("hot dog", "8", DECIDED_AT),
    ]
    assert found.form == "Label Studio JSON-MIN"


def test_json_min_of_ours_has_what_cannot_be_told(tmp_path: Path) -> None:
    ours = {"image_id": "a/one.jpg", "fingerprint": "ab" * 16, "scores": {"dog": 0.5}, "human": {}}
    row = {"image": ONE, "labels": "cat", "unclear": {"choices": ["dog"]}, "annotator": 7, "annotation_id": 1, **ours}
    found = read(tmp_path, [row])
    assert by_image(found.statements) == {"a/one.jpg": {"cat": "yes", "dog": "unknown"}}
    assert found.checked == [CheckedImage("a/one.jpg", "7", None, "ab" * 16)]


def test_csv_has_the_annotator_and_the_time(tmp_path: Path) -> None:
    text = (
        "annotation_id,annotator,choice,created_at,id,image,lead_time,updated_at\n"
        f'1,a@x,"{{""choices"":[""cat"", ""dog""]}}",2026-11-27T10:00:00Z,1,{ONE},2,2026-11-28T10:00:00.250000Z\n'
        f"2,b@x,,2026-11-27T10:00:00Z,2,{TWO},2,2026-11-28T10:00:00.250000Z\n"
    )
    found = read(tmp_path, text)
    assert [(each.label, each.who, each.when) for each in found.statements] == [
        ("cat", "a@x", DECIDED_AT),
        ("dog", "a@x", DECIDED_AT),
    ]
    assert [each.who for each in found.checked] == ["a@x", "b@x"]


def test_versions_before_1_0_are_read(tmp_path: Path) -> None:
    completion = {"id": 1001, "created_at": 1795860000.25, "lead_time": 3.2, "result": [chosen("cat")]}
    skipped = {**completion, "skipped": True}
    found = read(tmp_path, [{"id": 0, "data": {"image": ONE}, "completions": [completion, skipped], "predictions": []}])
    assert found.statements == [Statement(ONE, "cat", "yes", "", DECIDED_AT)]
    assert found.form == "Label Studio JSON of a version before 1.0"


def test_a_project_that_nobody_annotated_says_what_to_do(tmp_path: Path) -> None:
    for tasks in ([task(ONE)], [{"data": {"image": ONE}, "predictions": []}]):
        with pytest.raises(UsageError, match="no task of this Label Studio file has an annotation") as error:
            read(tmp_path, tasks)
        assert "submitted" in error.value.hint


@pytest.mark.parametrize(
    "broken",
    [{"annotations": 1}, {"annotations": ["x"]}, {"annotations": [{"result": ["x"]}]}, {"data": {"number": 1}}],
)
def test_a_damaged_task_is_refused(tmp_path: Path, broken: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"file: (an annotation|a task|the annotations) of this Label Studio"):
        read(tmp_path, [task(ONE, annotation("cat")), {**task(ONE, annotation("cat")), **broken}])
