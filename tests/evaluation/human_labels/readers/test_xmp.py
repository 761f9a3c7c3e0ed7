"""XMP sidecars as people's labels: what was added is a yes, what was removed of ours a no, holidays are neither."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.human_labels.base import NO, YES, CheckedImage, Statement
from tagllm_cli.evaluation.human_labels.readers.xmp import read, recognizes
from tagllm_cli.evaluation.truth.base import TableContext, TruthFile
from tagllm_cli.store.xmp.keywords import keyword, merged
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.support.photo_software import STYLES, add_keyword, remove_keyword, sidecar

VOCABULARY = Vocabulary("pets", (Label("cat", parent="animal"), Label("dog", parent="animal"), Label("bird")))
THEN = 1_600_000_000_000_000
NOW = THEN + 86_400_000_000


def opened(path: Path, *images: str) -> TruthFile:
    return TruthFile(path, table=TableContext(images, VOCABULARY))


def put(path: Path, data: bytes, when: int = THEN) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(when * 1000, when * 1000))
    return path


def ours(*names: str, over: bytes = b"") -> bytes:
    data = merged(over, [keyword(name, ["animal"]) for name in names], now=NOW, modified=THEN if over else None).data
    assert data is not None
    return data


@pytest.mark.parametrize("style", STYLES)
def test_keywords_of_people_are_yes_and_their_images_were_looked_at(tmp_path: Path, style: str) -> None:
    put(tmp_path / "sub/a.jpg.xmp", sidecar(style, ("animal", "cat"), ("bird",), ("2026", "Rome")))
    put(tmp_path / "b.png.xmp", sidecar(style, ("holiday",)))
    found = read(opened(tmp_path))
    assert recognizes(opened(tmp_path))
    assert sorted(found.statements) == [Statement("sub/a.jpg", name, YES, when=THEN) for name in ("bird", "cat")]
    assert found.checked == [CheckedImage("b.png", when=THEN), CheckedImage("sub/a.jpg", when=THEN)]
    assert found.notes == ("keywords that are no labels of the table: 2 (holiday, Rome)",)
    assert (found.form, found.is_explicit, found.warnings) == ("XMP keywords, 2 sidecars", False, ())


def test_labels_that_tagllm_wrote_and_nobody_touched_are_no_human_decisions(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg.xmp", ours("cat", "dog"), NOW)
    found = read(opened(tmp_path))
    assert (found.statements, found.checked) == ([], [CheckedImage("a.jpg", when=NOW)])
    assert found.kept == [Statement("a.jpg", name, YES, when=NOW) for name in ("cat", "dog")]
    assert found.notes == ("sidecars that tagllm wrote into: 1",)


def test_what_exiftool_adds_is_yes_and_what_it_removes_is_no(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jpg.xmp", ours("cat", "dog"), NOW)
    add_keyword(path, "bird")
    add_keyword(path, "Anna", "people")
    remove_keyword(path, "cat", "animal")
    when = path.stat().st_mtime_ns // 1000
    found = read(opened(tmp_path))
    assert found.statements == [
        Statement("a.jpg", "bird", YES, when=when),
        Statement("a.jpg", "cat", NO, when=when),
    ]
    assert found.is_explicit
    assert found.notes[0] == "keywords that are no labels of the table: 1 (Anna)"


def test_our_own_write_is_not_the_time_of_what_people_wrote(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg.xmp", ours("dog", over=sidecar("digikam", ("cat",))), NOW)
    assert read(opened(tmp_path)).statements == [Statement("a.jpg", "cat", YES, when=THEN)]


def test_the_image_of_a_sidecar_without_its_ending_is_the_one_beside_it(tmp_path: Path) -> None:
    for name in ("one/a.xmp", "two/a.xmp", "raw/a.xmp"):
        put(tmp_path / name, sidecar("lightroom", ("cat",)))
    for name in ("one/a.JPG", "two/a.jpg", "two/a.png", "raw/a.cr3"):
        (tmp_path / name).touch()
    assert [each.image for each in read(opened(tmp_path)).checked] == ["one/a.JPG", "raw/a", "two/a"]


def test_a_sidecar_of_a_raw_file_is_about_that_file(tmp_path: Path) -> None:
    data = sidecar("lightroom", ("cat",)).replace(b' xmp:Rating="4"', b' photoshop:SidecarForExtension="DNG"')
    data = data.replace(b"xmlns:xmp=", b'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:xmp=')
    put(tmp_path / "sub/a.b.xmp", data)
    (tmp_path / "sub/a.b.jpg").touch()
    put(tmp_path / "c.jpg.xmp", data)
    put(tmp_path / "d.e.xmp", data)
    assert [each.image for each in read(opened(tmp_path)).checked] == ["c.jpg", "d.e.dng", "sub/a.b.dng"]


def test_one_sidecar_alone_is_read_and_without_a_table_every_keyword_counts(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jpg.xmp", sidecar("lightroom", ("cat",), ("holiday",)))
    assert recognizes(TruthFile(path))
    assert [each.label for each in read(TruthFile(path)).statements] == ["cat", "holiday"]
    assert read(TruthFile(path)).checked[0].image == "a.jpg"


def test_sidecars_that_cannot_be_read_are_named_and_hidden_folders_left_alone(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg.xmp", b"<!DOCTYPE x><x/>")
    put(tmp_path / ".tagllm-1/b.jpg.xmp", sidecar("lightroom", ("cat",)))
    with pytest.raises(UsageError, match=r"not one of 1 XMP sidecars can be read: a\.jpg\.xmp: it declares"):
        read(opened(tmp_path))
    put(tmp_path / "c.jpg.xmp", sidecar("lightroom", ("cat",)))
    found = read(opened(tmp_path))
    assert [each.image for each in found.statements] == ["c.jpg"]
    (warning,) = found.warnings
    assert warning.startswith("sidecars that cannot be read: 1 (a.jpg.xmp: it declares a document type")


def test_other_folders_and_files_are_not_recognized(tmp_path: Path) -> None:
    put(tmp_path / "voc/a.xml", b"<annotation/>")
    assert not recognizes(TruthFile(tmp_path))
    assert not recognizes(TruthFile(tmp_path / "voc/a.xml"))
