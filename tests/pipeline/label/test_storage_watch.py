"""Storage that is gone ends a run; hosts of single images do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagllm_cli.errors import SourceError
from tagllm_cli.pipeline.label.storage_watch import MOST_FAILURES, MOST_HOSTS, StorageWatch
from tagllm_cli.records import Image
from tagllm_cli.sources.base import ReadFailure, Source
from tagllm_cli.sources.folder import Folder
from tagllm_cli.sources.registry import open_source

GONE = ReadFailure("unreachable", "no answer")


@pytest.fixture
def manifest(tmp_path: Path) -> Source:
    path = tmp_path / "images.txt"
    path.write_text("https://images.example/0.jpg\n")
    return open_source(str(path))


def urls(count: int, hosts: int) -> list[Image]:
    return [Image(str(number), f"https://host-{number % hosts}.example/{number}.jpg") for number in range(count)]


def images(count: int) -> list[Image]:
    return [Image(f"{number}.jpg", f"{number}.jpg") for number in range(count)]


def ends_after(source: Source, images: list[Image], failure: ReadFailure = GONE) -> int | None:
    """Return how many images are looked at before the run ends, None where it does not."""
    watch = StorageWatch(source)
    for number, image in enumerate(images, 1):
        try:
            watch.add(image, failure)
        except SourceError:
            return number
    return None


@pytest.mark.parametrize("hosts", [1, MOST_HOSTS - 1])
def test_many_urls_of_few_dead_hosts_end_no_run(manifest: Source, hosts: int) -> None:
    assert ends_after(manifest, urls(1000, hosts)) is None


def test_rows_that_name_urls_of_a_dead_host_end_no_run(tmp_path: Path) -> None:
    rows = [Image(f"a.parquet/{number}", f"a.parquet#{number}", shard="a.parquet") for number in range(100)]
    dead = ReadFailure("unreachable", "Connection refused: https://gone.example/1.jpg")
    assert ends_after(Folder(tmp_path), rows, dead) is None


@pytest.mark.parametrize(("hosts", "end"), [(MOST_HOSTS, MOST_FAILURES), (20, MOST_FAILURES), (1000, MOST_FAILURES)])
def test_no_connection_to_any_host_ends_a_run(manifest: Source, hosts: int, end: int) -> None:
    assert ends_after(manifest, urls(1000, hosts)) == end


def test_files_beside_the_manifest_are_in_its_own_storage(manifest: Source) -> None:
    assert ends_after(manifest, images(100)) == MOST_FAILURES


@pytest.mark.parametrize("kind", ["forbidden", "unreachable"])
def test_a_source_whose_storage_fails_ends_a_run(tmp_path: Path, kind: str) -> None:
    assert ends_after(Folder(tmp_path), images(100), ReadFailure(kind, "no")) == MOST_FAILURES


def test_failures_that_are_the_images_own_end_no_run(tmp_path: Path) -> None:
    assert ends_after(Folder(tmp_path), images(1000), ReadFailure("vanished", "the file is gone")) is None


def test_one_image_that_can_be_read_begins_the_count_anew(tmp_path: Path) -> None:
    watch = StorageWatch(Folder(tmp_path))
    for image in images(100):
        for _ in range(MOST_FAILURES - 1):
            watch.add(image, GONE)
        watch.add(image, b"data")
