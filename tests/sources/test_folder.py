"""Folders as people have them: links, pipes, files without permission, other files, NAS folders, exclusions.

What every source owes is in test_conformance.py.
"""

from __future__ import annotations

import inspect
import os
import shlex
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
from tagllm_cli.sources.base import ReadFailure, SourceOptions, list_images
from tagllm_cli.sources.folder import Folder
from tagllm_cli.sources.registry import open_source


def put(root: Path, *paths: str) -> None:
    """Write files below root whose content is their own path."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def ids(root: Path, *exclude: str, skip_unreadable: bool = False) -> list[str]:
    return [image.id for image in list_images(open_source(str(root), SourceOptions(exclude, skip_unreadable)))]


def left_out(root: Path, *exclude: str, skip_unreadable: bool = False) -> dict[str, int]:
    source = open_source(str(root), SourceOptions(exclude, skip_unreadable))
    list(list_images(source))
    return dict(source.left_out)


def an_image(uri: str) -> Image:
    return Image(uri, uri)


def failure(root: Path, image: Image | str) -> str:
    """Return the kind of failure that reading this image ends in."""
    image = an_image(image) if isinstance(image, str) else image
    with pytest.raises(ReadFailure) as caught:
        Folder.at(str(root)).read(image)
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


def test_image_files_of_every_kind_are_listed(tmp_path: Path) -> None:
    """Also those that no decoder reads: their rows say so, instead of no row."""
    endings = "avif HEIC heif hif jxl jp2 j2k DNG cr2 cr3 nef arw orf rw2 raf"
    images = [f"{n:02}.{ending}" for n, ending in enumerate(endings.split())]
    put(tmp_path, *images)
    assert ids(tmp_path) == images


def test_other_files_are_counted_by_ending(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "1.mp4", "b/2.MP4", "b/3.mp4", "a.xmp", "Thumbs.db", "b/thumbs.db", ".DS_Store", "README")
    put(tmp_path, "backup.2024", "x.tar.gz", "odd. ending", "a.jpg~", "c/only.json")
    expected = {".mp4": 3, ".xmp": 1, "Thumbs.db": 2, "without a known ending": 4, ".gz": 1, ".json": 1}
    assert left_out(tmp_path) == expected


def test_a_changed_file_is_another_record(tmp_path: Path) -> None:
    put(tmp_path, "deep/er/a.jpg", "b.jpg")
    before = list(list_images(open_source(str(tmp_path))))
    os.utime(tmp_path / "deep/er/a.jpg", ns=(1, 1_700_000_000_123_456_789))
    after = list(list_images(open_source(str(tmp_path))))
    assert [image.id for image in after] == ["b.jpg", "deep/er/a.jpg"]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]


def test_nfd_and_nfc_names_are_two_files(tmp_path: Path) -> None:
    """Identity is the name as the disk has it."""
    names = ["cafe\u0301.jpg", "caf\u00e9.jpg"]
    put(tmp_path, *names)
    assert ids(tmp_path) == names
    assert [open_source(str(tmp_path)).read(an_image(name)) for name in names] == [name.encode() for name in names]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    names = [b"caf\xe9.jpg", b"caf\\xe9.jpg", b"\xff\\xff.jpg", b"\\xff\xff.jpg", b"dir\xe9/a.jpg", b"dir\\xe9/a.jpg"]
    for name in names:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name)
    images = list(list_images(open_source(str(tmp_path))))
    assert len({image.id for image in images}) == len(names)
    bad = [image for image in images if image.id.startswith("//")]
    assert len(bad) == 4
    for image in images:
        assert image.id.isprintable()
        assert image.id.encode("utf-8")
        if image in bad:
            assert failure(tmp_path, image) == "bad_name"
        else:
            assert Folder.at(str(tmp_path)).read(image) == image.id.encode()


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
    paths = ["source/0.jpg", "elsewhere/1.jpg", "elsewhere/1.jpg", "elsewhere/below/2.jpg"]
    assert [source.read(image).decode() for image in list_images(source)] == paths


@pytest.fixture
def alarm() -> Iterator[None]:
    """Interrupt a read that waits for the other end of a pipe."""

    def interrupt(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_what_is_no_file_is_listed_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "broken.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "null.jpg").symlink_to("/dev/null")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")  # relative: the path of a socket must be short
        images = list(list_images(open_source(str(tmp_path))))
        assert [image.id for image in images] == ["broken.jpg", "null.jpg", "pipe.jpg", "socket.jpg"]
        assert {failure(tmp_path, image) for image in images} == {"not_a_file"}


def test_folders_named_like_images(tmp_path: Path) -> None:
    put(tmp_path, "folder.jpg/inside.png", "empty.jpg/readme.txt")
    assert ids(tmp_path) == ["folder.jpg/inside.png"]
    assert failure(tmp_path, "folder.jpg") == "not_a_file"


def test_files_whose_folder_has_vanished(tmp_path: Path) -> None:
    put(tmp_path, "b/c.jpg")
    source = open_source(str(tmp_path))
    (image,) = list_images(source)
    (tmp_path / "b" / "c.jpg").unlink()
    (tmp_path / "b").rmdir()
    put(tmp_path, "b")
    assert failure(tmp_path, image) == "vanished"


def test_a_folder_that_vanishes_during_the_listing(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b/c.jpg", "d.jpg")
    listing = list_images(open_source(str(tmp_path)))
    first = next(listing)
    (tmp_path / "b" / "c.jpg").unlink()
    (tmp_path / "b").rmdir()
    assert [image.id for image in (first, *listing)] == ["a.jpg", "d.jpg"]


def test_files_and_folders_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.jpg", "locked/b.jpg")
    _lock(tmp_path / "a.jpg", monkeypatch)
    assert failure(tmp_path, "a.jpg") == "unreadable"
    assert [image.id for image in islice(list_images(open_source(str(tmp_path))), 2)] == ["a.jpg", "locked/b.jpg"]
    _lock(tmp_path / "locked", monkeypatch)
    with pytest.raises(SourceError, match="locked' cannot be listed: Permission denied") as caught:
        ids(tmp_path)
    assert caught.value.hint == "Allow reading it, or leave it out with --exclude locked or --skip-unreadable."
    with pytest.raises(SourceError, match="cannot be listed: Permission denied"):
        open_source(str(tmp_path / "locked"), SourceOptions(skip_unreadable=True))


def test_an_unreadable_folder_is_left_out_on_request_and_told_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.jpg", "x/it's [locked]/b.jpg")
    _lock(tmp_path / "x" / "it's [locked]", monkeypatch)
    with pytest.raises(SourceError) as caught:
        ids(tmp_path)
    words = shlex.split(caught.value.hint)
    advice = words[words.index("--exclude") + 1]
    assert ids(tmp_path, advice) == ["a.jpg"]
    assert left_out(tmp_path, skip_unreadable=True) == {"x/it's [locked]/ (unreadable)": 1}
    assert ids(tmp_path, skip_unreadable=True) == ["a.jpg"]


def test_lost_and_found_is_left_out_where_only_root_may_list_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "one.jpg", "lost+found/inside.jpg")
    assert ids(tmp_path) == ["lost+found/inside.jpg", "one.jpg"]
    _lock(tmp_path / "lost+found", monkeypatch)
    assert ids(tmp_path) == ["one.jpg"]
    assert left_out(tmp_path) == {"lost+found/ (unreadable)": 1}


def test_thumbnails_and_bins_are_left_out_and_told_about(tmp_path: Path) -> None:
    put(tmp_path, "IMG_1.jpg", "@eaDir/IMG_1.jpg/SYNOPHOTO_THUMB_M.jpg", "b/@eaDir/x.jpg", "#recycle/deleted.jpg")
    put(tmp_path, "$RECYCLE.BIN/S-1-5/$R1A2B3.jpg", "System Volume Information/x.jpg", ".Trash-1000/files/y.jpg")
    put(tmp_path, "@Recycle/z.jpg", "@eaDir.jpg", "recycle/kept.jpg")
    assert ids(tmp_path) == ["@eaDir.jpg", "IMG_1.jpg", "recycle/kept.jpg"]
    assert left_out(tmp_path) == {
        "@eaDir/": 2,
        "#recycle/": 1,
        "$RECYCLE.BIN/": 1,
        "System Volume Information/": 1,
        "@Recycle/": 1,
    }
    assert ids(tmp_path / "@eaDir") == ["IMG_1.jpg/SYNOPHOTO_THUMB_M.jpg"]


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [
        ("*.gif", ["2024/may/a.jpg", "2024/raw/b.jpg", "raw/c.jpg"]),
        ("raw", ["2024/may/a.jpg", "2024/may/d.gif"]),
        ("raw/", ["2024/may/a.jpg", "2024/may/d.gif"]),
        ("/raw", ["2024/may/a.jpg", "2024/may/d.gif", "2024/raw/b.jpg"]),
        ("2024/*", ["raw/c.jpg"]),
        ("2024/**", ["raw/c.jpg"]),
        ("2024/*/*.jpg", ["2024/may/d.gif", "raw/c.jpg"]),
        ("**/*.jpg", ["2024/may/d.gif"]),
        ("**/[ab].jpg", ["2024/may/d.gif", "raw/c.jpg"]),
        ("RAW", ["2024/may/a.jpg", "2024/may/d.gif", "2024/raw/b.jpg", "raw/c.jpg"]),
        ("", ["2024/may/a.jpg", "2024/may/d.gif", "2024/raw/b.jpg", "raw/c.jpg"]),
    ],
)
def test_exclusions(exclude: str, expected: list[str], tmp_path: Path) -> None:
    put(tmp_path, "2024/may/a.jpg", "2024/may/d.gif", "2024/raw/b.jpg", "raw/c.jpg")
    assert ids(tmp_path, exclude) == expected


def test_an_excluded_folder_is_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.jpg", "b.gif", "c.gif", "locked/d.jpg")
    _lock(tmp_path / "locked", monkeypatch)
    assert ids(tmp_path, "*.gif", "lock*") == ["a.jpg"]
    assert left_out(tmp_path, "*.gif", "lock*") == {"by --exclude '*.gif'": 2, "by --exclude 'lock*'": 1}


def test_where_everything_is_left_out_the_error_says_what(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4", "@eaDir/c.jpg", "d.gif")
    with pytest.raises(SourceError, match="there are no images in") as caught:
        ids(tmp_path, "*.gif")
    assert "Left out: 2 .mp4, 1 @eaDir/, 1 by --exclude '*.gif'." in caught.value.hint


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
    assert Folder.at(str(tmp_path)).read(an_image("a.jpg")) == b"12345"


def test_a_root_that_is_not_there_is_not_empty(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be listed"):
        next(list_images(Folder.at(str(tmp_path / "unmounted"))))


def test_no_uri_leads_out_of_the_root(tmp_path: Path) -> None:
    put(tmp_path, "root/a.jpg", "b.jpg")
    assert failure(tmp_path / "root", str(tmp_path / "b.jpg")) == "bad_name"
    assert failure(tmp_path / "root", "a/../../b.jpg") == "bad_name"
    assert failure(tmp_path / "root", "nul\0.jpg") == "bad_name"
    assert failure(tmp_path / "root", "../b.jpg") == "bad_name"


def test_folders_deeper_than_the_stack(tmp_path: Path) -> None:
    put(tmp_path, "d/" * 200 + "a.jpg")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        assert ids(tmp_path) == ["d/" * 200 + "a.jpg"]
    finally:
        sys.setrecursionlimit(limit)
