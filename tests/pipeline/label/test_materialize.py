"""A table follows its evidence: only rows that changed are made, and the bytes are those of a full rebuild."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.labeling.candidates import Candidates
from tagllm_cli.labeling.disambiguate import Disambiguate
from tagllm_cli.records import Failure, Item, Response, Row
from tagllm_cli.sources.folder import Folder
from tagllm_cli.store import table as tables
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import LABELS, Workspace

IMAGES = 60


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several row groups in a small table."""
    monkeypatch.setattr(tables, "ROWS_PER_BATCH", 7)
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 16)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the images whose rows were made, in order."""
    ids: list[str] = []
    for stage in (Candidates, Disambiguate):

        def counted(
            self: Any, item: Item, responses: Sequence[Response | None], row: Callable[..., Row] = stage.row
        ) -> Row:
            ids.append(item.image.id)
            return row(self, item, responses)

        monkeypatch.setattr(stage, "row", counted)
    return ids


def finished(root: Path, images: int) -> Workspace:
    """A workspace whose first table is there, some of whose images are no images."""
    workspace = Workspace(root, images)
    for number in range(5, images, 20):
        (workspace.images / f"{number:03d}.png").write_bytes(b"no image")
    workspace.candidates(max_failed_rate=1.0)
    return workspace


@pytest.fixture
def done(tmp_path: Path, made: list[str]) -> Workspace:
    workspace = finished(tmp_path, IMAGES)
    assert len(made) == IMAGES
    made.clear()
    return workspace


def changed(workspace: Workspace, made: list[str], settings: dict[str, Any] | None = None, **options: Any) -> list[str]:
    """Run again and return whose rows were made, having compared the table with one that is made anew."""
    made.clear()
    summary = workspace.candidates(settings, max_failed_rate=1.0, **options)
    ids = made.copy()
    followed = workspace.out.read_bytes()
    anew = workspace.candidates(settings, max_failed_rate=1.0, offline=True)
    assert workspace.out.read_bytes() == followed
    assert anew.rows == summary.rows
    return ids


def test_one_new_image_among_3000_makes_one_row(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 512)
    workspace = Workspace(tmp_path, 30)
    for number in range(30, 3000):  # copies, so that few questions are asked
        os.link(workspace.images / f"{number % 30:03d}.png", workspace.images / f"{number:04d}.png")
    workspace.candidates()
    workspace.paint(9999, "000-new.png")
    assert changed(workspace, made) == ["000-new.png"]
    assert len(workspace.rows()) == 3001


@pytest.mark.parametrize("name", ["000.png", "033.png", "059.png"])
def test_a_changed_image_makes_its_row(done: Workspace, made: list[str], name: str) -> None:
    done.paint(500, name)
    assert changed(done, made) == [name]


@pytest.mark.parametrize("name", ["!.png", "033a.png", "zz.png"])
def test_a_new_image_makes_its_row_and_moves_the_others(done: Workspace, made: list[str], name: str) -> None:
    done.paint(500, name)
    assert changed(done, made) == [name]


@pytest.mark.parametrize("names", [["000.png"], ["005.png", "033.png"], ["059.png"]])
def test_a_removed_image_makes_no_row(done: Workspace, made: list[str], names: list[str]) -> None:
    for name in names:
        (done.images / name).unlink()
    assert changed(done, made) == []
    assert len(done.rows()) == IMAGES - len(names)


def test_everything_at_once(done: Workspace, made: list[str]) -> None:
    for name in ("000.png", "031.png", "032.png"):
        (done.images / name).unlink()
    for name in ("!.png", "020.png", "020a.png", "zz.png"):
        done.paint(sum(map(ord, name)), name)
    (done.images / "040.png").write_bytes(b"no image any more")
    assert changed(done, made) == ["!.png", "020.png", "020a.png", "040.png", "zz.png"]


def test_a_renamed_image_makes_its_row(done: Workspace, made: list[str]) -> None:
    (done.images / "010.png").rename(done.images / "055a.png")
    assert changed(done, made) == ["055a.png"]
    assert done.engine.started == 1


def test_an_image_that_was_only_touched_makes_no_row(done: Workspace, made: list[str]) -> None:
    (done.images / "010.png").touch()
    written = done.out.stat().st_mtime_ns
    assert done.candidates(max_failed_rate=1.0).stats.opened == 1
    assert (made, done.out.stat().st_mtime_ns) == ([], written)


def test_images_in_another_order_are_all_there(
    done: Workspace, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = Folder.images
    monkeypatch.setattr(Folder, "images", lambda folder, shard: reversed(list(images(folder, shard))))
    changed(done, made)
    assert list(done.rows()) == [f"{number:03d}.png" for number in reversed(range(IMAGES))]


def test_another_vocabulary_or_setting_makes_every_row(done: Workspace, made: list[str]) -> None:
    assert len(changed(done, made, {"min_votes": 2})) == IMAGES
    done.write_vocabulary([*LABELS, "bowl"])
    assert len(changed(done, made)) == IMAGES
    done.write_vocabulary(LABELS)
    assert len(changed(done, made)) == IMAGES


def test_rows_that_were_not_final_are_made_until_they_are(tmp_path: Path, made: list[str]) -> None:
    workspace = Workspace(tmp_path, 30)
    workspace.candidates(limit=20)
    made.clear()
    workspace.engine = RuleEngine(
        fault=lambda picture, request: Failure("timeout", "") if "cow" in request.text else None
    )
    workspace.candidates(limit=25, max_failed_rate=1.0)
    assert made == [f"{number:03d}.png" for number in range(20, 25)]
    made.clear()
    workspace.candidates(max_failed_rate=1.0)
    assert made == [f"{number:03d}.png" for number in range(20, 30)]
    workspace.engine = RuleEngine()
    assert changed(workspace, made) == [f"{number:03d}.png" for number in range(20, 30)]
    assert {row.status.value for row in workspace.rows().values()} == {"ok"}


def test_a_table_that_somebody_changed_is_made_anew(done: Workspace, made: list[str]) -> None:
    before = done.out.read_bytes()
    tables.write_table(done.out, tables.open_table(done.out).info, [])
    assert len(changed(done, made)) == IMAGES
    assert done.out.read_bytes() == before


def test_the_second_stage_follows_the_first(done: Workspace, made: list[str]) -> None:
    done.disambiguate(max_failed_rate=1.0)
    done.paint(500, "033.png")
    done.candidates(max_failed_rate=1.0)
    made.clear()
    summary = done.disambiguate(max_failed_rate=1.0)
    assert made == ["033.png"]
    followed = done.labels_out.read_bytes()
    assert done.disambiguate(offline=True, max_failed_rate=1.0).rows == summary.rows
    assert done.labels_out.read_bytes() == followed
