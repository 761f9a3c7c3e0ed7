"""Which source a user's words open, and how a table's source is opened again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tagllm_cli.errors import SourceError
from tagllm_cli.records import SourceInfo
from tagllm_cli.sources.base import SourceOptions, list_images
from tagllm_cli.sources.registry import open_source, reopen


@pytest.mark.parametrize("spec", ["", "nowhere", "file.jpg", "broken", "file.jpg/x"])
def test_sources_that_cannot_be_used(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file.jpg").touch()
    (tmp_path / "broken").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as caught:
        open_source(spec)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_offline_nothing_is_looked_at(tmp_path: Path) -> None:
    source = open_source(str(tmp_path / "unmounted"), offline=True)
    assert source.describe() == SourceInfo("folder", str(tmp_path / "unmounted"), {})


def test_a_folder_is_described_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    monkeypatch.chdir(tmp_path / "source")
    for spec in (".", "../source", str(tmp_path / "source")):
        assert open_source(spec).describe().uri == str(tmp_path / "source")


def test_a_path_that_cannot_be_stored_as_text(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    root.mkdir()
    with pytest.raises(SourceError, match="not UTF-8"):
        open_source(str(root))


def test_exclusions_are_part_of_the_description(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.gif", "thumbs/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    source = open_source(str(tmp_path), SourceOptions(exclude=("*.gif", "thumbs"), skip_unreadable=True))
    info = source.describe()
    assert info.options == {"exclude": ["*.gif", "thumbs"], "skip_unreadable": True}
    assert [image.id for image in list_images(reopen(info))] == ["a.jpg"]
    assert reopen(info).describe() == info


def test_a_kind_that_this_version_does_not_know() -> None:
    with pytest.raises(SourceError, match="'tape' are not known") as caught:
        reopen(SourceInfo("tape", "drive 1", {}))
    assert "Upgrade" in caught.value.hint
