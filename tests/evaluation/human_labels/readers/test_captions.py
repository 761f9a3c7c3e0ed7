"""Captions as people's labels: every tag of somebody's own, and of ours only what was changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.human_labels.base import NO, YES, CheckedImage, Statement
from tagllm_cli.evaluation.human_labels.readers.captions import read, recognizes
from tagllm_cli.evaluation.truth.base import TableContext, TruthFile
from tagllm_cli.export.base import ExportSettings
from tagllm_cli.export.registry import export_table
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.export.conftest import root, table  # noqa: F401 (fixtures)
from tests.export.test_formats import LABELS, VOCABULARY
from tests.support.photo_software import edit_caption

WORDS = Vocabulary("pets", tuple(map(Label, ("cat", "hot dog", "cup (tea)"))))


def captions(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        os.utime(folder / f"{name}.txt", (1.6e9, 1.6e9))
    return folder


def opened(path: Path, words: Vocabulary = WORDS) -> TruthFile:
    return TruthFile(path, table=TableContext(("a.jpg", "b.jpg"), words))


def test_every_tag_of_foreign_captions_that_is_a_label_is_a_yes(tmp_path: Path) -> None:
    folder = captions(tmp_path, a=r"sks, cat, hot_dog, cup \(tea\)", b="sks, best quality")
    found = read(opened(folder))
    when = 1_600_000_000_000_000
    assert recognizes(opened(folder))
    assert {(each.image, each.label) for each in found.statements} == {
        ("a", name) for name in ("cat", "hot_dog", "cup (tea)")
    }
    assert {(each.decision, each.when) for each in found.statements} == {(YES, when)}
    assert found.checked == [CheckedImage("a", when=when), CheckedImage("b", when=when)]
    assert found.notes == ("tags that are no labels of the table: 3 (sks, best quality)",)


def test_boxes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="boxes with numbers"):
        read(opened(captions(tmp_path, a="0 0.5 0.5 0.1 0.1")))


def test_of_captions_that_tagllm_wrote_only_changes_count(table: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "captions"
    options = {"prefix": "sks", "underscores": "yes"}
    export_table(table, "captions", out, ExportSettings(format_options=options))
    file = opened(out, VOCABULARY)
    untouched = read(file)
    assert (untouched.statements, len(untouched.checked), untouched.is_explicit) == ([], 4, True)
    assert {each[:3] for each in untouched.kept} == {
        (image, name, YES) for image, names in LABELS.items() for name in names
    }
    path = out / "a dog & cat.txt"
    edit_caption(path, add="münze", remove="dog")
    edit_caption(path, add="masterpiece")
    edit_caption(out / "sub__ünsicher_.txt", remove='salt_"pepper"')
    (out / "sub__human.txt").unlink()
    found = read(file)
    when = path.stat().st_mtime_ns // 1000
    assert found.statements[:2] == [
        Statement("a dog & cat.png", "münze", YES, when=when),
        Statement("a dog & cat.png", "dog", NO, when=when),
    ]
    (last,) = found.statements[2:]
    assert last[:3] == ("sub/ünsicher\n.png", 'salt, "pepper"\n', NO)
    assert {each[:2] for each in found.kept} == {("a dog & cat.png", "cat")}
    assert found.notes[0].startswith("captions that tagllm wrote: 3, changed by people: 2")
    assert found.notes[1] == "tags that are no labels of the table: 1 (masterpiece)"


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ('{"tagllm_captions": 2, "separator": ",", "prefix": "", "tags": {}}\n', "has version 2"),
        ('{"tagllm_captions": 1}\n', "first line of this record is damaged"),
        (
            '{"tagllm_captions": 1, "separator": ",", "prefix": "", "tags": {}}\n{"caption": 1}\n',
            "a line of this record",
        ),
        ('{"tagllm_captions": 1, "separator": ",", "pre', "not JSON"),
    ],
)
def test_a_damaged_record_is_refused_and_not_guessed_about(tmp_path: Path, record: str, why: str) -> None:
    captions(tmp_path, a="cat")
    (tmp_path / "captions.jsonl").write_text(record)
    with pytest.raises(UsageError, match=why):
        read(opened(tmp_path))


def test_a_record_of_somebody_else_is_no_record(tmp_path: Path) -> None:
    captions(tmp_path, a="cat")
    (tmp_path / "captions.jsonl").write_text('{"file_name": "a.jpg", "text": "cat"}\n')
    assert [each.label for each in read(opened(tmp_path)).statements] == ["cat"]


def test_a_record_that_leads_out_of_the_folder_reads_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("cat")
    folder = tmp_path / "captions"
    folder.mkdir()
    captions(folder, a="cat")
    head = '{"tagllm_captions": 1, "separator": ",", "prefix": "", "tags": {"cat": "cat"}}\n'
    (folder / "captions.jsonl").write_text(f'{head}{{"caption": "../secret.txt", "image": "a.jpg", "text": ""}}\n')
    with pytest.raises(UsageError, match="a line of this record"):
        read(opened(folder))
