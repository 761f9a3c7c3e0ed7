"""An export in which somebody corrected something, which the next export must not take for its own."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.export.folders import MARK
from tagllm_cli.store.table import open_table, write_table
from tests.export.test_conformance import read_cvat
from tests.export.test_formats import export


@pytest.mark.parametrize(
    ("format_", "file"),
    [
        ("cvat", "annotations.xml"),
        ("label-studio", "tasks.json"),
        ("fiftyone", "samples.json"),
        ("datumaro", "annotations/default.json"),
        ("imagefolder", "metadata.jsonl"),
        ("coco", ""),
    ],
)
def test_an_export_that_somebody_corrected_in_its_place_is_left_alone(table: Path, format_: str, file: str) -> None:
    out = export(table, format_)
    corrected = out / file
    if corrected.suffix in (".xml", ".jsonl"):
        new = corrected.read_text().replace("cat", "dog")
    else:
        new = json.dumps(json.loads(corrected.read_text()))  # as another program writes it
    corrected.write_text(new)
    with pytest.raises(UsageError, match="somebody changed, and is left as it is") as caught:
        export(table, format_)
    assert "tagllm import" in caught.value.hint
    assert corrected.read_text() == new


def test_an_export_of_an_older_release_is_replaced_though_its_mark_sums_up_names_alone(table: Path) -> None:
    out = export(table, "cvat")
    mark = json.loads((out / MARK).read_text())
    del mark["content"]
    (out / MARK).write_text(json.dumps(mark))
    assert read_cvat(export(table, "cvat"))


@pytest.mark.parametrize("format_", ["csv", "csv-long", "csv-wide"])
def test_a_csv_that_pandas_wrote_anew_is_left_alone(table: Path, format_: str) -> None:
    out = export(table, format_)
    pd.read_csv(out).to_csv(out, index=False)
    corrected = out.read_bytes()
    with pytest.raises(UsageError, match="holds something else"):
        export(table, format_)
    assert out.read_bytes() == corrected


def test_a_csv_without_any_image_is_replaced(table: Path) -> None:
    whole = open_table(table)
    write_table(table, whole.info, [])
    out = export(table, "csv")
    assert out.read_text() == "image_id,labels,scores\n"
    assert export(table, "csv") == out
