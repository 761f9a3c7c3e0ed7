"""Folders of images as people really have them: odd names, links in circles, pipes, files without permission."""

from __future__ import annotations

import inspect
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

import pytest

from tagllm_cli.errors import SourceError
from tagllm_cli.records import Image
from tagllm_cli.sources import read as files
from tagllm_cli.sources.registry import Folder, ReadFailure, open_source

ODD_NAMES = [
    "with space.jpg",
    " leading.jpg",
    "-leading-dash.png",
    "--help.jpg",
    "new\nline.jpg",
    "tab\tand\x1bescape.jpg",
    "quote'\"`.jpg",
    "percent%20#hash?.jpg",
    "back\\slash.jpg",
    "猫とÄpfel é🐈.webp",
    "e\u0301 and \u00e9.jpg",
    "two..dots...jpg",
    "n" * 246 + ".jpg",
]


def put(root: Path, *paths: str) -> None:
    """Write files below root whose content is their own path."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def ids(root: Path) -> list[str]:
    return [image.id for image in open_source(str(root)).images()]


def failure(root: Path, image: Image | str) -> str:
    """Return the kind of failure that reading this image ends in."""
    image = Image(image, image) if isinstance(image, str) else image
    with pytest.raises(ReadFailure) as caught:
        Folder.rooted(root).read(image)
    assert caught.value.message
    return caught.value.kind


def test_images_come_in_the_order_of_path_segments(tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a/2.jpg", "a/10.jpg", "a.jpg", "a/z/1.jpg", "a b/1.jpg", "a-b.jpg", "C.jpg")
    expected = ["C.jpg", "a/10.jpg", "a/2.jpg", "a/z/1.jpg", "a b/1.jpg", "a-b.jpg", "a.jpg", "b.jpg"]
    assert ids(tmp_path) == expected
    assert expected == sorted(expected, key=lambda name: PurePosixPath(name).parts)


def test_images_are_told_by_extension(tmp_path: Path) -> None:
    images = ["a.jpg", "b.JPEG", "c.jpe", "d.jfif", "e.Png", "f.webp", "g.gif", "h.bmp", "i.dib", "j.tif", "k.TIFF"]
    put(tmp_path, *images, "notes.txt", "jpg", ".jpg", ".hidden.jpg", ".git/x.jpg", "a.jpg.part", "z.jpg~", "v.mp4")
    assert ids(tmp_path) == images


def test_version_and_bytes(tmp_path: Path) -> None:
    put(tmp_path, "deep/er/a.jpg")
    os.utime(tmp_path / "deep/er/a.jpg", ns=(1, 1_700_000_000_123_456_789))
    source = open_source(str(tmp_path))
    (image,) = source.images()
    assert image == Image("deep/er/a.jpg", "deep/er/a.jpg", "13-1700000000123456789")
    assert source.read(image) == b"deep/er/a.jpg"


def test_odd_names(tmp_path: Path) -> None:
    put(tmp_path, *ODD_NAMES, *(f"folder {name}/{name}" for name in ODD_NAMES[:9]))
    source = open_source(str(tmp_path))
    images = list(source.images())
    assert {image.id for image in images} == {*ODD_NAMES, *(f"folder {name}/{name}" for name in ODD_NAMES[:9])}
    for image in images:
        assert source.read(image) == image.id.encode()


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    names = [b"caf\xe9.jpg", b"caf\\xe9.jpg", b"\xff\\xff.jpg", b"\\xff\xff.jpg", b"dir\xe9/a.jpg", b"dir\\xe9/a.jpg"]
    for name in names:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name)
    images = list(open_source(str(tmp_path)).images())
    assert len({image.id for image in images}) == len(names)
    bad = [image for image in images if image.id.startswith("//")]
    assert len(bad) == 4
    for image in images:
        assert image.id.isprintable()
        assert image.id.encode("utf-8")
        if image in bad:
            assert failure(tmp_path, image) == "bad_name"
        else:
            assert Folder.rooted(tmp_path).read(image) == image.id.encode()


def test_link_loops_end_nothing(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "b" / "a").symlink_to("../a")
    (tmp_path / "round.jpg").symlink_to("round.jpg")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert ids(tmp_path) == ["a/1.jpg", "b/2.jpg", "b/a/1.jpg", "round.jpg"]
    assert failure(tmp_path, "round.jpg") == "unreadable"


def test_links_are_followed(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/1.jpg", "elsewhere/below/2.jpg", "source/0.jpg")
    (tmp_path / "source" / "1.jpg").symlink_to("../elsewhere/1.jpg")
    (tmp_path / "source" / "more").symlink_to("../elsewhere")
    (tmp_path / "alias").symlink_to("source")
    assert ids(tmp_path / "alias") == ["0.jpg", "1.jpg", "more/1.jpg", "more/below/2.jpg"]
    source = open_source(str(tmp_path / "alias"))
    sizes = [(int(image.version.split("-")[0]), len(source.read(image))) for image in source.images()]
    assert sizes == [(12, 12), (15, 15), (15, 15), (21, 21)]


@pytest.fixture
def impatience() -> Iterator[None]:
    """Interrupt whoever waits for the other end of a pipe: nobody is there."""

    def interrupt(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("impatience")
def test_what_is_no_file_is_listed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "broken.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "null.jpg").symlink_to("/dev/null")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")  # relative: the path of a socket must be short
        images = list(open_source(str(tmp_path)).images())
        assert [image.id for image in images] == ["broken.jpg", "null.jpg", "pipe.jpg", "socket.jpg"]
        assert {failure(tmp_path, image) for image in images} == {"not_a_file"}


def test_folders_named_like_images(tmp_path: Path) -> None:
    put(tmp_path, "folder.jpg/inside.png", "empty.jpg/readme.txt")
    assert ids(tmp_path) == ["folder.jpg/inside.png"]
    assert failure(tmp_path, "folder.jpg") == "not_a_file"


def test_files_that_have_vanished(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b/c.jpg")
    source = open_source(str(tmp_path))
    first, second = source.images()
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "b" / "c.jpg").unlink()
    (tmp_path / "b").rmdir()
    put(tmp_path, "b")
    assert failure(tmp_path, first) == "vanished"
    assert failure(tmp_path, second) == "vanished"


def test_a_folder_that_vanishes_during_the_listing(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b/c.jpg", "d.jpg")
    listing = open_source(str(tmp_path)).images()
    first = next(listing)
    (tmp_path / "b" / "c.jpg").unlink()
    (tmp_path / "b").rmdir()
    assert [image.id for image in (first, *listing)] == ["a.jpg", "d.jpg"]


def test_files_and_folders_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.jpg", "locked/b.jpg")
    _lock(tmp_path / "a.jpg", monkeypatch)
    assert failure(tmp_path, "a.jpg") == "unreadable"
    assert [image.id for image in islice(open_source(str(tmp_path)).images(), 2)] == ["a.jpg", "locked/b.jpg"]
    _lock(tmp_path / "locked", monkeypatch)
    with pytest.raises(SourceError, match="locked' cannot be listed: Permission denied"):
        ids(tmp_path)
    with pytest.raises(SourceError, match="cannot be listed: Permission denied"):
        open_source(str(tmp_path / "locked"))


def _lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away all permissions; to root, whom permissions do not bind, the system calls refuse it instead."""
    path.chmod(0)
    if os.geteuid() != 0:
        return
    for name in ("open", "scandir"):
        monkeypatch.setattr(os, name, _refusing(path, getattr(os, name)))


