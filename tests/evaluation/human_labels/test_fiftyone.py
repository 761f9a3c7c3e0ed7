"""FiftyOne's JSON: labels of a model and of people in one field, and tags that decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.human_labels.base import CheckedImage, Statement
from tests.evaluation.human_labels.reading import by_image, read
from tests.support.annotation_tools import DECIDED, DECIDED_AT


def label(name: str, confidence: float | None = None, *tags: str) -> dict[str, Any]:
    found = {"_id": {"$oid": "6b0a53960a0068131310d70f"}, "_cls": "Classification", "tags": [*tags], "label": name}
    return found if confidence is None else {**found, "confidence": confidence}


def several(*labels: dict[str, Any]) -> dict[str, Any]:
    return {"_cls": "Classifications", "classifications": [*labels]}


def sample(path: str, *tags: str, **fields: Any) -> dict[str, Any]:
    when = {"$date": DECIDED.replace("250000Z", "250Z")}
    about = {"_media_type": "image", "_rand": 0.5, "created_at": when, "last_modified_at": when}
    return {"filepath": path, "tags": [*tags], **about, **fields, "_id": {"$oid": "6b0a53960a0068131310d710"}}


def dataset(*samples: dict[str, Any]) -> dict[str, Any]:
    return {"samples": [*samples]}


def test_a_label_without_confidence_is_a_persons_and_one_with_it_is_kept(tmp_path: Path) -> None:
    labels = several(label("cat"), label("dog", 0.5))
    found = read(tmp_path, dataset(sample("/data/a/one.jpg", truth=labels), sample("/data/a/two.jpg", truth=several())))
    assert found.statements == [Statement("/data/a/one.jpg", "cat", "yes", "", DECIDED_AT)]
    assert found.kept == [Statement("/data/a/one.jpg", "dog", "yes", "", DECIDED_AT)]
    assert found.checked == [CheckedImage(f"/data/a/{name}.jpg", "", DECIDED_AT) for name in ("one", "two")]
    assert found.form == "FiftyOne dataset, field 'truth'"


def test_tags_of_labels_decide(tmp_path: Path) -> None:
    ours = several(label("cat", 0.9, "no"), label("dog", 0.5, "mine", "yes"), label("cow", 0.5, "unknown"))
    unclear = several(label("hot dog", None, "no"), label("cup"))
    human = several(label("ox", None, "human"))
    samples = (sample("one.jpg", tagllm=ours, tagllm_unknown=unclear), sample("two.jpg", tagllm=human))
    found = read(tmp_path, dataset(*samples))
    assert by_image(found.statements) == {"one.jpg": {"cat": "no", "dog": "yes", "cow": "unknown", "hot dog": "no"}}
    assert by_image(found.kept) == {"one.jpg": {"cup": "unknown"}, "two.jpg": {"ox": "yes"}}


def test_only_samples_tagged_checked_were_gone_through_where_some_are(tmp_path: Path) -> None:
    samples = [sample("one.jpg", "checked", truth=several()), sample("two.jpg", truth=several(label("cat")))]
    found = read(tmp_path, dataset(*samples))
    assert [each.image for each in found.checked] == ["one.jpg"]
    assert by_image(found.statements) == {"two.jpg": {"cat": "yes"}}
    assert "samples that are not tagged 'checked': 1" in found.notes


def test_a_sample_without_a_value_was_not_looked_at(tmp_path: Path) -> None:
    samples = [sample("one.jpg", truth=None), sample("two.jpg", truth=label("cat")), sample("three.jpg")]
    found = read(tmp_path, dataset(*samples))
    assert [each.image for each in found.checked] == ["two.jpg"]
    assert found.notes == ("samples without a value in 'truth': 2",)


def test_ours_come_back_with_id_and_fingerprint(tmp_path: Path) -> None:
    one = sample("/x/1.jpg", image_id="a/one.jpg", fingerprint="ab" * 16, tagllm=several(label("cat")))
    found = read(tmp_path, dataset(one))
    assert found.statements == [Statement("a/one.jpg", "cat", "yes", "", DECIDED_AT, "ab" * 16)]
    assert found.checked == [CheckedImage("a/one.jpg", "", DECIDED_AT, "ab" * 16)]


def test_older_versions_write_times_as_milliseconds(tmp_path: Path) -> None:
    one = {**sample("one.jpg", truth=label("cat")), "last_modified_at": {"$date": DECIDED_AT // 1000}}
    assert [each.when for each in read(tmp_path, dataset(one)).statements] == [DECIDED_AT]


def test_one_of_several_fields_has_to_be_named(tmp_path: Path) -> None:
    one = dataset(sample("one.jpg", truth=several(label("cat")), resnet=several(label("dog"))))
    with pytest.raises(UsageError, match="several fields hold classifications: truth, resnet") as error:
        read(tmp_path, one)
    assert "--label-column" in error.value.hint
    assert by_image(read(tmp_path, one, label_column="resnet").statements) == {"one.jpg": {"dog": "yes"}}
    with pytest.raises(UsageError, match="no field 'vgg' holds classifications"):
        read(tmp_path, one, label_column="vgg")


@pytest.mark.parametrize(
    "metadata",
    [
        {"version": "1.22.1", "classes": {"truth": ["cat", "dog"]}, "default_classes": []},
        {"version": "1.22.1", "classes": {}, "default_classes": ["cat", "dog"]},
        {"info": {"classes": {"truth": ["cat", "dog"]}}},
    ],
)
def test_the_classes_of_the_dataset_are_the_names(tmp_path: Path, metadata: dict[str, Any]) -> None:
    one = dataset(sample("one.jpg", truth=several(label("cat"))))
    assert read(tmp_path, one, "samples.json").names is None
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    assert read(tmp_path, one, "samples.json").names == ("cat", "dog")


def test_a_classification_dataset_is_read_with_its_manifest(tmp_path: Path) -> None:
    labels = {
        "one": [{"label": "cat", "confidence": 0.9}, {"label": "dog"}],
        "two": 1,
        "three": None,
        "four": [{"label": 0, "confidence": 0.2, "attributes": {"tags": ["no"]}}],
    }
    content = {"classes": ["cat", "dog"], "labels": labels}
    found = read(tmp_path, content, "labels.json")
    assert by_image(found.statements) == {"one": {"dog": "yes"}, "two": {"dog": "yes"}, "four": {"cat": "no"}}
    assert by_image(found.kept) == {"one": {"cat": "yes"}}
    assert [each.image for each in found.checked] == ["one", "two", "four"]
    assert found.names == ("cat", "dog")
    assert len(found.notes) == 1
    (tmp_path / "data.json").write_text(json.dumps({"one": "/photos/a/one.jpg"}))
    assert read(tmp_path, content, "labels.json").checked[0].image == "/photos/a/one.jpg"


def test_bare_names_may_be_a_models_and_the_reader_says_so(tmp_path: Path) -> None:
    found = read(tmp_path, {"classes": None, "labels": {"one": ["cat"]}})
    assert "all are taken for people's" in found.warnings[0]


@pytest.mark.parametrize(
    "content",
    [
        dataset(sample("one.jpg", truth=several(label("cat"))), {"tags": []}),
        dataset(sample("one.jpg", truth={"_cls": "Classifications", "classifications": 3})),
        dataset(sample("one.jpg", boxes={"_cls": "Detections", "detections": []})),
        {"classes": ["cat"], "labels": {"one": 7}},
    ],
)
def test_damaged_datasets_are_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UsageError, match="file: ") as error:
        read(tmp_path, content)
    assert error.value.hint
