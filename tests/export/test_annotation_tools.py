"""Exports for annotation tools, each opened by the tool's own package, its labels compared one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cvat_sdk.models import PatchedLabelRequest
from datumaro import Dataset
from datumaro.components.annotation import AnnotationType
from label_studio_sdk.label_interface import LabelInterface

from tagllm_cli.errors import UsageError
from tagllm_cli.export import label_studio
from tagllm_cli.export.base import ExportSettings
from tagllm_cli.export.registry import export_table
from tagllm_cli.records import Row
from tagllm_cli.sources.registry import open_source
from tagllm_cli.store.table import open_table, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.export.test_formats import LABELS, SALT, VOCABULARY, export, rows, said
from tests.support.annotation_tools import fiftyone_session

SCORES: Mapping[str, Mapping[str, float]] = {
    "a dog & cat.png": {"dog": 0.7, "cat": 0.9},
    "sub/nothing.jpg": {},
    "sub/ünsicher\n.png": {SALT: 0.6},
    "sub/human.png": {"cat": 1.0},
}
UNKNOWN = {name: ["dog"] if "ünsicher" in name else [] for name in LABELS}
MARKUP = ('<"&>', "]]><x/>", "&lt;", "<!-- -->", "a'b", "{{7*7}}", "münze 🐈", "two\nlines", "tab\tstop", "a\rb")


def hostile(table: Path, root: Path, names: tuple[str, ...] = MARKUP, **other: Any) -> Path:
    """Replace the table by one with these labels, all of them in its first image."""
    info = replace(open_table(table).info, vocabulary=Vocabulary("hostile <&>", tuple(map(Label, names))), **other)
    write_table(table, info, [labeled(next(rows(root)), names)])
    return table


def labeled(row: Row, names: tuple[str, ...]) -> Row:
    return replace(row, labels=tuple(said(name, "yes", 0.5) for name in names))


def tasks_of(out: Path) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = json.loads((out / "tasks.json").read_text())
    return tasks


def validated(out: Path) -> Iterator[tuple[dict[str, Any], dict[str, list[str]]]]:
    """The tasks, with what was chosen, after Label Studio's SDK found nothing wrong with them and the config."""
    interface = LabelInterface((out / "config.xml").read_text(encoding="utf-8"))
    interface.validate()
    for task in tasks_of(out):
        assert interface.validate_task({"data": task["data"]})
        (prediction,) = task["predictions"]
        assert interface.validate_prediction(prediction, return_errors=True) == []
        yield task["data"], {each["from_name"]: each["value"]["choices"] for each in prediction["result"]}


def test_label_studio_takes_tasks_predictions_and_config(table: Path) -> None:
    out = export(table, "label-studio")
    chosen = {data["image_id"]: (data["scores"], answers) for data, answers in validated(out)}
    assert {name: answers.get("labels", []) for name, (_, answers) in chosen.items()} == LABELS
    assert {name: answers.get("unclear", []) for name, (_, answers) in chosen.items()} == UNKNOWN
    assert {name: scores for name, (scores, _) in chosen.items()} == SCORES
    interface = LabelInterface((out / "config.xml").read_text(encoding="utf-8"))
    choices = interface.get_control("labels")
    assert (choices.is_multiple_choice, list(choices.labels)) == (True, list(VOCABULARY.names))


def test_label_studio_is_told_what_people_decided_and_which_model_said_the_rest(table: Path) -> None:
    info = open_table(table).info
    plan = {"model": "qwen", "templates": {"binary": {"text": "is there a {{ label }}?"}}}
    write_table(table, replace(info, plan=plan), list(open_table(table).rows()))
    tasks = {task["data"]["image_id"]: task for task in tasks_of(export(table, "label-studio"))}
    versions = {name: task["predictions"][0]["model_version"] for name, task in tasks.items()}
    model = versions["sub/nothing.jpg"]
    assert model.startswith("qwen ")
    assert len(model) == len("qwen 01234567")
    assert versions == {name: model if name != "sub/human.png" else f"{model} + people" for name in LABELS}
    assert tasks["sub/human.png"]["data"]["human"] == {"dog": "no", "cat": "yes"}
    assert [task["predictions"][0].get("score") for task in tasks.values()] == [0.7, None, 0.6, 1.0]


def test_label_studio_shows_the_description_of_a_label(table: Path, root: Path) -> None:
    vocabulary = Vocabulary("cards", (Label("cat", description='says "meow" & <purrs>'), Label("dog")))
    write_table(table, replace(open_table(table).info, vocabulary=vocabulary), [labeled(next(rows(root)), ("cat",))])
    config = (export(table, "label-studio") / "config.xml").read_text()
    assert '<Choice value="cat" hint=\'says "meow" &amp; &lt;purrs&gt;\'/>' in config
    assert '<Choice value="dog"/>' in config


