"""Tar shards as people have them: every dialect, names and members of every kind.

What every source owes is in test_conformance.py, damaged shards are in test_tar_damage.py.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tagllm_cli.errors import SourceError
from tagllm_cli.records import Image, Shard
from tagllm_cli.sources.base import list_images
from tests.support.tars import FORMS, TarFolder, contents, failure, member, packed


@pytest.fixture(params=[False, True], ids=["local", "remote"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> TarFolder:
    return TarFolder(tmp_path, request.param)


def test_shards_are_the_tar_files_below_the_root(folder: TarFolder) -> None:
    for name in ("b.tar", "deep/a.tar", "A.TAR", "10.tar", "9.tar"):
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).write_bytes(packed(member("x.jpg", name.encode())))
    (folder.path / "notes.txt").touch()
    shards = list(folder.source().shards())
    assert [shard.name for shard in shards] == ["10.tar", "9.tar", "A.TAR", "b.tar", "deep/a.tar"]
    assert folder.read() == {f"{each.name}/x.jpg": each.name.encode() for each in shards}
    (folder.path / "b.tar").write_bytes(packed(member("y.jpg")))
    again = list(folder.source().shards())
    assert [one.name for one, other in zip(shards, again, strict=True) if one != other] == ["b.tar"]


def test_uris_and_versions_say_where_the_bytes_lie(folder: TarFolder) -> None:
    data = packed(member("a.jpg", b"one"), member("b.json", b"{}"), member("c.png", b"three"))
    tar = folder.source(data)
    (shard,) = tar.shards()
    one, other = tar.images(shard)
    assert (one, other.uri) == (Image("a.tar/a.jpg", "a.tar#512+3", f"{shard.version}#512+3", "a.tar"), "a.tar#2560+5")
    assert data[2560 : 2560 + 5] == b"three"


def test_images_of_one_key_are_images_and_sidecars_are_counted(folder: TarFolder) -> None:
    names = ["k1.jpg", "k1.seg.png", "k1.json", "k1.cls", "k2.JPG", "k2.txt", "k2.txt.gz", "__key__", "inner.tar"]
    tar = folder.source(packed(*[member(name, name.encode()) for name in names]))
    assert list(contents(tar)) == ["a.tar/k1.jpg", "a.tar/k1.seg.png", "a.tar/k2.JPG"]
    counts = {".json": 1, ".cls": 1, ".txt": 1, ".gz": 1, "without a known ending": 1, ".tar": 1}
    assert dict(tar.left_out) == counts


def test_hidden_members_and_folders_of_systems_are_left_out(folder: TarFolder) -> None:
    names = ["./a.jpg", "./.hidden/b.jpg", "._a.jpg", "__MACOSX/._a.jpg", "d/..c.jpg", "@eaDir.jpg"]
    names += ["__MACOSX/a.jpg", "__MACOSX/b/c.txt", "d/__macosx/a.jpg", "d/e.jpg"]
    tar = folder.source(packed(*map(member, names)))
    assert list(contents(tar)) == ["a.tar/a.jpg", "a.tar/@eaDir.jpg", "a.tar/d/e.jpg"]
    assert dict(tar.left_out) == {"__MACOSX/": 2, "__macosx/": 1}


def test_exclusions_hold_for_shards_and_members(folder: TarFolder) -> None:
    for name in ("a.tar", "b.tar"):
        (folder.path / name).write_bytes(packed(*map(member, ("x/1.jpg", "2.gif", "3.jpg"))))
    tar = folder.source(exclude=("b.tar", "*.gif", "x"))
    assert list(contents(tar)) == ["a.tar/3.jpg"]
    assert dict(tar.left_out) == {"by --exclude b.tar": 1, "by --exclude '*.gif'": 1, "by --exclude x": 1}


def test_names_are_text_and_lead_nowhere(folder: TarFolder) -> None:
    (folder.path / "b.jpg").write_bytes(b"outside")
    names = ["/etc/a.jpg", "../b.jpg", "x/../../c.jpg", "..jpg/d.jpg", "././e.jpg", "C:\\f.jpg", "//g.jpg"]
    files = [member(name, name.encode()) for name in names]
    for form in FORMS:
        got = folder.read(packed(*files, form=form))
        kept = [name for name in names if name != "..jpg/d.jpg"]
        assert got == {f"a.tar/{name.removeprefix('././')}": name.encode() for name in kept}


def test_names_that_are_not_utf8_are_escaped(folder: TarFolder) -> None:
    names = [b"caf\xe9.jpg", b"caf\\xe9.jpg", b"//a.tar/caf\\xe9.jpg", b"\xff\\xff.jpg", "é.jpg".encode()]
    for form in FORMS:
        files = [member(os.fsdecode(name), name) for name in names]
        got = folder.read(packed(*files, form=form))
        assert list(got.values()) == names
        assert next(iter(got)) == "//a.tar/caf\\xe9.jpg"
        for each in got:
            assert each.isprintable()
            assert each.encode("utf-8")


def test_long_names_of_every_dialect(folder: TarFolder) -> None:
    names = ["d/" * 40 + "a.jpg", "n" * 90 + "/" + "m" * 90 + ".jpg", "é" * 100 + ".jpg", "x" * 3000 + ".jpg"]
    for form in FORMS:
        fitting = names[:2] if form == "ustar" else names
        got = folder.read(packed(*[member(name, b"data") for name in fitting], form=form))
        assert got == {f"a.tar/{name}": b"data" for name in fitting}


def test_duplicate_members_are_images_with_stable_ids(folder: TarFolder) -> None:
    names = ["a.jpg", "b.jpg", "./a.jpg", "a.jpg", "b.jpg"]
    files = [member(name, str(number).encode()) for number, name in enumerate(names)]
    expected = {"a.jpg": b"0", "b.jpg": b"1", "a.jpg#2": b"2", "a.jpg#3": b"3", "b.jpg#2": b"4"}
    assert folder.read(packed(*files)) == {f"a.tar/{name}": data for name, data in expected.items()}


def test_links_devices_and_fifos_are_named_failures(folder: TarFolder) -> None:
    kinds = {
        "soft.jpg": ("SYMTYPE", "target.jpg"),
        "hard.jpg": ("LNKTYPE", "nowhere.jpg"),
        "chr.jpg": ("CHRTYPE", ""),
        "blk.jpg": ("BLKTYPE", ""),
        "pipe.jpg": ("FIFOTYPE", ""),
    }
    files = [member(name, type=getattr(tarfile, kind), linkname=link) for name, (kind, link) in kinds.items()]
    files += [member("folder.jpg", type=tarfile.DIRTYPE), member("volume.jpg", type=b"V"), member("last.jpg", b"last")]
    for form in FORMS:
        got = folder.read(packed(*files, form=form))
        assert got.pop("a.tar/last.jpg") == b"last"
        assert got == {
            "a.tar/soft.jpg": "not_a_file: a symbolic link to 'target.jpg'; pack the archive again with --dereference",
            "a.tar/hard.jpg": "not_a_file: a hard link to 'nowhere.jpg', which is no image before it; "
            "pack the archive again with --hard-dereference",
            "a.tar/chr.jpg": "not_a_file: a device, not a regular file",
            "a.tar/blk.jpg": "not_a_file: a device, not a regular file",
            "a.tar/pipe.jpg": "not_a_file: a FIFO, not a regular file",
            "a.tar/volume.jpg": "not_a_file: an entry of type 'V', not a regular file",
        }


def test_a_hard_link_to_an_image_before_it_has_its_bytes(folder: TarFolder) -> None:
    links = [("b.jpg", "./a.jpg"), ("c.jpg", "b.jpg"), ("d.jpg", "z.jpg"), ("e.jpg", "soft.jpg")]
    hard = [member("soft.jpg", type=tarfile.SYMTYPE, linkname="a.jpg")]
    hard += [member(name, type=tarfile.LNKTYPE, linkname=target) for name, target in links]
    got = folder.read(packed(member("a.jpg", b"old"), member("a.jpg", b"new"), *hard, member("z.jpg")))
    assert (got["a.tar/b.jpg"], got["a.tar/c.jpg"], got["a.tar/z.jpg"]) == (b"new", b"new", b"")
    assert str(got["a.tar/d.jpg"]).startswith("not_a_file: a hard link to 'z.jpg'")
    assert str(got["a.tar/e.jpg"]).startswith("not_a_file: a hard link to 'soft.jpg'")


@pytest.mark.parametrize(
    "form", ["--format=gnu", "--format=pax --sparse-version=0.0", "--format=pax --sparse-version=0.1"]
)
def test_sparse_entries_say_what_to_do(form: str, folder: TarFolder) -> None:
    _sparse(folder, form)


def test_sparse_entries_of_version_1_say_what_to_do(folder: TarFolder) -> None:
    _sparse(folder, "--format=pax --sparse-version=1.0")


def _sparse(folder: TarFolder, form: str) -> None:
    (folder.path / "in").mkdir()
    with (folder.path / "in" / "hole.jpg").open("wb") as file:
        for position in range(0, 60 << 16, 3 << 16):  # more pieces than fit into one header
            file.seek(position)
            file.write(b"data")
        file.truncate(1 << 23)
    (folder.path / "in" / "whole.jpg").write_bytes(b"whole")
    system_tar(folder.path / "a.tar", folder.path / "in", "--sparse", *form.split())
    assert (folder.path / "a.tar").stat().st_size < 1 << 22
    assert folder.read() == {
        "a.tar/hole.jpg": "unsupported_format: a sparse entry is not read; pack the archive again without --sparse",
        "a.tar/whole.jpg": b"whole",
    }


def system_tar(path: Path, folder: Path, *options: str) -> None:
    command = ["tar", "--create", "--sort=name", f"--file={path}", f"--directory={folder}", *options, "."]
    subprocess.run(command, check=True, capture_output=True)


def test_what_the_systems_tar_packs(folder: TarFolder) -> None:
    names = ["a.jpg", "é/猫.png", "d/" * 60 + "deep.jpg", "n" * 200 + ".webp", "notes.txt", os.fsdecode(b"caf\xe9.jpg")]
    for name in names:
        (folder.path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / "in" / name).write_bytes(os.fsencode(name))
    os.link(folder.path / "in" / "a.jpg", folder.path / "in" / "b.jpg")
    expected = {f"a.tar/{name}": name.encode() for name in names[:4]}
    expected |= {"a.tar/b.jpg": b"a.jpg", "//a.tar/caf\\xe9.jpg": b"caf\xe9.jpg"}
    for form in ("gnu", "pax", "oldgnu"):
        system_tar(folder.path / "a.tar", folder.path / "in", f"--format={form}")
        assert folder.read() == expected


def test_other_dialects_of_the_systems_tar(folder: TarFolder) -> None:
    (folder.path / "in").mkdir()
    (folder.path / "in" / "a.jpg").write_bytes(b"data")
    for options in (["--format=v7"], ["--format=ustar"], ["--format=gnu", "--incremental"], ["--blocking-factor=200"]):
        system_tar(folder.path / "a.tar", folder.path / "in", *options)
        assert folder.read() == {"a.tar/a.jpg": b"data"}


def test_sizes_of_the_binary_and_the_pax_form_are_not_read_into_memory(folder: TarFolder) -> None:
    """Two members of 9 GB, as holes: no number of octal digits says their size."""
    size = 9 << 30
    for form in ("gnu", "pax"):
        path = folder.path / "a.tar"
        header = packed(member("small.jpg", b"x"), form=form)[:1024]
        big, _ = member("big.jpg")
        big.size = size
        header += big.tobuf(FORMS[form])
        path.write_bytes(header)
        os.truncate(path, len(header) + size)
        with path.open("ab") as file:
            file.write(packed(member("last.jpg", b"last")))
        got = folder.read()
        assert got["a.tar/big.jpg"] == f"too_large: {size} bytes, more than {2 << 30}"
        assert (got["a.tar/small.jpg"], got["a.tar/last.jpg"], len(got)) == (b"x", b"last", 3)


def test_a_record_alone_says_why_a_member_is_not_read(folder: TarFolder) -> None:
    data = packed(member("é" * 200 + ".jpg", type=tarfile.SYMTYPE, linkname="t" * 300), form="pax")
    (image,) = list_images(folder.source(data))
    kind, message = failure(folder.source(), Image(image.id, image.uri, shard="a.tar"))
    assert (kind, message[:26]) == ("not_a_file", "a symbolic link to 'tttttt")
    folder.source(packed(member("plain.jpg", b"x")))
    kind, _ = failure(folder.source(), Image(image.id, image.uri, shard="a.tar"))
    assert kind == "changed"


@pytest.mark.parametrize(
    "uri", ["a.tar#0+99999999999999999999", "a.tar#999999999999999999+9", "a.tar#1+", "a.tar#-1+2"]
)
def test_places_that_no_listing_gives_are_failures(uri: str, folder: TarFolder) -> None:
    assert failure(folder.source(packed(member("a.jpg", b"x"))), Image("x", uri, shard="a.tar"))[1]


def test_a_folder_of_packed_archives_says_what_to_do(folder: TarFolder) -> None:
    for name in ("a.tar.gz", "b.tgz", "c.zip", "d.txt"):
        (folder.path / name).touch()
    tar = folder.source()
    with pytest.raises(SourceError, match="there are no tar files in") as caught:
        list(tar.shards())
    assert caught.value.hint == (
        "Left out: 1 .gz, 1 .tgz, 1 .zip. Name a folder of .tar files; decompress .tar.gz with gunzip, unpack .zip."
    )
    with pytest.raises(SourceError, match=r"there are no tar files in .* that match 'x\*\.tar'"):
        list(folder.source(pattern="x*.tar").shards())
    folder.source(packed(member("notes.txt")))
    with pytest.raises(SourceError, match="there are no images in") as caught:
        list(list_images(tar))
    assert "Left out: 1 .gz, 1 .tgz, 1 .txt, 1 .zip." in caught.value.hint


def test_the_counts_of_a_shard_are_those_of_its_last_complete_listing(folder: TarFolder) -> None:
    for name in ("a.tar", "b.tar"):
        (folder.path / name).write_bytes(packed(member("x.txt"), member("y.jpg"), member("z.txt")))
    tar = folder.source()
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
    tar = TarFolder(tmp_path).source()
    images = list(list_images(tar))
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(tar.read, images * 4)) == [name.encode() for name in names] * 4
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
