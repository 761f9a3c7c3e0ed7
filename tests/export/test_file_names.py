"""What the images of each kind of source are called in an export; no name leads out of its folder unsaid."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.export.base import ExportSettings, ExportSummary
from tagllm_cli.export.registry import export_table
from tagllm_cli.records import Image
from tagllm_cli.sources.registry import open_source
from tagllm_cli.store.table import open_table, write_table
from tests.support.packing import packed, parquet_of, tar_of
from tests.support.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, 3)


def labeled(workspace: Workspace, source: Path | str) -> Path:
    workspace.source = str(source)
    workspace.candidates()
    workspace.disambiguate()
    return workspace.labels_out


def export(table: Path, format_: str, **settings: Any) -> tuple[ExportSummary, Path]:
    out = table.parent / f"out.{format_}"
    return export_table(table, format_, out, ExportSettings(**settings)), out


def file_names(table: Path) -> list[str]:
    """Return the file names of COCO, after a look at those of JSON Lines."""
    coco = json.loads(export(table, "coco")[1].read_text())
    lines = [json.loads(line) for line in export(table, "jsonl")[1].read_text().splitlines()]
    names = [each["file_name"] for each in coco["images"]]
    assert [each["file_name"] for each in lines] == names
    assert [each["image_id"] for each in lines] == [each["image_id"] for each in coco["images"]]
    assert [each["id"] for each in coco["images"]] == list(range(1, len(names) + 1))
    return names


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_images_in_shards_are_called_as_their_shards_unpack(workspace: Workspace, tmp_path: Path, kind: str) -> None:
    table = labeled(workspace, packed(workspace.images, kind, tmp_path / "packed", per_shard=2))
    assert file_names(table) == [f"00000.{kind}/000.png", f"00000.{kind}/001.png", f"00001.{kind}/002.png"]


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_member_whose_name_leads_out_is_left_out_where_files_are_named(
    workspace: Workspace, tmp_path: Path, kind: str
) -> None:
    data = (workspace.images / "000.png").read_bytes()
    pack = {"tar": tar_of, "parquet": parquet_of}[kind]
    (tmp_path / f"s.{kind}").write_bytes(pack({"../../x.png": data, "good.png": data}))
    table = labeled(workspace, tmp_path / f"s.{kind}")
    assert file_names(table) == [f"s.{kind}/good.png"]
    for format_ in ("coco", "jsonl"):
        summary, _ = export(table, format_)
        assert (summary.images, dict(summary.left_out)) == (1, {"bad_name": 1})
        assert "left out 1 images: bad_name" in summary.lines()
    summary, out = export(table, "hf")
    assert summary.images == 2
    assert [each["path"] for each in pq.read_table(out / "data")["image"].to_pylist()] == ["x.png", "good.png"]
    assert {path.name for path in out.rglob("*")} == {"README.md", "data", "train-00000-of-00001.parquet"}
    assert export(table, "csv")[0].images == 2


def test_a_manifest_gives_the_names_and_what_leads_out_is_said(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "002.png").write_bytes((workspace.images / "002.png").read_bytes())
    names = [str(workspace.images / "000.png"), "../images/001.png", "002.png"]
    (tmp_path / "lists" / "m.txt").write_text("\n".join(names))
    table = labeled(workspace, tmp_path / "lists" / "m.txt")
    assert file_names(table) == names
    for format_ in ("coco", "jsonl"):
        summary, _ = export(table, format_)
        assert summary.to_json()["elsewhere"] == 2
        assert "2 images are named by a URL, or by a path that leads out of the source" in summary.lines()
    summary, out = export(table, "hf", images="reference")
    found = [each["path"] for each in pq.read_table(out / "data")["image"].to_pylist()]
    there = [*(workspace.images / name for name in ("000.png", "001.png")), tmp_path / "lists" / "002.png"]
    assert [Path(path).resolve() for path in found] == there


def test_a_table_from_elsewhere_cannot_name_what_the_manifest_does_not(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("images/000.png\n")
    table = labeled(workspace, tmp_path / "m.txt")
    opened = open_table(table)
    (row,) = opened.rows()
    forged = [replace(row, image_id=str(number), uri=uri) for number, uri in enumerate(("/etc/passwd", "../x.png"))]
    write_table(table, opened.info, [row, *forged])
    for images in ("copy", "reference"):
        summary, out = export(table, "hf", images=images)
        assert (summary.images, sum(summary.left_out.values())) == (1, 2)
        assert "passwd" not in str(pq.read_table(out / "data").to_pylist())
    source = open_source(str(tmp_path / "m.txt"))
    assert source.locate(Image("x", "http://127.0.0.1:9/x.png")) is None
    assert source.locate(Image("images/000.png", "images/000.png")) == str(tmp_path / "images" / "000.png")


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_images_in_shards_cannot_be_linked(workspace: Workspace, tmp_path: Path, kind: str) -> None:
    table = labeled(workspace, packed(workspace.images, kind, tmp_path / "packed"))
    with pytest.raises(UsageError) as caught:
        export(table, "hf", images="reference")
    assert "have no files of their own" in caught.value.message
    assert "--no-embed" in caught.value.hint
