"""Tar shards that are cut, damaged, made to harm or no tar files, and that change or vanish while they are read."""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tagllm_cli.records import Image
from tagllm_cli.sources.base import list_images
from tests.support.tars import TarFolder, failure, member, packed


@pytest.fixture(params=[False, True], ids=["local", "remote"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> TarFolder:
    return TarFolder(tmp_path, request.param)


def test_archives_without_an_image(folder: TarFolder) -> None:
    for data, expected in [
        (b"", {"a.tar": "empty_file: 0 bytes; copy or download it again"}),
        (bytes(1024), {}),
        (bytes(10240), {}),
        (bytes(100), {}),
        (packed(), {}),
        (packed(member("a.txt", b"x")), {}),
    ]:
        assert folder.read(data) == expected


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>" * 50, "a web page; copy or download it again"),
        (b"\x1f\x8b\x08" + bytes(range(256)) * 9, "a gzip archive; decompress it"),
        (b"PK\x03\x04" + bytes(range(256)) * 9, "a zip archive; unpack it"),
        (b'{"error": "no such key"}', "JSON; copy or download it again"),
        (b"\xff\xd8\xff\xe0" + bytes(range(256)) * 9, "an image (JPEG); copy or download it again"),
        (bytes(range(256)) * 9, "bytes of no format that is known here; copy or download it again"),
    ],
)
def test_files_that_are_no_tar(data: bytes, what: str, folder: TarFolder) -> None:
    assert folder.read(data) == {"a.tar": f"not_a_tar: not a tar archive but {what}"}


def test_a_damaged_header_ends_the_shard_with_a_reason(folder: TarFolder) -> None:
    data = bytearray(packed(*[member(f"{number}.jpg", b"x") for number in range(4)]))
    data[2048 + 30] ^= 0xFF
    got = folder.read(bytes(data))
    reason = "the archive is damaged at byte 2048 (bad checksum), and what follows is not read"
    assert got.pop("a.tar") == f"corrupt_file: {reason}; copy or download it again"
    assert got == {"a.tar/0.jpg": b"x", "a.tar/1.jpg": b"x"}


def test_a_hole_of_zeros_is_no_end(folder: TarFolder) -> None:
    """As downloads in pieces leave them: what lies behind is read on, or the shard is named as damaged."""
    files = [member(f"{number}.jpg", b"x" * 600) for number in range(4)]
    whole = bytearray(packed(*files))
    whole[1536 : 2 * 1536] = bytes(1536)
    assert list(folder.read(bytes(whole))) == ["a.tar/0.jpg", "a.tar/2.jpg", "a.tar/3.jpg"]
    whole[2 * 1536 : 2 * 1536 + 700] = bytes(700)
    got = folder.read(bytes(whole))
    assert list(got) == ["a.tar/0.jpg", "a.tar"]
    assert str(got["a.tar"]).startswith("corrupt_file: the archive is damaged at byte 3584")
    reserved = packed(*files)[: 2 * 1536] + bytes(2 << 20)
    got = folder.read(reserved)
    assert list(got) == ["a.tar/0.jpg", "a.tar/1.jpg", "a.tar"]
    assert str(got["a.tar"]).startswith(f"truncated_file: the archive ends in {2 << 20} bytes of zeros")


def test_archives_that_were_joined_are_all_read(folder: TarFolder) -> None:
    data = packed(member("a.jpg", b"1")) + packed(member("a.jpg", b"2"), member("b.jpg", b"3"))
    assert folder.read(data) == {"a.tar/a.jpg": b"1", "a.tar/a.jpg#2": b"2", "a.tar/b.jpg": b"3"}


def _with_size(data: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """Return the archive with the size field and the type of its first header replaced, and a right checksum."""
    header = bytearray(data[:512])
    header[124:136], header[156:157] = size.ljust(12, b"\0"), kind
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + data[512:]


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        (b"\xff" * 11 + b"\x00", b"0"),  # -256
        (b"-777", b"0"),
        (b"99999999999", b"0"),  # not octal
        (b"77777777777", b"0"),  # behind the end
        (b"\x80" + b"\xff" * 11, b"0"),  # 2 ** 88
        (b"\x80" + b"\xff" * 11, b"5"),
        (b"77777777777", b"x"),  # records of 8 GB
        (b"77777777777", b"L"),
        (b"\xff" * 12, b"S"),
        (b"1000", b"x"),  # records that are none, and then no header
    ],
)
def test_headers_made_to_harm_are_damage(size: bytes, kind: bytes, folder: TarFolder) -> None:
    data = packed(member("a.jpg", b"x" * 600), member("b.jpg", b"y"))
    got = folder.read(_with_size(data, size, kind))
    assert {name for name, value in got.items() if isinstance(value, str)} == {"a.tar"}


def test_a_long_name_that_would_fill_the_memory_is_damage(folder: TarFolder) -> None:
    data = _with_size(packed(member("././@LongLink")), b"10000000", b"L")[:512] + bytes(2 << 20)
    got = folder.read(data + packed(member("a.jpg", b"x")))
    reason = f"the archive is damaged at byte 0 (a header of {2 << 20} bytes), and what follows is not read"
    assert got == {"a.tar": f"corrupt_file: {reason}; copy or download it again"}