def test_many_choices_are_searched_in_a_list(table: Path, root: Path) -> None:
    names = tuple(f"label {number}" for number in range(40))
    assert (
        'name="labels" toName="image" choice="multiple" layout="select"'
        in (export(hostile(table, root, names), "label-studio") / "config.xml").read_text()
    )


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "/data/local-files/?d=images/a%20dog%20%26%20cat.png"),
        ({"images": "copy"}, "/data/local-files/?d=out.label-studio/images/a%20dog%20%26%20cat.png"),
        ({"root": "https://cdn.example.org/photos/"}, "https://cdn.example.org/photos/a%20dog%20%26%20cat.png"),
        ({"root": "s3://bucket/photos"}, "s3://bucket/photos/a%20dog%20%26%20cat.png"),
    ],
)
def test_label_studio_finds_images(table: Path, settings: dict[str, Any], url: str) -> None:
    out = export(table, "label-studio", **settings)
    first = tasks_of(out)[0]["data"]
    assert (first["image"], first["image_id"]) == (url, "a dog & cat.png")
    copies = [path.name for path in (out / "images").rglob("*.png")] if settings == {"images": "copy"} else []
    assert ("human.png" in copies) == bool(copies)


def test_images_that_have_a_url_are_named_by_it(table: Path, root: Path) -> None:
    web, local = "https://host/a.png", "images/sub/human.png"
    manifest = table.parent / "images.csv"
    manifest.write_text(f"path\n{web}\n{local}\n")
    info = replace(open_table(table).info, source=open_source(str(manifest)).describe())
    write_table(table, info, [replace(next(rows(root)), image_id=uri, uri=uri) for uri in (web, local)])
    urls = {task["data"]["image_id"]: task["data"]["image"] for task in tasks_of(export(table, "label-studio"))}
    assert urls == {web: web, local: f"/data/local-files/?d={table.parent.name}/{local}"}


def test_tasks_are_written_in_files_that_one_import_takes(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_studio, "FILE_TASKS", 3)
    out = export(table, "label-studio")
    sizes = {path.name: len(json.loads(path.read_text())) for path in sorted(out.glob("tasks*.json"))}
    assert sizes == {"tasks-2.json": 1, "tasks.json": 3}


def cvat_labels(out: Path) -> dict[str, dict[str, tuple[float | None, str]]]:
    """Score and decision by label and image, as Datumaro's importer of CVAT's XML reads them."""
    dataset = Dataset.import_from(str(out), "cvat")
    names = [each.name for each in dataset.categories()[AnnotationType.label].items]
    found = {}
    for item in dataset:
        read = {
            names[each.label]: (each.attributes.get("score"), each.attributes["decision"]) for each in item.annotations
        }
        found[item.media.path.split("/images/")[1]] = read
    return found


def test_cvat_xml_is_read_by_datumaro(table: Path) -> None:
    found = cvat_labels(export(table, "cvat", images="copy"))
    names = {name: name.replace("\n", "_") for name in LABELS}  # a copy has a harmless name
    proposed: dict[str, dict[str, tuple[float | None, str]]] = {
        names[image]: {label: (score, "proposed") for label, score in scores.items()}
        for image, scores in SCORES.items()
    }
    proposed["sub/ünsicher_.png"]["dog"] = (None, "unclear")
    assert found == proposed


def test_cvat_is_told_what_people_decided_before(table: Path) -> None:
    text = (export(table, "cvat") / "annotations.xml").read_text(encoding="utf-8")
    assert '<tag label="cat" source="manual">' in text
    assert text.count('source="manual"') == 1


def test_cvat_takes_the_labels_of_the_task(table: Path, root: Path) -> None:
    out = export(hostile(table, root), "cvat")
    labels = json.loads((out / "labels.json").read_text())
    for label in labels:
        assert PatchedLabelRequest._from_openapi_data(**label, _check_type=True).name == label["name"]
        assert {each["name"]: each["default_value"] for each in label["attributes"]} == {
            "score": "1",
            "decision": "yes",
        }
    assert [label["name"] for label in labels] == list(MARKUP)
    assert {label["type"] for label in labels} == {"tag"}


def test_cvat_is_warned_of_names_that_it_does_not_take(table: Path, root: Path) -> None:
    summary = export_table(hostile(table, root, ("x" * 65, "cat")), "cvat", table.parent / "out", ExportSettings())
    assert list(summary.notes) == ["CVAT takes no label of more than 64 characters: 1 are longer"]


@pytest.mark.parametrize("format_", ["cvat", "label-studio"])
def test_what_xml_cannot_hold_is_refused(table: Path, root: Path, format_: str) -> None:
    with pytest.raises(UsageError, match="control character, which XML cannot hold") as error:
        export(hostile(table, root, ("bell\x07",)), format_)
    assert "--labels" in error.value.hint


