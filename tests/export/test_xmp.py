"""XMP sidecars, read by exiftool; merged into sidecars as photo software writes them, beside the images too."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tagllm_cli.errors import UsageError
from tagllm_cli.export import sidecars
from tagllm_cli.export.base import ExportSettings, ExportSummary
from tagllm_cli.export.registry import export_table
from tagllm_cli.records import LabelEntry, Row, SourceInfo, Status
from tagllm_cli.store import atomic
from tagllm_cli.store.table import TableInfo, open_table, write_table
from tagllm_cli.store.xmp.keywords import SUBJECT
from tagllm_cli.store.xmp.packet import Packet
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.export.test_conformance import HOSTILE
from tests.export.test_formats import SALT, rows, said, written
from tests.support.photo_software import (
    STYLES,
    add_keyword,
    exiftool,
    keywords,
    metadata,
    problems,
    remove_keyword,
    sidecar,
)

DOG_AND_CAT = "a dog & cat.png"


def export(table: Path, out: Path, *, options: dict[str, str] | None = None, **settings: Any) -> ExportSummary:
    return export_table(table, "xmp", out, ExportSettings(format_options=options or {}, **settings))


def relabeled(table: Path, root: Path, name: str, *entries: LabelEntry) -> Path:
    """Give an image of the table other labels."""
    changed = [replace(row, labels=entries) if row.image_id == name else row for row in rows(root)]
    return written(table, root, changed)


def below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_exiftool_reads_the_labels_of_every_image_and_nothing_against_them(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "sidecars"
    summary = export(table, out)
    assert (summary.images, summary.labels, summary.left_out) == (4, 4, {"failed": 1, "pending": 1})
    found = {str(path.relative_to(out)): keywords(path) for path in out.rglob("*.xmp")}
    assert found == {
        f"{DOG_AND_CAT}.xmp": [["dog", "cat"], ["animal|dog", "animal|cat"], ["animal/dog", "animal/cat"]],
        "sub/ünsicher\n.png.xmp": [[SALT], [SALT], [SALT]],
        "sub/human.png.xmp": [["cat"], ["animal|cat"], ["animal/cat"]],
    }
    assert not any(problems(path) for path in out.rglob("*.xmp"))
    assert summary.card is None
    assert [path.name for path in tmp_path.iterdir() if "card" in path.name] == []


def test_hostile_names_come_back_as_they_were(table: Path, root: Path, tmp_path: Path) -> None:
    info = replace(open_table(table).info, vocabulary=Vocabulary("hostile", tuple(map(Label, HOSTILE))))
    (first, *_) = rows(root)
    write_table(table, info, [replace(first, labels=tuple(said(name, "yes", 0.5) for name in HOSTILE))])
    export(table, tmp_path / "out")
    (path,) = (tmp_path / "out").rglob("*.xmp")
    assert Packet(path.read_bytes()).values(SUBJECT) == list(HOSTILE)
    assert keywords(path)[0] == list(HOSTILE)
    assert not problems(path)


@pytest.mark.parametrize("style", STYLES)
def test_a_sidecar_of_each_program_keeps_all_that_exiftool_reads_of_it(table: Path, root: Path, style: str) -> None:
    path = root / f"{DOG_AND_CAT}.xmp"
    path.write_bytes(sidecar(style, ("animal", "cat"), ("people", "Anna & Bo")))
    before, complaints = metadata(path), problems(path)
    export(table, root)
    after = metadata(path)
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    ours = {key for key in changed if key.startswith("XMP-tagllm:")}
    assert changed - ours == {"XMP-dc:Subject", "XMP-lr:HierarchicalSubject", "XMP-digiKam:TagsList"}
    assert after["XMP-dc:Subject"] == ["cat", "Anna & Bo", "dog"]
    assert after["XMP-lr:HierarchicalSubject"] == ["animal|cat", "people|Anna & Bo", "animal|dog"]
    assert problems(path) == complaints


def test_a_sidecar_that_exiftool_wrote_keeps_all_that_it_wrote(table: Path, root: Path) -> None:
    path = root / f"{DOG_AND_CAT}.xmp"
    exiftool("-q", "-XMP:Rating=4", "-XMP-dc:Title=A & B", "-XMP-dc:Subject=trip", "-o", path, root / DOG_AND_CAT)
    before = metadata(path)
    export(table, root)
    after = {key: value for key, value in metadata(path).items() if not key.startswith("XMP-tagllm:")}
    assert after.pop("XMP-dc:Subject") == ["trip", "dog", "cat"]
    del after["XMP-lr:HierarchicalSubject"], after["XMP-digiKam:TagsList"], before["XMP-dc:Subject"]
    assert after == before


def test_in_the_folder_of_the_images_no_image_is_touched(table: Path, root: Path) -> None:
    before = below(root)
    export(table, root)
    after = below(root)
    assert {name: after[name] for name in before} == before
    assert {Path(name).suffix for name in after.keys() - before} == {".xmp"}


def test_an_export_without_news_writes_no_file(table: Path, root: Path) -> None:
    export(table, root)
    before = {path: path.stat() for path in root.rglob("*")}
    summary = export(table, root)
    assert {path: path.stat() for path in root.rglob("*")} == before
    assert "sidecars written: 0; nothing to change: 4" in summary.notes


def test_a_label_removed_in_photo_software_stays_removed_and_is_told(table: Path, root: Path) -> None:
    export(table, root)
    path = root / f"{DOG_AND_CAT}.xmp"
    remove_keyword(path, "dog", "animal")
    add_keyword(path, "holiday")
    before = path.read_bytes()
    summary = export(table, root)
    assert path.read_bytes() == before
    assert any("were not put back: 1 (dog); `tagllm import`" in note for note in summary.notes)
    export(table, root, options={"restore": "yes"})
    assert keywords(path)[0] == ["cat", "holiday", "dog"]


def test_a_no_of_a_person_in_the_table_settles_a_removal(table: Path, root: Path) -> None:
    path = root / f"{DOG_AND_CAT}.xmp"
    export(table, root)
    remove_keyword(path, "dog", "animal")
    cat = said("cat", "yes", 0.9)
    export(relabeled(table, root, DOG_AND_CAT, cat, said("dog", "no", 0, "human")), root)
    assert keywords(path)[0] == ["cat"]
    export(relabeled(table, root, DOG_AND_CAT, cat, said("dog", "yes", 1, "human")), root)
    assert keywords(path)[0] == ["cat", "dog"]


def test_labels_that_went_are_taken_out_and_people_keep_theirs(table: Path, root: Path) -> None:
    path = root / f"{DOG_AND_CAT}.xmp"
    path.write_bytes(sidecar("digikam", ("animal", "dog"), ("holiday",)))
    export(table, root)
    export(relabeled(table, root, DOG_AND_CAT), root)
    assert keywords(path)[0] == ["dog", "holiday"]


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"<!DOCTYPE x [<!ENTITY e 'x'>]><x>&e;</x>", "document type"), (b"no XML", "not XML"), (b"<x/>", "no rdf:RDF")],
)
def test_a_sidecar_that_cannot_be_read_is_left_and_named(table: Path, root: Path, data: bytes, why: str) -> None:
    path = root / f"{DOG_AND_CAT}.xmp"
    path.write_bytes(data)
    summary = export(table, root)
    assert path.read_bytes() == data
    assert summary.left_out["unreadable_sidecar"] == 1
    assert any(f"{DOG_AND_CAT}.xmp: " in note and why in note for note in summary.notes)
    assert (root / "sub/human.png.xmp").is_file()


def test_an_empty_sidecar_is_as_good_as_none(table: Path, root: Path) -> None:
    (root / f"{DOG_AND_CAT}.xmp").touch()
    export(table, root)
    assert keywords(root / f"{DOG_AND_CAT}.xmp")[0] == ["dog", "cat"]


@pytest.mark.parametrize(
    ("beside", "naming", "used"),
    [
        ([], "full", "a.jpg.xmp"),
        ([], "stem", "a.xmp"),
        (["a.xmp"], "full", "a.xmp"),
        (["a.XMP"], "full", "a.XMP"),
        (["a.jpg.xmp"], "stem", "a.jpg.xmp"),
        (["a.xmp", "a.jpg.xmp"], "stem", "a.jpg.xmp"),
        (["a.xmp", "a.txt", "a.xmp_original"], "full", "a.xmp"),
        (["a.xmp", "a.cr3"], "full", "a.jpg.xmp"),
        (["a.dng"], "stem", "a.jpg.xmp"),
    ],
)
def test_the_sidecar_that_is_there_is_used_and_never_that_of_a_raw_file(
    tmp_path: Path, beside: list[str], naming: str, used: str
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ["a.jpg", *beside]:
        (photos / name).write_bytes(b"<x/>" if name.lower().endswith(".xmp") else b"")
    folder = sidecars.SidecarFolder(photos)
    assert folder.sidecar_of("a.jpg", naming) == photos / used


def test_a_sidecar_that_names_the_ending_of_a_raw_file_is_not_that_of_a_jpeg(tmp_path: Path) -> None:
    data = sidecar("lightroom", ("cat",)).replace(b' xmp:Rating="4"', b' photoshop:SidecarForExtension="DNG"')
    data = data.replace(b"xmlns:xmp=", b'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:xmp=')
    (tmp_path / "a.xmp").write_bytes(data)
    folder = sidecars.SidecarFolder(tmp_path)
    assert folder.sidecar_of("a.jpg", "stem") == tmp_path / "a.jpg.xmp"
    assert sidecars.SidecarFolder(tmp_path).sidecar_of("a.dng", "full") == tmp_path / "a.xmp"


def test_two_images_never_share_a_sidecar(table: Path, root: Path, tmp_path: Path) -> None:
    (row, *_) = rows(root)
    pair = [replace(row, image_id=name, uri=name) for name in ("a.jpg", "a.png", "b.jpg")]
    named = {"full": ["a.jpg.xmp", "a.png.xmp", "b.jpg.xmp"], "stem": ["a.png.xmp", "a.xmp", "b.xmp"]}
    for naming, names in named.items():
        out = tmp_path / naming
        assert export(written(table, root, pair), out, options={"naming": naming}).images == 3
        assert sorted(path.name for path in out.iterdir()) == names


def test_names_that_differ_in_case_alone_are_two_images(table: Path, root: Path, tmp_path: Path) -> None:
    (row, *_) = rows(root)
    pair = [replace(row, image_id=name, uri=name) for name in ("a.jpg", "A.jpg")]
    for naming in ("full", "stem"):
        assert export(written(table, root, pair), tmp_path / naming, options={"naming": naming}).images == 2
        assert len(below(tmp_path / naming)) == 2


def test_options_leave_paths_out_or_put_all_labels_under_one_keyword(table: Path, tmp_path: Path) -> None:
    export(table, tmp_path / "flat", options={"hierarchy": "no"})
    assert keywords(tmp_path / "flat" / f"{DOG_AND_CAT}.xmp") == [["dog", "cat"], [], []]
    export(table, tmp_path / "flat", options={"under": "AI/things"})
    paths = keywords(tmp_path / "flat" / f"{DOG_AND_CAT}.xmp")[1]
    assert paths == ["AI|things|animal|dog", "AI|things|animal|cat"]


def test_a_link_stays_and_what_it_points_to_is_merged(table: Path, root: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.xmp"
    target.write_bytes(sidecar("darktable", ("holiday",)))
    path = root / f"{DOG_AND_CAT}.xmp"
    path.symlink_to(target)
    export(table, root)
    assert path.is_symlink()
    assert keywords(target)[0] == ["holiday", "dog", "cat"]


def test_a_folder_that_may_not_be_written_does_not_keep_others_from_their_sidecars(
    table: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = atomic.private_folder

    def refusing(target: Path) -> Any:
        if target.parent == root / "sub":
            raise PermissionError(errno.EACCES, "Permission denied", str(target))
        return whole(target)

    monkeypatch.setattr(sidecars, "private_folder", refusing)
    summary = export(table, root)
    assert summary.left_out == {"failed": 1, "no_permission": 2, "pending": 1}
    assert "folders whose sidecars you may not write: sub" in summary.notes
    assert [str(path.relative_to(root)) for path in root.rglob("*.xmp")] == [f"{DOG_AND_CAT}.xmp"]


def test_a_sidecar_keeps_its_permissions(table: Path, root: Path) -> None:
    path = root / f"{DOG_AND_CAT}.xmp"
    path.write_bytes(sidecar("darktable", ("holiday",)))
    path.chmod(0o640)
    export(table, root)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_killed_export_leaves_each_sidecar_old_or_new_and_the_next_one_finishes(
    table: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = sidecar("digikam", ("holiday",))
    paths = [root / f"{DOG_AND_CAT}.xmp", root / "sub/human.png.xmp"]
    for path in paths:
        path.write_bytes(old)
    real = os.replace

    def killed_at_the_second(source: Path, target: Path) -> None:
        if target == paths[1]:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        export(table, root)
    monkeypatch.undo()
    assert keywords(paths[0])[0] == ["holiday", "dog", "cat"]
    assert paths[1].read_bytes() == old
    export(table, root)
    assert keywords(paths[1])[0] == ["holiday", "cat"]
    assert not [path for path in root.rglob("*") if path.name.startswith(".tagllm")]


KILLED = """
import os, sys
from pathlib import Path
from tagllm_cli.export.base import ExportSettings
from tagllm_cli.export.registry import export_table
real = os.replace
def replace(source, target):
    if target.name.startswith("human"):
        os._exit(9)
    real(source, target)