def _refusing(path: Path, call: Callable) -> Callable:
    def refuse(target: str, *arguments: int) -> object:
        if os.fspath(target) == os.fspath(path):
            raise PermissionError(13, "Permission denied", target)
        return call(target, *arguments)

    return refuse


def test_files_larger_than_any_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(10_000_000_000_000)
    assert failure(tmp_path, "a.jpg") == "too_large"
    (tmp_path / "a.jpg").write_bytes(b"12345")
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 5)
    assert Folder.rooted(tmp_path).read(Image("a.jpg", "a.jpg")) == b"12345"


@pytest.mark.parametrize("spec", ["", "nowhere", "file.jpg", "broken", "file.jpg/x"])
def test_sources_that_cannot_be_used(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "file.jpg")
    (tmp_path / "broken").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as caught:
        open_source(spec)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_root_that_is_not_there_is_not_empty(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be listed"):
        next(Folder.rooted(tmp_path / "unmounted").images())


def test_a_root_whose_path_cannot_be_written_down(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    root.mkdir()
    with pytest.raises(SourceError, match="not UTF-8"):
        open_source(str(root))


def test_the_root_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "source/a.jpg")
    monkeypatch.chdir(tmp_path / "source")
    for folder in (open_source("../source"), Folder.rooted(Path("."))):
        assert folder.root == tmp_path / "source"
    assert ids(tmp_path / "source" / "..") == ["source/a.jpg"]


def test_an_absolute_uri_stays_below_the_root(tmp_path: Path) -> None:
    put(tmp_path, "root/a.jpg", "b.jpg")
    assert failure(tmp_path / "root", str(tmp_path / "b.jpg")) == "vanished"
    assert failure(tmp_path / "root", "nul\0.jpg") == "bad_name"


def test_folders_deeper_than_the_stack(tmp_path: Path) -> None:
    put(tmp_path, "d/" * 200 + "a.jpg")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        assert ids(tmp_path) == ["d/" * 200 + "a.jpg"]
    finally:
        sys.setrecursionlimit(limit)