def test_an_image_whose_name_xml_cannot_hold_is_left_out_of_cvat(table: Path, root: Path) -> None:
    first = next(rows(root))
    write_table(table, open_table(table).info, [first, replace(first, image_id="\x07.png", uri="\x07.png")])
    summary = export_table(table, "cvat", table.parent / "out", ExportSettings())
    assert (summary.images, summary.left_out) == (1, {"bad_name": 1})


def test_markup_in_names_stays_text(table: Path, root: Path) -> None:
    hostile(table, root)
    ((_, chosen),) = validated(export(table, "label-studio"))
    assert chosen["labels"] == list(MARKUP)
    found = cvat_labels(export(table, "cvat", images="copy"))
    assert list(found["a dog & cat.png"]) == list(MARKUP)
    assert datumaro_labels(export(table, "datumaro"))["a dog & cat.png"] == dict.fromkeys(MARKUP, (0.5, "model"))


def datumaro_labels(out: Path) -> dict[str, dict[str, tuple[float, str]]]:
    """Score and source by label and image, as Datumaro reads them."""
    dataset = Dataset.import_from(str(out), "datumaro")
    names = [each.name for each in dataset.categories()[AnnotationType.label].items]
    return {
        item.attributes["image_id"]: {
            names[each.label]: (each.attributes["score"], each.attributes["source"]) for each in item.annotations
        }
        for item in dataset
    }


def test_datumaro_reads_its_own_format(table: Path) -> None:
    out = export(table, "datumaro", images="copy")
    source = {name: "human" if name == "sub/human.png" else "model" for name in LABELS}
    assert datumaro_labels(out) == {
        image: {label: (score, source[image]) for label, score in scores.items()} for image, scores in SCORES.items()
    }
    dataset = Dataset.import_from(str(out), "datumaro")
    assert [(each.name, each.parent) for each in dataset.categories()[AnnotationType.label].items] == [
        (label.name, label.parent or "") for label in VOCABULARY.labels
    ]
    sizes = {
        item.attributes["image_id"]: (item.media.data.shape[:2], item.attributes.get("unknown", [])) for item in dataset
    }
    assert sizes == {name: ((6, 8 + number), UNKNOWN[name]) for number, name in enumerate(LABELS)}


def test_datumaro_tells_images_apart_that_differ_in_their_ending(table: Path, root: Path) -> None:
    first = next(rows(root))
    info = open_table(table).info
    names = ("a.png", "a.jpg", "a.jpg.png", "b.png")
    write_table(table, info, [replace(first, image_id=name, uri=name) for name in names])
    dataset = Dataset.import_from(str(export(table, "datumaro")), "datumaro")
    assert [(item.id, item.attributes["image_id"]) for item in dataset] == [
        ("a", "a.png"),
        ("a.jpg", "a.jpg"),
        ("a.jpg.png", "a.jpg.png"),
        ("b", "b.png"),
    ]


def test_splits_are_subsets_of_datumaro(table: Path) -> None:
    shares = (("train", 0.5), ("test", 0.5))
    out = export(table, "datumaro", split=shares, images="copy")
    dataset = Dataset.import_from(str(out), "datumaro")
    assert {*dataset.subsets()} <= {"train", "test"}
    found = {item.attributes["image_id"]: item.subset for item in dataset}
    assert found.keys() == LABELS.keys()
    for name, subset in found.items():
        assert (out / "images" / subset / name.replace("\n", "_")).is_file()


@pytest.mark.slow
def test_fiftyone_reads_classifications_with_confidence(table: Path, root: Path, tmp_path: Path) -> None:
    shares = (("train", 0.5), ("test", 0.5))
    out = export(table, "fiftyone", split=shares, images="copy")
    found = fiftyone_session(out, {}, tmp_path / "again")
    samples = {each["image_id"]: each for each in found["samples"]}
    assert found["classes"]["tagllm"] == list(VOCABULARY.names)
    human = "sub/human.png"
    assert {name: [label for label, *_ in each["labels"]] for name, each in samples.items()} == LABELS
    assert {name: [label for label, *_ in each["unknown"]] for name, each in samples.items()} == UNKNOWN
    assert samples[human]["labels"] == [["cat", None, ["human"]]]
    for name, scores in SCORES.items():
        assert all(confidence == scores[label] for label, confidence, tags in samples[name]["labels"] if not tags)
        assert samples[name]["tags"] in (["train"], ["test"])
        assert Path(samples[name]["filepath"]).read_bytes() == (root / name).read_bytes()
    assert [each["size"] for each in samples.values()] == [[8 + number, 6] for number in range(4)]


@pytest.mark.slow
def test_fiftyone_takes_hostile_names_and_images_where_they_are(table: Path, root: Path, tmp_path: Path) -> None:
    found = fiftyone_session(export(hostile(table, root), "fiftyone"), {}, tmp_path / "again")
    (sample,) = found["samples"]
    assert sample["labels"] == [[name, 0.5, []] for name in MARKUP]
    assert sample["filepath"] == str(root / "a dog & cat.png")
