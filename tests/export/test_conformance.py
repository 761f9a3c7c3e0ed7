"""What every export format must do, whatever it writes. A new format adds its reader here, and nothing else."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.export.base import Example, ExportSettings
from tagllm_cli.export.chunks import Chunk
from tagllm_cli.export.registry import FORMATS, export_table
from tagllm_cli.records import Row
from tagllm_cli.store.table import open_table, write_table
from tagllm_cli.text import undefused
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.export import readers
from tests.export.test_formats import LABELS, content, export, lines, rows, said, written

# What was exported: the labels of each image id, and the number of each label where the format has numbers.
Export = tuple[dict[str, list[str]], dict[str, int]]


def read_coco(out: Path) -> Export:
    value = json.loads(out.read_text(encoding="ascii"))
    names = {each["id"]: each["name"] for each in value["categories"]}
    labels: dict[str, list[str]] = {each["image_id"]: [] for each in value["images"]}
    ids = {each["id"]: each["image_id"] for each in value["images"]}
    for annotation in value["annotations"]:
        labels[ids[annotation["image_id"]]].append(names[annotation["category_id"]])
    return labels, {name: number for number, name in names.items()}


def read_csv(out: Path) -> Export:
    with out.open(encoding="utf-8", newline="") as file:
        found = {undefused(row["image_id"]): undefused(row["labels"]) for row in csv.DictReader(file)}
    return {image: labels.split("|") if labels else [] for image, labels in found.items()}, {}


def read_jsonl(out: Path) -> Export:
    values = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n") if line]
    return {value["image_id"]: value["labels"] for value in values}, {}


def read_hf(out: Path) -> Export:
    table = pq.read_table(out / "data")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    names = features["labels"]["feature"]["names"]
    labels = {row["image_id"]: [names[label] for label in row["labels"]] for row in table.to_pylist()}
    return labels, {name: number for number, name in enumerate(names)}


def read_label_studio(out: Path) -> Export:
    labels = {}
    for task in json.loads((out / "tasks.json").read_text(encoding="ascii")):
        chosen = {each["from_name"]: each["value"]["choices"] for each in task["predictions"][0]["result"]}
        labels[task["data"]["image_id"]] = chosen.get("labels", [])
    return labels, {}


def read_cvat(out: Path) -> Export:
    labels = {}
    for image in ElementTree.parse(out / "annotations.xml").getroot().iter("image"):
        tags = [(tag.get("label"), tag.findtext("attribute[@name='decision']")) for tag in image.iter("tag")]
        labels[str(image.get("name"))] = [str(label) for label, decision in tags if decision == "proposed"]
    return labels, {}


def read_fiftyone(out: Path) -> Export:
    samples = json.loads((out / "samples.json").read_text(encoding="ascii"))["samples"]
    found = {each["image_id"]: each["tagllm"]["classifications"] for each in samples}
    return {image: [each["label"] for each in labels] for image, labels in found.items()}, {}


def read_datumaro(out: Path) -> Export:
    values = [json.loads(path.read_text(encoding="ascii")) for path in sorted((out / "annotations").glob("*.json"))]
    names = [each["name"] for each in values[0]["categories"]["label"]["labels"]]
    found = {each["attr"]["image_id"]: each["annotations"] for value in values for each in value["items"]}
    labels = {image: [names[each["label_id"]] for each in annotations] for image, annotations in found.items()}
    return labels, {name: number for number, name in enumerate(names)}


READERS: dict[str, Callable[[Path], Export]] = {
    "coco": read_coco,
    "csv": read_csv,
    "jsonl": read_jsonl,
    "hf": read_hf,
    "csv-long": readers.read_csv_long,
    "csv-wide": readers.read_csv_wide,
    "numpy": readers.read_numpy,
    "parquet": readers.read_parquet,
    "imagefolder": readers.read_imagefolder,
    "webdataset": readers.read_webdataset,
    "label-studio": read_label_studio,
    "cvat": read_cvat,
    "fiftyone": read_fiftyone,
    "datumaro": read_datumaro,
}
# What is read back by tests of their own: they merge into other files, or hold less than all labels of all images.
OTHERWISE = {"xmp", "captions", "yolo-cls"}
every_format = pytest.mark.parametrize("format_", [name for name in FORMATS if name not in OTHERWISE])
# Names that are quotes, markup, numbers, nothing or something else to some reader.
HOSTILE = (
    'say "salt", ',
    "two\nlines",
    "münze",
    "🐈",
    "null",
    "1",
    "#",
    "<b>&amp;</b>",
    "a\\b",
    "a/b",
    "=1+1",
    "'=1+1",
    "-1",
    "@sum(a)",
    "\tcat",
    " cat ",
    "x" * 200,
)


def export_of(table: Path, format_: str, vocabulary: Vocabulary, ids: dict[str, int], rows: Sequence[Row]) -> Export:
    """Export these rows as a table whose plan pins these label ids."""
    info = replace(open_table(table).info, vocabulary=vocabulary, plan={"label_ids": ids})
    write_table(table, info, rows)
    return READERS[format_](export(table, format_, images="reference" if format_ == "hf" else None))


def test_every_format_is_read_here_and_says_what_it_is() -> None:
    assert READERS.keys() == FORMATS.keys() - OTHERWISE
    for name, form in FORMATS.items():
        assert form.name == name
        assert form.help
        assert not form.help.endswith(".")


def test_formats_and_strategies_are_listed_without_heavy_imports() -> None:
    script = """
