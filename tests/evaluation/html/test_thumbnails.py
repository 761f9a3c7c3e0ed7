"""Thumbnails of any source: upright, within their bytes, or a reason why there is none."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from tagllm_cli.errors import SourceError
from tagllm_cli.evaluation.html.thumbnails import Thumbnail, Wanted, make_thumbnails
from tagllm_cli.records import SourceInfo, digest16
from tagllm_cli.sources.base import list_images, read_or_failure
from tagllm_cli.sources.registry import open_source
from tests.support.image_files import encode, photo
from tests.support.packing import packed

MANY = 10_000_000


def wanted_of(spec: str) -> tuple[SourceInfo, list[Wanted]]:
    """Return a source's description and all its images, as a table remembers them."""
    source = open_source(spec)
    found = []
    for image in list_images(source):
        data = read_or_failure(source, image)
        assert isinstance(data, bytes)
        found.append(Wanted(image.id, image.uri, digest16(data)))
    return source.describe(), found


def opened(thumbnail: Thumbnail) -> Image.Image:
    assert not thumbnail.reason
    head, _, text = thumbnail.url.partition(",")
    assert head == "data:image/webp;base64"
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    assert image.size == (thumbnail.width, thumbnail.height)
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven photos of 900 x 600 pixels."""
    below = tmp_path / "photos"
    below.mkdir()
    for number in range(7):
        (below / f"{number}.jpg").write_bytes(encode(photo(900, 600, seed=number), "JPEG"))
    return below


@pytest.mark.parametrize("place", ["folder", "tar on disk", "parquet on disk"])
def test_every_source_gives_the_same_thumbnails(folder: Path, tmp_path: Path, place: str) -> None:
    spec = str(folder) if place == "folder" else packed(folder, place, tmp_path / "packed", per_shard=3)
    info, images = wanted_of(spec)
    made = list(make_thumbnails(info, None, images[1:6], MANY))
    assert [each.webp for each in made] == [each.webp for each in make_thumbnails(*_from_folder(folder), MANY)]
    assert opened(made[0]).size == (320, 213)


def _from_folder(folder: Path) -> tuple[SourceInfo, str | None, list[Wanted]]:
    info, images = wanted_of(str(folder))
    return info, None, images[1:6]


def test_a_photo_taken_sideways_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.jpg").write_bytes(encode(photo(900, 600), "JPEG", exif=exif))
    info, images = wanted_of(str(tmp_path))
    (made,) = make_thumbnails(info, None, images, MANY)
    assert opened(made).size == (213, 320)


def test_all_together_stay_within_their_bytes(folder: Path) -> None:
    info, images = wanted_of(str(folder))
    large, small = (list(make_thumbnails(info, None, images, limit)) for limit in (MANY, 7 * 900))
    assert sum(len(each.webp) for each in small) <= 7 * 900
    assert all(opened(each).width < 320 for each in small)
    assert all(opened(each).width == 320 for each in large)


def test_what_fits_in_no_size_is_a_reason(folder: Path) -> None:
    info, images = wanted_of(str(folder))
    assert {each.reason.partition(":")[0] for each in make_thumbnails(info, None, images, 7)} == {"too_large"}


def test_images_that_changed_vanished_or_broke_have_a_reason(folder: Path) -> None:
    info, images = wanted_of(str(folder))
    (folder / "0.jpg").write_bytes(encode(photo(900, 600, seed=99), "JPEG"))
    (folder / "1.jpg").unlink()
    broken = b"\xff\xd8\xff broken"
    (folder / "2.jpg").write_bytes(broken)
    images[2] = Wanted("2.jpg", "2.jpg", digest16(broken))
    (folder.parent / "secret.jpg").write_bytes(encode(photo(), "JPEG"))
    images.append(Wanted("x", "../secret.jpg", b""))
    made = list(make_thumbnails(info, None, images, MANY))
    kinds = [each.reason.partition(":")[0] for each in made]
    assert kinds == ["changed", "vanished", "truncated_file", "", "", "", "", "bad_name"]
    assert [bool(each.url) for each in made] == [not kind for kind in kinds]


def test_images_moved_elsewhere_are_found_below_root(folder: Path, tmp_path: Path) -> None:
    info, images = wanted_of(str(folder))
    moved = folder.rename(tmp_path / "moved")
    gone = list(make_thumbnails(info, None, images, MANY))
    assert all("photos" in each.reason for each in gone)
    assert len(gone) == len(images)
    assert all(opened(each) for each in make_thumbnails(info, str(moved), images, MANY))
    with pytest.raises(SourceError, match="there is no folder"):
        list(make_thumbnails(info, str(tmp_path / "nowhere"), images, MANY))
