"""Any tree packed in any dialect is read exactly, and of an archive cut at any byte all that is whole."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections import Counter
from pathlib import Path, PurePosixPath

from hypothesis import given, reject, settings
from hypothesis import strategies as st

from tagllm_cli.sources.storage.file_names import EXTENSIONS
from tests.support.tars import FORMS, Form, Member, TarFolder, member, packed

CHARACTERS = st.characters(exclude_characters="/\0", exclude_categories=["Cs"])
SEGMENTS = st.text(CHARACTERS, min_size=1, max_size=60).filter(lambda text: not text.startswith("."))
ENDINGS = st.sampled_from([".jpg", ".PNG", ".seg.webp", ".json", ".txt", ""])
NAMES = st.builds(lambda parts, ending: "/".join(parts) + ending, st.lists(SEGMENTS, min_size=1, max_size=4), ENDINGS)
SIZES = st.sampled_from([0, 1, 511, 512, 513, 1024, 1500])
MEMBERS = st.builds(lambda name, size, byte: member(name, bytes([byte]) * size), NAMES, SIZES, st.integers(1, 255))
ARCHIVES = st.tuples(st.lists(MEMBERS, max_size=8), st.sampled_from(sorted(FORMS)))


def pack(members: list[Member], form: Form) -> bytes:
    try:
        return packed(*members, form=form)
    except ValueError:  # the name is too long for the old dialect
        reject()


def is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in EXTENSIONS


def whole_images(data: bytes, cut: int) -> tuple[list[bytes], bool]:
    """Return the data of the images that lie before `cut`, and whether an archive may end there, as tarfile has it."""
    images, ends, end = [], {0}, 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for each in archive:
            if is_image(each.name) and each.offset_data + each.size <= cut:
                images.append(data[each.offset_data : each.offset_data + each.size])
            end = each.offset_data + -(-each.size // 512) * 512
            ends.add(end)
    return images, cut in ends or cut > end


@settings(max_examples=150, deadline=None)
@given(archive=ARCHIVES)
def test_any_tree_of_any_dialect_is_read_exactly(archive: tuple[list[Member], Form]) -> None:
    members, form = archive
    seen: Counter[str] = Counter()
    expected = {}
    for info, data in members:
        if is_image(info.name):
            seen[info.name] += 1
            copy = f"#{seen[info.name]}" if seen[info.name] > 1 else ""
            expected[f"a.tar/{info.name}{copy}"] = data
    with tempfile.TemporaryDirectory() as path:
        for remote in (False, True):
            assert TarFolder(Path(path), remote).read(pack(members, form)) == expected


@settings(max_examples=150, deadline=None)
@given(archive=ARCHIVES, place=st.floats(0, 1))
def test_of_an_archive_cut_anywhere_all_that_is_whole_is_read(archive: tuple[list[Member], Form], place: float) -> None:
    data = pack(*archive)
    cut = int(place * len(data))
    with tempfile.TemporaryDirectory() as path:
        (Path(path) / "a.tar").write_bytes(data)
        for remote in (False, True):
            check_cut(TarFolder(Path(path), remote), data, cut)


def test_a_cut_at_every_byte(tmp_path: Path) -> None:
    files = [
        member("a.jpg", b"a" * 30),
        member("note.txt", b"n"),
        member("é" * 99 + ".png", b"b" * 700),
        member("0.gif"),
    ]
    data = pack(files, "pax")
    (tmp_path / "a.tar").write_bytes(data)
    for cut in range(len(data.rstrip(b"\0")) + 600, -1, -1):
        check_cut(TarFolder(tmp_path), data, cut)
        if cut % 512 in (0, 511):
            check_cut(TarFolder(tmp_path, remote=True), data, cut)


def check_cut(folder: TarFolder, data: bytes, cut: int) -> None:
    """Cut the archive that lies in the folder and compare what is read with what is whole."""
    os.truncate(folder.path / "a.tar", cut)
    got = folder.read()
    reason = got.pop("a.tar", None)
    images, may_end = whole_images(data, cut)
    assert list(got.values()) == images
    if cut == 0:
        assert str(reason).startswith("empty_file")
    elif may_end:
        assert reason is None
    else:
        assert str(reason).startswith(("truncated_file", "not_a_tar"))