import sys
import tagllm_cli.export.registry, tagllm_cli.labeling.strategies
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "tagllm_cli" in loaded
    assert loaded & {"pyarrow", "numpy", "pydantic", "yaml", "jinja2", "PIL", "datasets"} == set()


@every_format
def test_every_label_of_every_answered_image_is_exported_and_no_other(table: Path, format_: str) -> None:
    assert READERS[format_](export(table, format_))[0] == LABELS


@every_format
def test_hostile_names_come_back_as_they_were(table: Path, root: Path, format_: str) -> None:
    (first, *_) = rows(root)
    vocabulary = Vocabulary("hostile", tuple(map(Label, HOSTILE)))
    every = replace(first, labels=tuple(said(name, "yes", 0.5) for name in HOSTILE))
    found, _ = export_of(table, format_, vocabulary, {}, [every])
    assert found == {first.image_id: list(HOSTILE)}


@every_format
def test_a_label_keeps_its_number_when_others_come_before_it(table: Path, root: Path, format_: str) -> None:
    def numbers(*names: str, **ids: int) -> tuple[list[list[str]], dict[str, int]]:
        found, numbered = export_of(table, format_, Vocabulary("pets", tuple(map(Label, names))), ids, answered)
        return [sorted(labels) for labels in found.values()], numbered

    answered = [replace(next(rows(root)), labels=(said("cat", "yes", 0.5), said("dog", "yes", 0.5)))]
    before, first = numbers("cat", "dog", cat=0, dog=1)
    after, second = numbers("bird", "dog", "cat", cat=0, dog=1, bird=2)
    assert before == after == [["cat", "dog"]]
    assert all(second[name] == number for name, number in first.items())


@every_format
def test_numbers_are_positions_in_a_table_without_label_ids(table: Path, root: Path, format_: str) -> None:
    vocabulary = Vocabulary("pets", (Label("dog"), Label("cat")))
    answered = [replace(next(rows(root)), labels=(said("cat", "yes", 0.5),))]
    found, numbers = export_of(table, format_, vocabulary, {}, answered)
    assert list(found.values()) == [["cat"]]
    assert list(numbers) in ([], ["dog", "cat"])


def test_coco_never_uses_the_number_of_a_removed_label_again(table: Path, root: Path) -> None:
    ids = {"cat": 0, "dog": 1, "bird": 2}
    _, numbers = export_of(table, "coco", Vocabulary("pets", (Label("bird"), Label("cat"))), ids, [])
    assert numbers == {"cat": 1, "bird": 3}