@pytest.mark.parametrize("size", ["-5", "-100000", "x", "9" * 5000])
def test_records_that_say_an_impossible_size_are_damage(size: str, folder: TarFolder) -> None:
    got = folder.read(packed(member("a.jpg", b"x"), member("b.jpg", b"y", pax_headers={"size": size})))
    assert got.pop("a.tar/a.jpg") == b"x"
    assert [name for name, data in got.items() if data != b""] == ["a.tar"]


def test_headers_nested_deeper_than_the_stack_are_damage(folder: TarFolder) -> None:
    one = _with_size(packed(member("a.jpg")), b"0", b"x")[:512]
    got = folder.read(one * 3000 + packed(member("b.jpg")))
    reason = "the archive is damaged at byte 0 (headers that make no sense), and what follows is not read"
    assert got == {"a.tar": f"corrupt_file: {reason}; copy or download it again"}


def test_a_shard_that_changes_or_vanishes_between_listing_and_reading(folder: TarFolder) -> None:
    files = [member("a.jpg", b"old"), member("b.jpg", b"old")]
    tar = folder.source(packed(*files))
    images = list(list_images(tar))
    assert [tar.read(image) for image in images] == [b"old", b"old"]
    folder.source(packed(member("c.jpg", b"new"), *files))
    assert failure(tar, images[0]) == ("changed", "the archive changed since it was listed; run again")
    assert [tar.read(image) for image in list_images(tar)] == [b"new", b"old", b"old"]
    with (folder.path / "a.tar").open("r+b") as file:  # in place, under the open descriptor
        file.truncate(700)
    assert failure(tar, images[1])[0] == "changed"
    assert failure(tar, Image("a.tar/b.jpg", images[1].uri, shard="a.tar"))[0] == "truncated_file"
    (folder.path / "a.tar").unlink()
    assert failure(tar, images[0]) == ("vanished", "the file is not there any more")


def test_a_shard_that_vanishes_or_changes_while_it_is_listed(tmp_path: Path) -> None:
    folder = TarFolder(tmp_path)
    tar = folder.source(packed(*[member(f"{number}.jpg", b"x") for number in range(3)]))
    (shard,) = tar.shards()
    listing = tar.images(shard)
    next(listing)
    os.utime(folder.path / "a.tar", ns=(1, 1))
    *_, last = listing
    assert failure(tar, last) == ("changed", "the file changed while it was listed; run again")
    (folder.path / "a.tar").unlink()
    (only,) = tar.images(shard)
    assert (only.id, only.uri, only.shard) == ("a.tar", "a.tar", "a.tar")
    assert failure(tar, only)[0] == "vanished"


def test_the_image_of_a_damaged_shard_says_why_in_another_process_too(folder: TarFolder) -> None:
    tar = folder.source(packed(member("a.jpg", b"x" * 600))[:900])
    (image,) = list_images(tar)
    expected = ("truncated_file", "the archive ends too early, at byte 900 in 'a.jpg'; copy or download it again")
    assert failure(tar, image) == expected
    assert failure(folder.source(), Image("a.tar", "a.tar", shard="a.tar")) == expected
    again = folder.source(packed(member("a.jpg", b"x" * 600)))
    assert [each.id for each in list_images(tar)] == ["a.tar/a.jpg"]
    for each in (tar, again):
        assert failure(each, image) == ("changed", "the archive can be read now; run again")


def test_a_shard_that_is_replaced_just_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = TarFolder(tmp_path).source(packed(member("a.jpg", b"old")))
    (image,) = list_images(tar)
    (tmp_path / "new").write_bytes(packed(member("a.jpg", b"new")))
    opened = os.open

    def replace_and_open(path: str, flags: int) -> int:
        (tmp_path / "new").replace(path)
        return opened(path, flags)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", replace_and_open)
        assert failure(tar, image)[0] == "changed"
    assert [tar.read(each) for each in list_images(tar)] == [b"new"]


def test_shards_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.tar")
    (tmp_path / "link.tar").symlink_to("nowhere.tar")
    (tmp_path / "whole.tar").write_bytes(packed(member("a.jpg", b"x")))
    (tmp_path / "folder.tar").mkdir()
    got = TarFolder(tmp_path).read()
    assert got.pop("whole.tar/a.jpg") == b"x"
    assert {name: str(reason).partition(":")[0] for name, reason in got.items()} == {
        "fifo.tar": "not_a_file",
        "link.tar": "not_a_file",
    }


def test_a_shard_without_permission_and_a_failing_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = TarFolder(tmp_path).source(packed(member("a.jpg", b"x")))
    (image,) = list_images(tar)

    def refuse(error: int) -> Callable[..., NoReturn]:
        def call(*_: object) -> NoReturn:
            raise OSError(error, os.strerror(error))

        return call

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", refuse(errno.EIO))
        assert failure(tar, image) == ("unreadable", "Input/output error")
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse(errno.EACCES))
        assert TarFolder(tmp_path).read() == {"a.tar": "unreadable: Permission denied"}
    with monkeypatch.context() as patched:
        patched.setattr(tarfile.TarInfo, "fromtarfile", refuse(errno.EIO))
        assert TarFolder(tmp_path).read() == {"a.tar": "unreadable: Input/output error"}
