"""Every kind of source through both stages: the same labels, each image once, no shard opened in vain."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import InterruptedRunError, OfflineError, SourceError, StoppedRunError, TableError
from tagllm_cli.pipeline.label.job import RunOptions
from tagllm_cli.pipeline.label.listing import Part
from tagllm_cli.pipeline.label.run import run_job
from tagllm_cli.pipeline.progress import Silent
from tagllm_cli.records import Row
from tagllm_cli.sources.base import SourceOptions
from tagllm_cli.store.table import open_table
from tests.support.object_store import expired_after, object_store
from tests.support.packing import PLACES, files_below, packed, parquet_of, shards_of, tar_of
from tests.support.rule_engine import RuleEngine
from tests.support.web_server import Reply, WebServer
from tests.support.workspace import Workspace

IMAGES = 17
EACH = 4  # requests about an image


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, IMAGES)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def said(table: Path) -> list[Any]:
    """Return what does not depend on where the images lie, in the order of the table."""
    return [(row.fingerprint, row.width, row.height, row.status, row.error, row.labels) for row in rows(table)]


def rows(table: Path) -> list[Row]:
    return list(open_table(table).rows())


def on(workspace: Workspace, place: str) -> Workspace:
    workspace.source = packed(workspace.images, place, workspace.images.parent / "packed")
    return workspace


def test_the_same_labels_in_the_same_order_wherever_the_images_lie(workspace: Workspace, place: str) -> None:
    workspace.candidates()
    workspace.disambiguate()
    expected = said(workspace.out), said(workspace.labels_out)
    for path in workspace.out.parent.iterdir():
        path.unlink()
    on(workspace, place)
    assert workspace.candidates().stats.asked == EACH * IMAGES
    assert workspace.disambiguate().rows.ok == IMAGES
    assert (said(workspace.out), said(workspace.labels_out)) == expected


def test_a_second_run_has_nothing_to_do(workspace: Workspace, place: str) -> None:
    on(workspace, place).candidates()
    before = workspace.out.read_bytes()
    summary = workspace.candidates()
    assert (summary.stats.opened, summary.stats.asked, summary.rows.ok) == (0, 0, IMAGES)
    assert (summary.listing.new, summary.listing.changed, summary.listing.unread) == (0, 0, 0)
    assert workspace.out.read_bytes() == before


def test_a_run_that_has_nothing_to_do_says_what_is_left_out_as_well(workspace: Workspace) -> None:
    class Notes(Silent):
        def note(self, message: str) -> None:
            notes.append(message)

    (workspace.images / "movie.mp4").write_bytes(b"")
    workspace.candidates()
    notes: list[str] = []
    run_job(workspace.candidates_job(), RunOptions(), Notes())
    assert notes == ["left out: 1 .mp4"]


@pytest.mark.parametrize("place", [place for place in PLACES if "S3" in place])
def test_a_second_run_opens_nothing_in_a_bucket(workspace: Workspace, place: str) -> None:
    store = object_store()
    root = on(workspace, place).source or ""
    store.requests.clear()
    workspace.candidates()
    assert store.opened(root)
    store.requests.clear()
    workspace.candidates()
    assert store.opened(root) == []


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_remote_shard_is_read_once_and_only_new_ones_later(workspace: Workspace, kind: str) -> None:
    store = object_store()
    root = on(workspace, f"{kind} on S3").source or ""
    workspace.candidates()
    workspace.paint(100, "late.png")
    late = {"late.png": (workspace.images / "late.png").read_bytes()}
    store.upload(f"{root}/00001z.{kind}", {"tar": tar_of, "parquet": parquet_of}[kind](late))
    store.requests.clear()
    summary = workspace.candidates()
    assert set(store.opened(root)) == {f"00001z.{kind}"}
    assert (summary.stats.asked, summary.rows.ok) == (EACH, IMAGES + 1)
    names = [row.image_id.rpartition("/")[2] for row in rows(workspace.out)]
    assert names.index("late.png") == 10  # behind the images of the second shard


def test_shards_that_nobody_has_read_are_shown_as_shards(workspace: Workspace) -> None:
    on(workspace, "tar on S3")
    report = workspace.dry_run()
    assert (report.listing.unread, report.listing.total, report.pending.images) == (4, 0, 0)
    assert any("4 shards" in line for line in report.lines())
    assert not workspace.out.exists()
    assert workspace.candidates().stats.shards == 4


@pytest.mark.parametrize("where", ["", " on S3"])
def test_what_is_left_out_is_told_once(workspace: Workspace, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace.images / "caption.txt").write_text("a cat")
    told: list[str] = []
    monkeypatch.setattr(Silent, "note", lambda _, message: told.append(message))
    on(workspace, f"tar{where}").candidates()
    assert [message for message in told if message.startswith("left out")] == ["left out: 1 .txt"]


@pytest.mark.parametrize("place", ["tar", "parquet", "tar on S3", "parquet on S3"])
def test_a_changed_shard_is_read_again_and_only_other_images_are_asked_about(workspace: Workspace, place: str) -> None:
    kind = place.partition(" on ")[0]
    root = on(workspace, place).source or ""
    workspace.candidates()
    workspace.paint(200, "001.png")
    (workspace.images / "004.png").unlink()
    first = shards_of(files_below(workspace.images), kind, 4)[f"00000.{kind}"]
    put_shard(root, f"00000.{kind}", first)
    summary = workspace.candidates()
    assert summary.stats.asked == EACH
    names = [row.image_id.rpartition("/")[2] for row in rows(workspace.out)]
    assert names == sorted(path.name for path in workspace.images.iterdir())


@pytest.mark.parametrize("place", ["folder", "tar", "parquet", "tar on S3"])
def test_what_was_excluded_comes_with_the_next_run_without_the_option(workspace: Workspace, place: str) -> None:
    on(workspace, place)
    names = ("*3.png",) if place != "parquet" else ("00003.parquet",)
    assert workspace.candidates({"source_options": SourceOptions(exclude=names)}).rows.ok == 15
    assert workspace.candidates().rows.ok == IMAGES
    assert workspace.candidates({"source_options": SourceOptions(exclude=names)}, allow_gone=True).rows.ok == 15


@pytest.mark.parametrize("where", ["", " on S3"])
def test_more_shards_by_a_wider_pattern_open_no_other(workspace: Workspace, where: str) -> None:
    root = on(workspace, f"tar{where}").source or ""
    workspace.source = f"{root}/{{00000..00001}}.tar"
    assert workspace.candidates().rows.ok == 10
    workspace.source = f"{root}/{{00000..00002}}.tar"
    store = object_store()
    store.requests.clear()
    assert workspace.candidates().rows.ok == 15
    assert set(store.opened(root)) == ({"00002.tar"} if where else set())


@pytest.mark.parametrize("where", ["", " on S3"])
def test_a_shard_that_changed_for_a_limited_run_and_back_has_its_own_labels(workspace: Workspace, where: str) -> None:
    root = on(workspace, f"tar{where}").source or ""
    original = shards_of(files_below(workspace.images), "tar")["00000.tar"]
    workspace.candidates()
    before = rows(workspace.out)
    path = Path(root) / "00000.tar"
    time = 0 if where else path.stat().st_mtime_ns
    workspace.paint(200, "001.png")
    put_shard(root, "00000.tar", shards_of(files_below(workspace.images), "tar")["00000.tar"])
    workspace.candidates(limit=3)
    put_shard(root, "00000.tar", original)
    if not where:
        os.utime(path, ns=(time, time))
    assert workspace.candidates().stats.asked == 0
    assert rows(workspace.out) == before


@pytest.mark.parametrize("where", ["", " on S3"])
def test_a_shard_that_cannot_be_read_any_more_keeps_its_rows(workspace: Workspace, where: str) -> None:
    root = on(workspace, f"tar{where}").source or ""
    whole = shards_of(files_below(workspace.images), "tar")["00001.tar"]
    workspace.candidates()
    before = workspace.rows()
    put_shard(root, "00001.tar", whole[:1400])
    summary = workspace.candidates(max_failed_rate=1.0)
    assert (summary.rows.ok, summary.rows.failed, summary.stats.asked) == (IMAGES, 1, 0)
    assert workspace.rows().items() >= before.items()
    put_shard(root, "00001.tar", whole)
    assert workspace.candidates().stats.asked == 0
    assert workspace.rows() == before


@pytest.mark.parametrize("place", ["tar", "parquet", "tar on S3"])
@pytest.mark.parametrize("options", [{"limit": 3}, {}])
def test_damage_in_the_record_of_a_shard_is_not_taken_for_its_images(
    workspace: Workspace, place: str, options: dict[str, Any]
) -> None:
    on(workspace, place).candidates()
    before = rows(workspace.out)
    with closing(sqlite3.connect(workspace.out.with_suffix(".evidence"))) as evidence:
        evidence.execute("UPDATE image SET uri = replace(uri, '#', '#9') WHERE position = 1 AND shard < '00001'")
        evidence.commit()
    assert workspace.candidates(**options).stats.asked == 0
    assert rows(workspace.out) == before
    assert workspace.candidates({"min_votes": 2}).stats.asked == 0  # every row is made anew
    assert [row.uri for row in rows(workspace.out)] == [row.uri for row in before]


def put_shard(root: str, name: str, data: bytes) -> None:
    if "://" in root:
        object_store().upload(f"{root}/{name}", data)
    else:
        (Path(root) / name).write_bytes(data)


def test_parts_are_the_whole_and_stay_as_they_are(workspace: Workspace, place: str) -> None:
    on(workspace, place).candidates()
    whole = {row.image_id: row for row in rows(workspace.out)}
    found: dict[str, Row] = {}
    for index in range(2):
        workspace.out = workspace.out.with_name(f"part-{index}.parquet")
        workspace.candidates(part=Part(index, 2))
        part = {row.image_id: row for row in rows(workspace.out)}
        assert not part.keys() & found.keys()
        found.update(part)
        assert workspace.candidates(part=Part(index, 2)).stats.asked == 0
        with pytest.raises(TableError, match=f"holds --shard {index}/2"):
            workspace.candidates(part=Part(1 - index, 2))
    assert found == whole


def test_limit_and_sample_take_the_same_everywhere(workspace: Workspace, place: str) -> None:
    on(workspace, place)
    assert [row.status for row in rows_after(workspace, limit=3)] == ["ok"] * 3
    assert workspace.candidates(limit=5).stats.asked == 2 * EACH
    assert workspace.candidates(sample=4, seed=1).rows.total >= 5
    again = workspace.candidates(sample=4, seed=1)
    assert again.stats.asked == 0
    assert workspace.candidates().rows.ok == IMAGES


def rows_after(workspace: Workspace, **options: Any) -> list[Row]:
    workspace.candidates(**options)
    return rows(workspace.out)


def test_by_hash_every_image_is_read_and_nothing_is_asked(workspace: Workspace, place: str) -> None:
    on(workspace, place).candidates()
    summary = workspace.candidates(by_hash=True)
    assert (summary.stats.opened, summary.stats.asked) == (IMAGES, 0)


@pytest.mark.parametrize("where", ["", " on S3"])
def test_a_damaged_shard_is_a_failed_row_until_it_is_whole(workspace: Workspace, where: str) -> None:
    root = on(workspace, f"tar{where}").source or ""
    whole = shards_of(files_below(workspace.images), "tar")["00001.tar"]

    put_shard(root, "00001.tar", whole[:1400])
    summary = workspace.candidates(max_failed_rate=1.0)
    found = {row.image_id: row for row in rows(workspace.out)}
    assert (summary.rows.failed, found["00001.tar"].status) == (1, "failed")
    assert (found["00001.tar"].error or "").startswith("truncated_file: ")
    assert summary.rows.ok == IMAGES - 4
    put_shard(root, "00001.tar", whole)
    summary = workspace.candidates()
    assert (summary.rows.ok, summary.rows.failed, summary.stats.asked) == (IMAGES, 0, 4 * EACH)


def test_credentials_that_expire_end_the_run_and_it_goes_on_later(workspace: Workspace) -> None:
    for number in range(IMAGES, 60):
        workspace.paint(number)
    on(workspace, "folder on S3")
    with object_store().failing(expired_after(8)):
        summary = workspace.candidates()
    assert isinstance(summary.error, StoppedRunError)
    assert "forbidden" in summary.error.message
    assert summary.rows.pending > 20
    assert summary.rows.failed <= 17
    done = summary.rows.ok
    assert workspace.candidates().stats.asked == EACH * (60 - done)


def test_a_host_that_refuses_all_costs_a_manifest_its_images_and_no_others(workspace: Workspace) -> None:
    with WebServer() as web:
        refused = [f"/{number}.png" for number in range(40)]
        for path in refused:
            web.on(path, Reply(403))
        manifest = workspace.images.parent / "images.txt"
        urls, files = (web.url + path for path in refused), map(str, sorted(workspace.images.iterdir()))
        manifest.write_text("\n".join([*urls, *files]))
        workspace.source = str(manifest)
        summary = workspace.candidates(max_failed_rate=1.0)
    assert summary.error is None
    assert (summary.rows.ok, summary.rows.failed) == (IMAGES, 40)


def test_credentials_that_never_worked_are_an_error_before_anything_is_written(workspace: Workspace) -> None:
    on(workspace, "tar on S3")
    with object_store().failing(lambda method, path: (403, "AccessDenied")), pytest.raises(SourceError) as caught:
        workspace.candidates()
    assert "\n" not in caught.value.message
    assert not workspace.out.with_suffix(".evidence").exists()


def test_offline_the_source_on_record_is_kept(workspace: Workspace, place: str) -> None:
    on(workspace, place).candidates()
    before = workspace.out.read_bytes()
    workspace.out.unlink()
    assert workspace.candidates(offline=True).rows.ok == IMAGES
    assert workspace.out.read_bytes() == before


@pytest.mark.parametrize("where", ["", " on S3"])
def test_shards_without_an_image_are_an_error_that_says_what_is_in_them(workspace: Workspace, where: str) -> None:
    root = on(workspace, f"tar{where}").source or ""
    for number in range(4):
        data = tar_of({f"{number}.json": b"{}"})
        if where:
            object_store().upload(f"{root}/{number:05}.tar", data)
        else:
            (Path(root) / f"{number:05}.tar").write_bytes(data)
    for _ in range(2):
        with pytest.raises(SourceError, match="there are no images") as caught:
            workspace.candidates()
        assert not workspace.out.exists()
    assert where or "4 .json" in caught.value.hint


def test_shards_that_an_interrupted_run_did_not_reach_are_told_and_missed_offline(workspace: Workspace) -> None:
    class Interrupted(RuleEngine):
        async def ask(self, picture: Any, requests: Any) -> AsyncGenerator[Any]:
            async for pair in super().ask(picture, requests):
                yield pair
            if len(self.asked) == 6 * EACH:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(0.05)

    on(workspace, "tar on S3")
    workspace.engine = Interrupted(capacity=EACH)
    summary = workspace.candidates()
    assert isinstance(summary.error, InterruptedRunError)
    assert summary.lines()[0].endswith("shards are not read yet")
    with pytest.raises(OfflineError, match="shards were never read to their end"):
        workspace.candidates(offline=True)
    assert workspace.candidates(offline=True, missing_unknown=True).rows.total < IMAGES
    workspace.engine = RuleEngine()
    assert workspace.candidates().rows.ok == IMAGES
    assert workspace.candidates(offline=True).rows.ok == IMAGES