os.replace = replace
export_table(Path(sys.argv[1]), "xmp", Path(sys.argv[2]), ExportSettings())
"""


def test_what_a_killed_process_leaves_is_removed_by_the_next_export(table: Path, root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, table, root], capture_output=True)
    assert done.returncode == 9, done.stderr
    left = [path for path in root.rglob("*") if path.name.startswith(".tagllm")]
    assert left
    assert (root / f"{DOG_AND_CAT}.xmp").is_file()
    assert not (root / "sub/human.png.xmp").exists()
    export(table, root)
    assert keywords(root / "sub/human.png.xmp")[0] == ["cat"]
    assert not [path for path in root.rglob("*") if path.name.startswith(".tagllm")]


@pytest.mark.parametrize("is_link", [False, True])
def test_what_photo_software_writes_in_the_same_moment_is_merged_too(
    table: Path, root: Path, monkeypatch: pytest.MonkeyPatch, is_link: bool
) -> None:
    path = root / f"{DOG_AND_CAT}.xmp"
    if is_link:
        path.symlink_to(root.parent / "elsewhere.xmp")
    path.write_bytes(sidecar("digikam", ("holiday",)))
    states: Iterator[None] = iter([None])
    real = sidecars.SidecarFolder.put

    def put(self: sidecars.SidecarFolder, target: Path, data: bytes, seen: sidecars.State | None) -> bool:
        if target == path and next(states, "done") is None:
            path.write_bytes(sidecar("digikam", ("holiday",), ("beach",)))
        return real(self, target, data, seen)

    monkeypatch.setattr(sidecars.SidecarFolder, "put", put)
    export(table, root)
    assert keywords(path)[0] == ["holiday", "beach", "dog", "cat"]


@pytest.mark.parametrize("found", ["file", "fifo"])
def test_what_is_no_folder_is_refused(table: Path, tmp_path: Path, found: str) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"mine") if found == "file" else os.mkfifo(out)
    with pytest.raises(UsageError, match="holds something else"):
        export(table, out)


def test_a_name_that_xml_cannot_hold_is_refused_first(table: Path, root: Path, tmp_path: Path) -> None:
    words = Vocabulary("pets", (Label("a\x01b"),))
    write_table(table, TableInfo("labels", SourceInfo("folder", str(root)), words), [])
    with pytest.raises(UsageError, match="control character"):
        export(table, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_splits_are_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to split"):
        export(table, tmp_path / "out", split=(("train", 0.5), ("val", 0.5)))


def test_images_of_a_manifest_have_sidecars_where_they_lie_below_the_folder(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    uris = [str(photos / "sub" / "a.jpg"), "b.jpg", "https://host/c.jpg", "/somewhere/d.jpg", "../e.jpg"]
    words = Vocabulary("pets", (Label("cat"),))
    listed = [
        Row(uri, uri, bytes([number]), 4, 4, Status.OK, None, (said("cat", "yes", 0.9),))
        for number, uri in enumerate(uris)
    ]
    table = tmp_path / "labels.parquet"
    write_table(table, TableInfo("labels", SourceInfo("manifest", str(tmp_path / "list.csv")), words), listed)
    summary = export(table, photos)
    assert sorted(below(photos)) == ["b.jpg.xmp", "sub/a.jpg.xmp"]
    assert summary.left_out == {"elsewhere": 3}


def test_the_command_of_the_docs_copies_keywords_into_images_once(root: Path, table: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/photo-software.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^```sh\n(exiftool .*?)```$", page, re.MULTILINE | re.DOTALL)
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (8, 8)).save(photos / "a.jpg")
    exiftool("-q", "-overwrite_original", "-XMP-dc:Subject=trip", "-XMP-dc:Subject=cat", photos / "a.jpg")
    (photos / "a.jpg.xmp").write_bytes(sidecar("digikam", ("animal", "cat"), ("animal", "dog")))
    for _ in range(2):
        subprocess.run(command, shell=True, check=True, cwd=tmp_path, capture_output=True)
        assert keywords(photos / "a.jpg")[:2] == [["trip", "cat", "dog"], ["animal|cat", "animal|dog"]]
