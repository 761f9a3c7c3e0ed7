"""Every export has a dataset card, which `datasets` and the Hub's reader take, and which is left alone once edited."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
from huggingface_hub import DatasetCard

from tagllm_cli.export.base import ExportSettings
from tagllm_cli.export.registry import FORMATS, export_table

IN_THE_FOLDER = ("hf", "imagefolder", "webdataset")


def card_of(out: Path, format_: str) -> Path:
    return out / "README.md" if format_ in IN_THE_FOLDER else out.with_name(f"{out.name}.card.md")


@pytest.mark.parametrize("format_", [name for name, form in FORMATS.items() if form.has_card])
def test_every_export_has_a_card(table: Path, tmp_path: Path, format_: str) -> None:
    out = tmp_path / "export"
    summary = export_table(table, format_, out)
    assert (summary.card, summary.card_kept) == (card_of(out, format_), False)
    card = DatasetCard.load(card_of(out, format_))
    assert card.data.to_dict()["tags"] == ["multi-label", "tagllm"]
    assert f"{summary.images:,} images with {summary.labels:,} labels" in card.text
    assert ("configs" in card.data.to_dict()) == (format_ == "hf")


def test_a_card_says_nothing_about_labels_that_were_not_exported(table: Path, tmp_path: Path) -> None:
    export_table(table, "jsonl", tmp_path / "export", ExportSettings(labels=("cat",)))
    text = (tmp_path / "export.card.md").read_text()
    assert "4 images with 2 labels of 1 (0.50 per image)" in text
    assert "| cat | 2 |" in text
    assert "| dog | 0 |" not in text
    assert "never given" not in text


@pytest.mark.parametrize("format_", [name for name, form in FORMATS.items() if form.has_card])
def test_an_edited_card_is_kept_by_the_next_export(table: Path, tmp_path: Path, format_: str) -> None:
    out = tmp_path / "export"
    export_table(table, format_, out)
    card = card_of(out, format_)
    mine = card.read_text() + "\nLicense: mine.\n"
    card.write_text(mine)
    summary = export_table(table, format_, out)
    assert card.read_text() == mine
    assert f"{card} is not as tagllm wrote it, and was left alone" in summary.lines()


def test_an_export_beside_somebodys_readme_keeps_it(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    out.mkdir()
    (out / "README.md").write_text("# mine\n")
    assert export_table(table, "hf", out).card_kept
    assert (out / "README.md").read_text() == "# mine\n"


def test_datasets_loads_the_folder_with_its_card(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    summary = export_table(table, "hf", out)
    loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == summary.images
    assert loaded.features["labels"].feature.names