@every_format
def test_a_candidate_table_is_refused_without_a_threshold(tmp_path: Path, root: Path, format_: str) -> None:
    proposed = written(tmp_path / "candidates.parquet", root, rows(root), "candidates")
    with pytest.raises(UsageError, match="is a candidate table: nothing in it is decided"):
        export(proposed, format_)


def test_a_table_without_answers_exports_as_nothing(tmp_path: Path, root: Path) -> None:
    unanswered = written(tmp_path / "labels.parquet", root, (row for row in rows(root) if row.labels is None))
    for format_ in FORMATS:
        summary = export_table(unanswered, format_, tmp_path / format_, ExportSettings())
        assert summary.left_out == {"failed": 1, "pending": 1}
    assert pq.read_table(tmp_path / "hf" / "data").num_rows == 0
    assert lines(unanswered) == {}


@every_format
def test_the_summary_counts_what_is_left_out(table: Path, tmp_path: Path, format_: str) -> None:
    out = tmp_path / "new" / "folder" / format_
    summary = export_table(table, format_, out, ExportSettings())
    assert (summary.images, summary.labels, summary.unknown) == (4, 4, 1)
    assert summary.left_out == {"failed": 1, "pending": 1}
    assert all(path.is_file() for path in summary.files)
    assert summary.to_json()["files"] == [str(path) for path in summary.files]
    assert summary.lines()[1:] == ["1 labels are undecided", "left out 1 images: failed", "left out 1 images: pending"]


@every_format
@pytest.mark.parametrize("found", ["notes", "table", "folder", "fifo", "another format"])
def test_what_is_not_our_export_stays(table: Path, tmp_path: Path, format_: str, found: str) -> None:
    out = tmp_path / "out"
    if found == "notes":
        out.write_text('{"info": "mine"}\n')
    elif found == "table":
        out = table
    elif found == "folder":
        (out / "data").mkdir(parents=True)
        (out / "data" / "train-00000-of-00001.parquet").write_bytes(table.read_bytes())
    elif found == "fifo":
        os.mkfifo(out)
    else:
        export_table(table, "hf" if format_ != "hf" else "csv", out, ExportSettings())
    before = content(tmp_path)
    with pytest.raises(UsageError, match="holds something else"):
        export_table(table, format_, out, ExportSettings())
    assert content(tmp_path) == before


@every_format
def test_our_own_export_is_replaced_whole_or_not_at_all(
    table: Path, tmp_path: Path, format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = content(export(table, format_))
    assert content(export(table, format_)) == first
    assert content(export(table, format_, threshold=0.8)) != first
    before = content(tmp_path)
    monkeypatch.setattr("tagllm_cli.store.atomic._sync", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        export(table, format_)
    assert content(tmp_path) == before


@every_format
def test_an_export_that_ends_midway_leaves_the_earlier_one(
    table: Path, tmp_path: Path, format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(table, format_)
    before = content(tmp_path)

    def ending(chunk: Chunk) -> Iterator[Example]:
        yield from examples(chunk)
        raise KeyboardInterrupt

    examples = Chunk.examples
    for name, end in (("examples", ending), ("taken", Mock(side_effect=KeyboardInterrupt))):
        monkeypatch.setattr(Chunk, name, end)
    with pytest.raises(KeyboardInterrupt):
        export(table, format_)
    assert content(tmp_path) == before


@every_format
def test_a_link_stays_and_its_target_is_replaced(table: Path, tmp_path: Path, format_: str) -> None:
    export(table, format_).rename(tmp_path / "target")
    (tmp_path / "link").symlink_to("target")
    export_table(table, format_, tmp_path / "link", ExportSettings(threshold=0.8))
    assert (tmp_path / "link").is_symlink()
    assert READERS[format_](tmp_path / "target")[0]["a dog & cat.png"] == ["cat"]
