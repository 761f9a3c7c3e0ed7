"""Our export, corrected in each tool and exported by it, comes back as what people said and what they left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tagllm_cli.evaluation.human_labels.base import HumanLabels
from tagllm_cli.evaluation.human_labels.registry import read_human_labels
from tagllm_cli.export.base import ExportSettings
from tagllm_cli.export.registry import export_table
from tests.evaluation.human_labels.reading import by_image
from tests.export.test_formats import ENTRIES, SALT, VOCABULARY, rows, written
from tests.support.annotation_tools import (
    ANNOTATOR,
    DECIDED_AT,
    Changes,
    cvat_export,
    datumaro_export,
    fiftyone_export,
    label_studio_export,
)

PETS, DOUBTFUL, PEOPLE, NOTHING = "a dog & cat.png", "sub/ünsicher\n.png", "sub/human.png", "sub/nothing.jpg"
# One label is taken away, one added, one that could not be told is decided, and one decided to be unclear.
CHANGES: Changes = {PETS: {"dog": "no", "münze": "yes"}, DOUBTFUL: {"dog": "yes", SALT: "unknown"}}


@pytest.fixture
def export(tmp_path: Path) -> Callable[[str], Path]:
    """Export a small table."""
    root = tmp_path / "images"
    for number, name in enumerate(ENTRIES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + number, 6), (number * 40, 0, 0)).save(root / name)
    table = written(tmp_path / "labels.parquet", root, rows(root))

    def exported(format_: str) -> Path:
        export_table(table, format_, tmp_path / format_, ExportSettings())
        return tmp_path / format_

    return exported


def all_have_fingerprints(found: HumanLabels) -> bool:
    return all(each.fingerprint for each in found.checked) and all(each.fingerprint for each in found.statements)


def test_label_studio(export: Callable[[str], Path], tmp_path: Path) -> None:
    found = read_human_labels(label_studio_export(export("label-studio"), CHANGES, tmp_path / "project.json"))
    salt = SALT.strip()  # names have no space around them in Label Studio
    assert by_image(found.statements) == {
        PETS: {"cat": "yes", "münze": "yes"},
        DOUBTFUL: {"dog": "yes", salt: "unknown"},
    }
    assert {(each.who, each.when) for each in found.checked} == {(ANNOTATOR, DECIDED_AT)}
    assert [each.image for each in found.checked] == [PETS, DOUBTFUL]
    assert all_have_fingerprints(found)


@pytest.mark.parametrize("by_attribute", [False, True])
def test_cvat(export: Callable[[str], Path], tmp_path: Path, by_attribute: bool) -> None:
    path = cvat_export(export("cvat"), CHANGES, tmp_path / "task.zip", by_attribute=by_attribute)
    found = read_human_labels(path)
    said = {PETS: {"münze": "yes"}, DOUBTFUL: {"dog": "yes", SALT: "unknown"}}
    if by_attribute:
        said[PETS]["dog"] = "no"
    assert by_image(found.statements) == said
    assert by_image(found.kept) == {PETS: {"cat": "yes"}, PEOPLE: {"cat": "yes"}}
    assert [each.image for each in found.checked] == [PETS, NOTHING, DOUBTFUL, PEOPLE]
    assert found.names == VOCABULARY.names


@pytest.mark.slow
def test_fiftyone(export: Callable[[str], Path], tmp_path: Path) -> None:
    folder = fiftyone_export(export("fiftyone"), CHANGES, tmp_path / "corrected")
    found = read_human_labels(folder)
    assert by_image(found.statements) == CHANGES
    assert by_image(found.kept) == {PETS: {"cat": "yes"}, PEOPLE: {"cat": "yes"}}
    assert [each.image for each in found.checked] == [PETS, NOTHING, DOUBTFUL, PEOPLE]
    assert found.names == VOCABULARY.names
    assert all_have_fingerprints(found)
    simple = read_human_labels(folder.with_name("corrected.simple"))  # drops tags, folders and endings
    assert by_image(simple.statements) == {"a dog & cat": {"münze": "yes"}, "human": {"cat": "yes"}}


def test_datumaro(export: Callable[[str], Path], tmp_path: Path) -> None:
    found = read_human_labels(datumaro_export(export("datumaro"), CHANGES, tmp_path / "corrected"))
    assert by_image(found.statements) == CHANGES
    assert by_image(found.kept) == {PETS: {"cat": "yes"}, PEOPLE: {"cat": "yes"}}
    assert {each.image for each in found.checked} == {PETS, NOTHING, DOUBTFUL, PEOPLE}
    assert all_have_fingerprints(found)


@pytest.mark.parametrize("format_", ["cvat", "fiftyone", "datumaro"])
def test_an_export_that_nobody_opened_says_nothing_of_people(export: Callable[[str], Path], format_: str) -> None:
    found = read_human_labels(export(format_))
    assert found.statements == []
    assert by_image(found.kept)[PETS] == {"dog": "yes", "cat": "yes"}
    assert by_image(found.kept)[DOUBTFUL] == {SALT: "yes", "dog": "unknown"}
    assert "nobody has" in found.warnings[0]
