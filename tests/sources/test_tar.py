"""Tar shards as people have them: every dialect, members of every kind, files that are cut, damaged or no tar at all.

What every source owes is in test_conformance.py.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tagllm_cli.errors import SourceError
from tagllm_cli.records import Image, Shard
from tagllm_cli.sources.base import ReadFailure, SourceOptions, list_images, read_or_failure
from tagllm_cli.sources.tar import Tar

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def packed(*members: tuple[tarfile.TarInfo, bytes], form: str = "pax", **options: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=FORMATS[form], errors="surrogateescape", **options) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def source(root: Path, data: bytes | None = None, **options: object) -> Tar:
    """Return the tar files in a folder as a source, after writing these bytes as `a.tar`."""
    if data is not None:
        (root / "a.tar").write_bytes(data)
    return Tar.at(str(root), SourceOptions(**options))


def read(tar: Tar) -> dict[str, bytes | str]:
    """Return every image with its bytes, or with the kind and message of why there are none."""
    found: dict[str, bytes | str] = {}
    for shard in tar.shards():
        for image in tar.images(shard):
            data = read_or_failure(tar, image)
            assert image.id not in found
            found[image.id] = data if isinstance(data, bytes) else f"{data.kind}: {data.message}"
            assert not isinstance(data, ReadFailure) or "\n" not in data.message
    return found


def failure(tar: Tar, image: Image) -> tuple[str, str]:
    with pytest.raises(ReadFailure) as caught:
        tar.read(image)
    return caught.value.kind, caught.value.message


def test_shards_are_the_tar_files_below_the_root(tmp_path: Path) -> None:
    for name in ("b.tar", "deep/a.tar", "A.TAR", "10.tar", "9.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(packed(member("x.jpg", name.encode())))
    (tmp_path / "notes.txt").touch()
    shards = list(source(tmp_path).shards())
    assert [shard.name for shard in shards] == ["10.tar", "9.tar", "A.TAR", "b.tar", "deep/a.tar"]
    assert read(source(tmp_path)) == {f"{each.name}/x.jpg": each.name.encode() for each in shards}
    (tmp_path / "b.tar").write_bytes(packed(member("y.jpg")))
    again = list(source(tmp_path).shards())
    assert [one.name for one, other in zip(shards, again, strict=True) if one != other] == ["b.tar"]


def test_uris_and_versions_say_where_the_bytes_lie(tmp_path: Path) -> None:
    data = packed(member("a.jpg", b"one"), member("b.json", b"{}"), member("c.png", b"three"))
    tar = source(tmp_path, data)
    (shard,) = tar.shards()
    one, other = tar.images(shard)
    assert (one, other.uri) == (Image("a.tar/a.jpg", "a.tar#512+3", f"{shard.version}#512+3", "a.tar"), "a.tar#2560+5")
    assert data[2560 : 2560 + 5] == b"three"


def test_images_of_one_key_are_images_and_sidecars_are_counted(tmp_path: Path) -> None:
    names = ["k1.jpg", "k1.seg.png", "k1.json", "k1.cls", "k2.JPG", "k2.txt", "k2.txt.gz", "__key__", "inner.tar"]
    tar = source(tmp_path, packed(*[member(name, name.encode()) for name in names]))
    assert list(read(tar)) == ["a.tar/k1.jpg", "a.tar/k1.seg.png", "a.tar/k2.JPG"]
    counts = {".json": 1, ".cls": 1, ".txt": 1, ".gz": 1, "without a known ending": 1, ".tar": 1}
    assert dict(tar.left_out) == counts


def test_hidden_members_and_folders_of_systems_are_left_out(tmp_path: Path) -> None:
    names = ["./a.jpg", "./.hidden/b.jpg", "._a.jpg", "__MACOSX/._a.jpg", "d/__macosx/a.jpg", "d/..c.jpg", "@eaDir.jpg"]
    tar = source(tmp_path, packed(*map(member, names)))
    assert list(read(tar)) == ["a.tar/a.jpg", "a.tar/@eaDir.jpg"]
    assert dict(tar.left_out) == {"__MACOSX/": 1, "__macosx/": 1}


def test_exclusions_hold_for_shards_and_members(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).write_bytes(packed(*map(member, ("x/1.jpg", "2.gif", "3.jpg"))))
    tar = source(tmp_path, exclude=("b.tar", "*.gif", "x"))
    assert list(read(tar)) == ["a.tar/3.jpg"]
    assert dict(tar.left_out) == {"by --exclude b.tar": 1, "by --exclude '*.gif'": 1, "by --exclude x": 1}


def test_names_are_text_and_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"outside")
    names = ["/etc/a.jpg", "../b.jpg", "x/../../c.jpg", "..jpg/d.jpg", "././e.jpg", "C:\\f.jpg", "//g.jpg"]
    files = [member(name, name.encode()) for name in names]
    for form in FORMATS:
        got = read(source(tmp_path, packed(*files, form=form)))
        kept = [name for name in names if name != "..jpg/d.jpg"]
        assert got == {f"a.tar/{name.removeprefix('././')}": name.encode() for name in kept}


def test_names_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    names = [b"caf\xe9.jpg", b"caf\\xe9.jpg", b"//a.tar/caf\\xe9.jpg", b"\xff\\xff.jpg", "é.jpg".encode()]
    for form in FORMATS:
        files = [member(os.fsdecode(name), name) for name in names]
        got = read(source(tmp_path, packed(*files, form=form)))
        assert list(got.values()) == names
        assert next(iter(got)) == "//a.tar/caf\\xe9.jpg"
        for each in got:
            assert each.isprintable()
            assert each.encode("utf-8")


def test_long_names_of_every_dialect(tmp_path: Path) -> None:
    names = ["d/" * 40 + "a.jpg", "n" * 90 + "/" + "m" * 90 + ".jpg", "é" * 100 + ".jpg", "x" * 3000 + ".jpg"]
    for form in FORMATS:
        fitting = names[:2] if form == "ustar" else names
        got = read(source(tmp_path, packed(*[member(name, b"data") for name in fitting], form=form)))
        assert got == {f"a.tar/{name}": b"data" for name in fitting}


def test_duplicate_members_are_images_with_stable_ids(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "./a.jpg", "a.jpg", "b.jpg"]
    files = [member(name, str(number).encode()) for number, name in enumerate(names)]
    expected = {"a.jpg": b"0", "b.jpg": b"1", "a.jpg#2": b"2", "a.jpg#3": b"3", "b.jpg#2": b"4"}
    assert read(source(tmp_path, packed(*files))) == {f"a.tar/{name}": data for name, data in expected.items()}


def test_links_devices_and_fifos_are_named_failures(tmp_path: Path) -> None:
    kinds = {
        "soft.jpg": ("SYMTYPE", "target.jpg"),
        "hard.jpg": ("LNKTYPE", "nowhere.jpg"),
        "chr.jpg": ("CHRTYPE", ""),
        "blk.jpg": ("BLKTYPE", ""),
        "pipe.jpg": ("FIFOTYPE", ""),
    }
    files = [member(name, type=getattr(tarfile, kind), linkname=link) for name, (kind, link) in kinds.items()]
    files += [member("folder.jpg", type=tarfile.DIRTYPE), member("volume.jpg", type=b"V"), member("last.jpg", b"last")]
    for form in FORMATS:
        got = read(source(tmp_path, packed(*files, form=form)))
        assert got.pop("a.tar/last.jpg") == b"last"
        assert got == {
            "a.tar/soft.jpg": "not_a_file: a symbolic link to 'target.jpg'; pack the archive again with --dereference",
            "a.tar/hard.jpg": "not_a_file: a hard link to 'nowhere.jpg', which is no image before it; "
            "pack the archive again with --hard-dereference",
            "a.tar/chr.jpg": "not_a_file: a device, not a regular file",
            "a.tar/blk.jpg": "not_a_file: a device, not a regular file",
            "a.tar/pipe.jpg": "not_a_file: a FIFO, not a regular file",
            "a.tar/volume.jpg": "not_a_file: an entry of type b'V', not a regular file",
        }


def test_a_hard_link_to_an_image_before_it_has_its_bytes(tmp_path: Path) -> None:
    links = [("b.jpg", "./a.jpg"), ("c.jpg", "b.jpg"), ("d.jpg", "z.jpg")]
    hard = [member(name, type=tarfile.LNKTYPE, linkname=target) for name, target in links]
    got = read(source(tmp_path, packed(member("a.jpg", b"old"), member("a.jpg", b"new"), *hard, member("z.jpg"))))
    assert (got["a.tar/b.jpg"], got["a.tar/c.jpg"], got["a.tar/z.jpg"]) == (b"new", b"new", b"")
    assert str(got["a.tar/d.jpg"]).startswith("not_a_file: a hard link to 'z.jpg'")


@pytest.mark.parametrize(
    "form", ["--format=gnu", "--format=pax --sparse-version=0.0", "--format=pax --sparse-version=0.1"]
)
def test_sparse_entries_say_what_to_do(form: str, tmp_path: Path) -> None:
    _sparse(tmp_path, form)


def test_sparse_entries_of_version_1_say_what_to_do(tmp_path: Path) -> None:
    _sparse(tmp_path, "--format=pax --sparse-version=1.0")


def _sparse(tmp_path: Path, form: str) -> None:
    (tmp_path / "in").mkdir()
    with (tmp_path / "in" / "hole.jpg").open("wb") as file:
        for position in range(0, 60 << 16, 3 << 16):  # more pieces than fit into one header
            file.seek(position)
            file.write(b"data")
        file.truncate(1 << 23)
    (tmp_path / "in" / "whole.jpg").write_bytes(b"whole")
    system_tar(tmp_path / "a.tar", tmp_path / "in", "--sparse", *form.split())
    assert (tmp_path / "a.tar").stat().st_size < 1 << 22
    assert read(source(tmp_path)) == {
        "a.tar/hole.jpg": "unsupported_format: a sparse entry is not read; pack the archive again without --sparse",
        "a.tar/whole.jpg": b"whole",
    }


def system_tar(path: Path, folder: Path, *options: str) -> None:
    command = ["tar", "--create", "--sort=name", f"--file={path}", f"--directory={folder}", *options, "."]
    subprocess.run(command, check=True, capture_output=True)


def test_what_the_systems_tar_packs(tmp_path: Path) -> None:
    names = ["a.jpg", "é/猫.png", "d/" * 60 + "deep.jpg", "n" * 200 + ".webp", "notes.txt", os.fsdecode(b"caf\xe9.jpg")]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(os.fsencode(name))
    os.link(tmp_path / "in" / "a.jpg", tmp_path / "in" / "b.jpg")
    expected = {f"a.tar/{name}": name.encode() for name in names[:4]}
    expected |= {"a.tar/b.jpg": b"a.jpg", "//a.tar/caf\\xe9.jpg": b"caf\xe9.jpg"}
    for form in ("gnu", "pax", "oldgnu"):
        system_tar(tmp_path / "a.tar", tmp_path / "in", f"--format={form}")
        assert read(source(tmp_path)) == expected


def test_sizes_of_the_binary_and_the_pax_form_are_not_read_into_memory(tmp_path: Path) -> None:
    """Two members of 9 GB, as holes: no number of octal digits says their size."""
    size = 9 << 30
    for form in ("gnu", "pax"):
        path = tmp_path / "a.tar"
        header = packed(member("small.jpg", b"x"), form=form)[:1024]
        big, _ = member("big.jpg")
        big.size = size
        header += big.tobuf(FORMATS[form])
        path.write_bytes(header)
        os.truncate(path, len(header) + size)
        with path.open("ab") as file:
            file.write(packed(member("last.jpg", b"last")))
        got = read(source(tmp_path))
        assert got["a.tar/big.jpg"] == f"too_large: {size} bytes, more than {2 << 30}"
        assert (got["a.tar/small.jpg"], got["a.tar/last.jpg"], len(got)) == (b"x", b"last", 3)


def test_archives_without_an_image(tmp_path: Path) -> None:
    for data, expected in [
        (b"", {"a.tar": "empty_file: 0 bytes; copy or download it again"}),
        (bytes(1024), {}),
        (bytes(10240), {}),
        (bytes(100), {}),
        (packed(), {}),
        (packed(member("a.txt", b"x")), {}),
    ]:
        assert read(source(tmp_path, data)) == expected


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
def test_files_that_are_no_tar(data: bytes, what: str, tmp_path: Path) -> None:
    assert read(source(tmp_path, data)) == {"a.tar": f"not_a_tar: not a tar archive but {what}"}


def test_a_damaged_header_ends_the_shard_with_a_reason(tmp_path: Path) -> None:
    data = bytearray(packed(*[member(f"{number}.jpg", b"x") for number in range(4)]))
    data[2048 + 30] ^= 0xFF
    got = read(source(tmp_path, bytes(data)))
    reason = "the archive is damaged at byte 2048 (bad checksum), and what follows is not read"
    assert got.pop("a.tar") == f"corrupt_file: {reason}; copy or download it again"
    assert got == {"a.tar/0.jpg": b"x", "a.tar/1.jpg": b"x"}


def test_a_hole_of_zeros_is_no_end(tmp_path: Path) -> None:
    """As downloads in pieces leave them: what lies behind is read on, or the shard is named as damaged."""
    files = [member(f"{number}.jpg", b"x" * 600) for number in range(4)]
    whole = bytearray(packed(*files))
    whole[1536 : 2 * 1536] = bytes(1536)
    assert list(read(source(tmp_path, bytes(whole)))) == ["a.tar/0.jpg", "a.tar/2.jpg", "a.tar/3.jpg"]
    whole[2 * 1536 : 2 * 1536 + 700] = bytes(700)
    got = read(source(tmp_path, bytes(whole)))
    assert list(got) == ["a.tar/0.jpg", "a.tar"]
    assert str(got["a.tar"]).startswith("corrupt_file: the archive is damaged at byte 3584")
    reserved = packed(*files)[: 2 * 1536] + bytes(2 << 20)
    got = read(source(tmp_path, reserved))
    assert list(got) == ["a.tar/0.jpg", "a.tar/1.jpg", "a.tar"]
    assert str(got["a.tar"]).startswith(f"truncated_file: the archive ends in {2 << 20} bytes of zeros")


def test_archives_that_were_joined_are_all_read(tmp_path: Path) -> None:
    data = packed(member("a.jpg", b"1")) + packed(member("a.jpg", b"2"), member("b.jpg", b"3"))
    assert read(source(tmp_path, data)) == {"a.tar/a.jpg": b"1", "a.tar/a.jpg#2": b"2", "a.tar/b.jpg": b"3"}


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
def test_headers_made_to_harm_are_damage(size: bytes, kind: bytes, tmp_path: Path) -> None:
    data = packed(member("a.jpg", b"x" * 600), member("b.jpg", b"y"))
    got = read(source(tmp_path, _with_size(data, size, kind)))
    assert {name for name, value in got.items() if isinstance(value, str)} == {"a.tar"}


def test_headers_nested_deeper_than_the_stack_are_damage(tmp_path: Path) -> None:
    one = _with_size(packed(member("a.jpg")), b"0", b"x")[:512]
    got = read(source(tmp_path, one * 3000 + packed(member("b.jpg"))))
    assert str(got.pop("a.tar")).startswith("corrupt_file")
    assert got == {}


def test_a_shard_that_changes_or_vanishes_between_listing_and_reading(tmp_path: Path) -> None:
    files = [member("a.jpg", b"old"), member("b.jpg", b"old")]
    tar = source(tmp_path, packed(*files))
    images = list(list_images(tar))
    assert [tar.read(image) for image in images] == [b"old", b"old"]
    source(tmp_path, packed(member("c.jpg", b"new"), *files))
    assert failure(tar, images[0]) == ("changed", "the archive changed since it was listed; run again")
    assert [tar.read(image) for image in list_images(tar)] == [b"new", b"old", b"old"]
    with (tmp_path / "a.tar").open("r+b") as file:  # in place, under the open descriptor
        file.truncate(700)
    assert failure(tar, images[1])[0] == "changed"
    assert failure(tar, Image("a.tar/b.jpg", images[1].uri, shard="a.tar"))[0] == "truncated_file"
    (tmp_path / "a.tar").unlink()
    assert failure(tar, images[0]) == ("vanished", "the file is not there any more")


def test_a_shard_that_vanishes_or_changes_while_it_is_listed(tmp_path: Path) -> None:
    tar = source(tmp_path, packed(*[member(f"{number}.jpg", b"x") for number in range(3)]))
    (shard,) = tar.shards()
    listing = tar.images(shard)
    next(listing)
    os.utime(tmp_path / "a.tar", ns=(1, 1))
    *_, last = listing
    assert failure(tar, last) == ("changed", "the file changed while it was listed; run again")
    (tmp_path / "a.tar").unlink()
    (only,) = tar.images(shard)
    assert (only.id, only.uri, only.shard) == ("a.tar", "a.tar", "a.tar")
    assert failure(tar, only)[0] == "vanished"


def test_the_image_of_a_damaged_shard_says_why_in_another_process_too(tmp_path: Path) -> None:
    tar = source(tmp_path, packed(member("a.jpg", b"x" * 600))[:900])
    (image,) = list_images(tar)
    expected = ("truncated_file", "the archive ends too early, at byte 900 in 'a.jpg'; copy or download it again")
    assert failure(tar, image) == expected
    assert failure(source(tmp_path), Image("a.tar", "a.tar", shard="a.tar")) == expected
    again = source(tmp_path, packed(member("a.jpg", b"x" * 600)))
    assert failure(again, image) == ("changed", "the archive can be read now; run again")


def test_a_record_alone_says_why_a_member_is_not_read(tmp_path: Path) -> None:
    data = packed(member("é" * 200 + ".jpg", type=tarfile.SYMTYPE, linkname="t" * 300), form="pax")
    (image,) = list_images(source(tmp_path, data))
    kind, message = failure(source(tmp_path), Image(image.id, image.uri, shard="a.tar"))
    assert (kind, message[:26]) == ("not_a_file", "a symbolic link to 'tttttt")
    source(tmp_path, packed(member("plain.jpg", b"x")))
    kind, _ = failure(source(tmp_path), Image(image.id, image.uri, shard="a.tar"))
    assert kind == "changed"


@pytest.mark.parametrize(
    "uri", ["a.tar#0+99999999999999999999", "a.tar#999999999999999999+9", "a.tar#1+", "a.tar#-1+2"]
)
def test_places_that_no_listing_gives_are_failures(uri: str, tmp_path: Path) -> None:
    assert failure(source(tmp_path, packed(member("a.jpg", b"x"))), Image("x", uri, shard="a.tar"))[1]


def test_a_folder_of_packed_archives_says_what_to_do(tmp_path: Path) -> None:
    for name in ("a.tar.gz", "b.tgz", "c.zip", "d.txt"):
        (tmp_path / name).touch()
    tar = source(tmp_path)
    with pytest.raises(SourceError, match="there are no tar files in") as caught:
        list(tar.shards())
    assert caught.value.hint == (
        "Left out: 1 .gz, 1 .tgz, 1 .zip. Name a folder of .tar files; decompress .tar.gz with gunzip, unpack .zip."
    )
    source(tmp_path, packed(member("notes.txt")))
    with pytest.raises(SourceError, match="there are no images in") as caught:
        list(list_images(tar))
    assert "Left out: 1 .gz, 1 .tgz, 1 .txt, 1 .zip." in caught.value.hint


def test_the_counts_of_a_shard_are_those_of_its_last_complete_listing(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).write_bytes(packed(member("x.txt"), member("y.jpg"), member("z.txt")))
    tar = source(tmp_path)
    for _ in range(2):
        list(tar.images(Shard("b.tar")))
        assert dict(tar.left_out) == {".txt": 2}
    next(tar.images(Shard("a.tar")))
    assert dict(tar.left_out) == {".txt": 2}
    list(list_images(tar))
    assert dict(tar.left_out) == {".txt": 4}


def test_more_shards_than_are_kept_open(tmp_path: Path) -> None:
    names = [f"{number:03}.tar" for number in range(150)]
    for name in names:
        (tmp_path / name).write_bytes(packed(member("a.jpg", name.encode())))
    tar = source(tmp_path)
    assert list(read(tar).values()) == [name.encode() for name in names]
    assert _open_below(tmp_path) == 64
    del tar
    assert _open_below(tmp_path) == 0


def _open_below(root: Path) -> int:
    """Return how many files below a folder this process has open."""
    paths = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            paths.append(os.readlink(f"/proc/self/fd/{number}"))
    return sum(path.startswith(f"{root}/") for path in paths)
