"""Folders of VOC XML and of text files, text without a header, label tables, and paths that hold no truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tagllm_cli.errors import TableError, UsageError
from tagllm_cli.evaluation.truth import Truth, load_truth
from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status
from tagllm_cli.store.table import TableInfo, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.evaluation.truth.reading import EXPECTED, read, table


def voc(filename: str, *names: str, folder: str = "", difficult: str = "0") -> str:
    objects = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><part><name>head</name></part></object>"
        for name in names
    )
    return f"<annotation><folder>{folder}</folder><filename>{filename}</filename>{objects}</annotation>"


def voc_files(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_folder_of_voc_files_is_read(tmp_path: Path) -> None:
    folder = voc_files(
        tmp_path / "Annotations",
        one=voc("one.jpg", "cat", "dog", "cat", folder="a"),
        two=voc("two.jpg", "hot dog", folder="a"),
        three=voc("three.png", folder="b"),
    )
    found = load_truth(folder, table=table())
    assert found.labels == EXPECTED
    assert found.dialect == "Pascal VOC XML, 3 files"
    assert load_truth(folder / "one.xml").labels == {"a/one.jpg": {"cat", "dog"}}


def test_a_label_of_which_only_difficult_objects_are_there_is_not_judged(tmp_path: Path) -> None:
    both = voc("two.jpg", "cat", difficult="1").replace(
        "</annotation>", "<object><name>cat</name></object></annotation>"
    )
    folder = voc_files(tmp_path / "xml", one=voc("one.jpg", "cat", difficult="1"), two=both)
    found = load_truth(folder)
    assert (found.labels, found.unjudged("one.jpg"), found.unjudged("two.jpg")) == (
        {"one.jpg": set(), "two.jpg": {"cat"}},
        {"cat"},
        set(),
    )


def test_files_that_name_other_images_are_keyed_by_their_own_names(tmp_path: Path) -> None:
    folder = voc_files(tmp_path / "xml", a__one=voc("IMG_1.jpg", "cat"), a__two=voc("IMG_1.jpg", "dog"))
    found = load_truth(folder, table=table())
    assert found.labels == {"a/one": {"cat"}, "a/two": {"dog"}}
    assert "named like their XML files" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', "document type or entities"),
        ("<annotation><object>", "not XML"),
        ("<annotations><image/></annotations>", "but <annotations>"),
    ],
)
def test_other_xml_is_one_line_that_names_the_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"bad.xml: .*{said}"):
        load_truth(voc_files(tmp_path / "xml", bad=text))


def test_a_folder_of_text_files_is_read(tmp_path: Path) -> None:
    for name, text in {"a/one": "cat, dog\n", "a/two": "hot dog", "b/three": ""}.items():
        (tmp_path / "tags" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tags" / f"{name}.txt").write_text(text)
    found = load_truth(tmp_path / "tags", table=table())
    assert {key: found.labels[key] for key in sorted(found.labels)} == {
        "a/one": {"cat", "dog"},
        "a/two": {"hot dog"},
        "b/three": set(),
    }


def test_boxes_with_class_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("0 0.5 0.5 0.1 0.2\n")
    with pytest.raises(UsageError, match="YOLO"):
        load_truth(tmp_path, table=table())


def test_an_image_folder_is_read_by_its_metadata(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a/one.jpg", "labels": ["cat"]}))
    (tmp_path / "LICENSE.txt").write_text("free")
    assert load_truth(tmp_path, table=table()).labels == {"a/one.jpg": {"cat"}}


@pytest.mark.parametrize(
    "text",
    [
        "a/one.jpg\tcat, dog\na/two.jpg\thot dog\nb/three.png\t\n",
        "a/one.jpg: cat, dog\na/two.jpg: hot dog\nb/three.png:\n",
        "a/one.jpg,cat|dog\na/two.jpg,hot dog\nb/three.png,\n",
        "a/one.jpg,cat\na/one.jpg,dog\na/two.jpg,hot dog\nb/three.png,\n",
        "a/one.jpg cat|dog\r\na/two.jpg hot dog\r\nb/three.png\r\n",
    ],
)
def test_lines_without_a_header_are_read_where_they_begin_with_images_of_the_table(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text, "truth.txt").labels == EXPECTED


def label_table(path: Path, stage: str) -> Path:
    entries = tuple(LabelEntry(name, decision, score=0.5) for name, decision in zip("abc", Decision, strict=True))
    rows = [
        Row("1.jpg", "1.jpg", b"1", 4, 4, Status.OK, None, entries, ()),
        Row("2.jpg", "2.jpg", b"2", 4, 4, Status.OK, None, (), ()),
        Row("3.jpg", "3.jpg", b"", 0, 0, Status.FAILED, "empty_file: 0 bytes", None),
        Row("4.jpg", "4.jpg", b"", 0, 0, Status.PENDING, None, None),
    ]
    labels = tuple(Label(name) for name in "abcd")
    write_table(path, TableInfo(stage, SourceInfo("folder", "/images"), Vocabulary("letters", labels)), rows)
    return path


def test_a_label_table_is_truth_where_it_has_an_answer(tmp_path: Path) -> None:
    found = load_truth(label_table(tmp_path / "labels.parquet", "labels"))
    assert found == Truth(
        {"1.jpg": frozenset("a"), "2.jpg": frozenset()},
        tuple("abcd"),
        True,
        {"1.jpg": frozenset("c")},
        dialect="label table",
    )


def test_other_parquet_is_no_truth(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="candidate table"):
        load_truth(label_table(tmp_path / "candidates.parquet", "candidates"))
    with pytest.raises(TableError):
        read(tmp_path, b"PAR1 and nothing else", "broken.parquet")


def test_missing_files_and_empty_folders_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no truth file at .*none\.json"):
        load_truth(tmp_path / "none.json")
    with pytest.raises(UsageError, match="no truth file at") as remote:
        load_truth(Path("s3://bucket/truth.csv"))
    assert "local disk" in remote.value.hint
    with pytest.raises(UsageError, match="is a folder without XML, text or metadata files") as error:
        load_truth(tmp_path)
    assert "Pascal VOC" in error.value.hint
