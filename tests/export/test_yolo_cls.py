"""YOLO classification folders, opened by torchvision's ImageFolder: what Ultralytics reads them with.

Ultralytics itself needs OpenCV, polars and more, so that it is no development dependency; its ClassificationDataset is
`torchvision.datasets.ImageFolder(root, allow_empty=True)` and takes over its samples and classes.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torchvision.datasets import ImageFolder

from tagllm_cli.errors import UsageError
from tagllm_cli.export.base import ExportSettings, ExportSummary
from tagllm_cli.export.registry import export_table
from tagllm_cli.store.table import open_table, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.export.test_conformance import HOSTILE
from tests.export.test_formats import SALT, content, rows, said


def export(table: Path, out: Path, **settings: Any) -> ExportSummary:
    return export_table(table, "yolo-cls", out, ExportSettings(**settings))


def opened(out: Path, split: str = "train") -> dict[str, str]:
    """The label of each image, by file name, as ImageFolder numbers folders and `names.csv` names them."""
    with (out / "names.csv").open(encoding="utf-8", newline="") as file:
        label_of = {row["folder"]: row["label"] for row in csv.DictReader(file)}
    found = ImageFolder(str(out / split), allow_empty=True)
    assert set(found.classes) == set(label_of)
    for image, _ in found:
        image.load()
    return {Path(path).name: label_of[found.classes[number]] for path, number in found.samples}


def test_images_with_one_label_lie_in_its_folder_and_the_others_are_counted(table: Path, tmp_path: Path) -> None:
    summary = export(table, tmp_path / "out")
    assert opened(tmp_path / "out") == {"sub__human.png": "cat", "sub__ünsicher_.png": SALT}
    assert summary.left_out == {"failed": 1, "no_label": 1, "pending": 1, "several_labels": 1}
    assert (summary.images, summary.labels) == (2, 2)
    assert any("one label per image: 1 images with several were left out; --labels" in note for note in summary.notes)


def test_labels_narrow_the_vocabulary_to_those_that_exclude_one_another(table: Path, tmp_path: Path) -> None:
    summary = export(table, tmp_path / "out", labels=("dog",))
    assert opened(tmp_path / "out") == {"a dog & cat.png": "dog"}
    assert summary.left_out == {"failed": 1, "no_label": 3, "pending": 1}
    assert not summary.notes


def test_all_splits_have_the_same_folders_so_that_numbers_agree(table: Path, root: Path, tmp_path: Path) -> None:
    answered = [row for row in rows(root) if row.labels is not None]
    names = ["cat", "dog", "münze", "cat"]
    single = [replace(row, labels=(said(name, "yes", 0.9),)) for row, name in zip(answered, names, strict=True)]
    write_table(table, open_table(table).info, single)
    summary = export(table, tmp_path / "out", split=(("train", 0.5), ("val", 0.3), ("test", 0.2)))
    found = {**opened(tmp_path / "out"), **opened(tmp_path / "out", "val"), **opened(tmp_path / "out", "test")}
    assert sorted(found.values()) == sorted(names)
    assert sum(summary.splits.values()) == summary.images == 4


def test_hostile_names_make_folders_below_the_export_and_come_back(table: Path, root: Path, tmp_path: Path) -> None:
    names = [*HOSTILE, "..", ".", "con", "a\\..\\b", "../../up", "Cat", "cat"]
    words = Vocabulary("hostile", tuple(map(Label, names)))
    (row, *_) = rows(root)
    twins = [replace(row, image_id=str(number), labels=(said(name, "yes", 0.9),)) for number, name in enumerate(names)]
    write_table(table, replace(open_table(table).info, vocabulary=words), twins)
    before = content(tmp_path)
    export(table, tmp_path / "out")
    with (tmp_path / "out/names.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(names)
    assert len({path.name.casefold() for path in (tmp_path / "out/train").iterdir()}) == len(names)
    assert len(ImageFolder(str(tmp_path / "out/train")).samples) == len(names)
    after = content(tmp_path)
    assert {path: after[path] for path in before} == before


def test_an_earlier_export_is_replaced_and_a_folder_of_somebody_is_not(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(table, out)
    export(table, out, labels=("dog",))
    assert opened(out) == {"a dog & cat.png": "dog"}
    (out / "train/dog/mine.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="holds something else"):
        export(table, out)


def test_images_are_never_only_named(table: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot reference images"):
        export(table, tmp_path / "out", images="reference")
