"""`tagllm import`: what it prints, and what it does with files that cannot be used."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tagllm_cli.store.merge.parts import evidence_of
from tests.support.command_line import check_error, one_object, tagllm
from tests.support.decisions import human_labels_of, labels_of, on_record, write_sheet
from tests.support.label_process import kill_after, processes
from tests.support.workspace import LABELS, Workspace, snapshot

SAID = "image,label,decision,who\n000.png,cat,yes,ann\n001.png,dog,no,ann\n"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    work = Workspace(tmp_path, 4)
    work.both()
    monkeypatch.chdir(work.out.parent)
    Path("said.csv").write_text(SAID)
    return work


def test_four_lines_say_what_was_recorded_and_what_to_run_next(work: Workspace) -> None:
    result = tagllm("import l.parquet said.csv")
    assert result.exit_code == 0, result.output
    recorded, changed, people, following = result.stdout.splitlines()
    assert recorded.startswith("l.parquet: 2 decisions recorded, of 2 about 2 images in said.csv (")
    assert changed.startswith("2 rows changed: ")
    assert people == "on record: 2 decisions about 2 images by ann"
    assert following == "next: tagllm evaluate l.parquet --truth l.parquet --human-only"
    assert "no row changed" in tagllm("import l.parquet said.csv").stdout
    assert tagllm("import l.parquet said.csv --quiet").output == ""


def test_the_next_command_works(work: Workspace) -> None:
    line = tagllm("import l.parquet said.csv").stdout.splitlines()[-1].removeprefix("next: tagllm ")
    assert tagllm(line).exit_code == 0, tagllm(line).output
    line = tagllm("import c.parquet said.csv").stdout.splitlines()[-1]
    assert line == "next: tagllm disambiguate c.parquet --out l.parquet" or line.startswith("next: tagllm disambiguate")


def test_a_dry_run_does_not_talk_as_if_it_had_recorded_anything(work: Workspace) -> None:
    recorded, _, people, following = tagllm("import l.parquet said.csv --dry-run").stdout.splitlines()
    assert "2 decisions would be recorded" in recorded
    assert people == "on record then: 2 decisions about 2 images by ann"
    assert following == "next: the same command without --dry-run"


def test_json_is_one_object_with_all_that_was_not_found(work: Workspace) -> None:
    images = [f"gone/x{number}.png" for number in range(10)]
    gone = [(image, "cat", "no") for image in images]
    write_sheet(Path("more.csv"), [("000.png", "cat", "yes"), ("000.png", "unicorn", "no"), *gone])
    result = tagllm("import l.parquet said.csv more.csv --json --dry-run")
    value = one_object(result.stdout)
    assert (value["dry_run"], value["recorded"]) == (True, 3)
    assert value["files"][1]["images_not_in_table"] == images
    assert value["files"][1]["labels_not_in_vocabulary"] == ["unicorn"]
    assert "10 of its images are not in the table: gone/x0.png, gone/x1.png, gone/x2.png and 7 more" in result.stderr
    assert not on_record(Path("l.parquet"))


def test_info_shows_who_decided_what(work: Workspace) -> None:
    assert "people" not in tagllm("info l.parquet").stdout.split("cost of each stage")[0]
    tagllm("import l.parquet said.csv")
    Path("ben.csv").write_text("image,label,decision\n000.png,cat,no\n")
    tagllm("import l.parquet ben.csv --who ben")
    work.paint(50, "001.png")
    work.both()
    shown = tagllm("info l.parquet").stdout
    for line in (
        "people:           3 decisions on record about 2 images",
        "ann 2, ben 1",
        "said.csv (CSV, a line per decision (image, label, decision, who)): 2, imported",
        "1 pair of image and label (first: 000.png, cat: ann yes, ben no)",
        "1 decision of people about 1 image whose bytes have changed (first: 001.png)",
    ):
        assert " ".join(line.split()) in " ".join(shown.split())
    (table,) = one_object(tagllm("info l.parquet --json").stdout)["tables"]
    assert table["people"]["who"] == {"ann": 2, "ben": 1}
    assert table["people"]["stale"]["examples"] == ["001.png"]


def test_options_from_a_config_file(work: Workspace) -> None:
    Path("tagllm.yaml").write_text("import:\n  who: ann\n")
    Path("anonymous.csv").write_text("image,label,decision\n000.png,cat,yes\n")
    assert tagllm("import l.parquet anonymous.csv --config tagllm.yaml").exit_code == 0
    assert {each.who for each in on_record(Path("l.parquet"))} == {"ann"}


BAD = {
    "an empty file": (b"", "f is empty"),
    "only spaces": (b" \n\n", "f"),
    "no known form": (b"hello\nworld\n", "f"),
    "another project": (b"image,label,decision\nx/9.png,cat,yes\n", "no image of f is in l.parquet"),
    "other labels": (b"image,label,decision\n000.png,unicorn,yes\n", "no label of f is in the vocabulary"),
    "a cut line": (
        b"image,label,decision,who\n000.png,cat,yes,ann\n001.png,do",
        "f, line 3: 2 fields where the header has 4",
    ),
    "a cut decision": (b"image,label,decision\n000.png,cat,yes\n001.png,dog,y!", "f, line 3: 'y!' is no decision"),
    "cut JSON": (b'[{"image": "000.png", "label": "cat", "decision": "yes"}, {"image": "0', "f is not JSON"),
    "cut JSON Lines": (b'{"image": "000.png", "label": "cat", "decision": "yes"}\n{"image": "0', "f, line 2: not JSON"),
    "not UTF-8": (
        b"image,label,decision\nb\xe4r.png,cat,yes\n",
        "f: this is neither JSON, Parquet nor a text",
    ),
    "no decisions yet": (b"image,label,decision\n000.png,cat,\n", "f: it holds no decision"),
    "a time that is none": (b"image,label,decision,when\n000.png,cat,yes,noon\n", "f, line 2: 'noon' is no time"),
    "a fingerprint that is none": (
        b"image,label,decision,fingerprint\n000.png,cat,yes,xyz\n",
        "'xyz' is no fingerprint",
    ),
    "no image": (b"image,label,decision\n,cat,yes\n", "f, line 2: there is no image in column 'image'"),
    "another object": (
        b'{"image": "000.png", "label": "cat", "decision": "yes"}\n{"other": 1}\n',
        "f, line 2: this record",
    ),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\xff\xfe\x00", "f"),
    "other JSON": (b'{"hello": "world"}', "f"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_cannot_be_used_is_named_and_nothing_changes(work: Workspace, what: str) -> None:
    content, message = BAD[what]
    Path("f").write_bytes(content)
    check_error("import l.parquet said.csv f", message, None)


def test_places_and_options_that_cannot_be_used(work: Workspace) -> None:
    Path("folder").mkdir()
    os.mkfifo("pipe")
    for line, message in (
        ("import l.parquet no.csv", "there is no file at no.csv"),
        ("import l.parquet folder", "folder is a folder without"),
        ("import l.parquet pipe", "pipe is neither a file nor a folder"),
        ("import l.parquet l.parquet", "l.parquet is the table itself"),
        ("import l.parquet c.parquet", "c.parquet is a Parquet file"),
        ("import said.csv said.csv", "said.csv is not a Parquet file"),
        (
            "import l.parquet said.csv --labels unicorn",
            "--labels names unicorn, which the vocabulary of",
        ),
        ("import l.parquet said.csv --withdraw --complete", "--withdraw does not go with"),
        ("import l.parquet no.csv --withdraw", "there is no file at no.csv"),
    ):
        if "pipe" in line:
            result = tagllm(line)
            assert (result.exit_code, message in result.stderr) == (2, True)
            Path("pipe").unlink()
        else:
            check_error(line, message, None)


def test_a_file_without_permission(work: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def closed(path: Path, *arguments: Any, **more: Any) -> Any:  # root, who runs these tests in CI, may read all
        if path.name == "said.csv":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", closed)
    for line in ("import l.parquet said.csv", "import l.parquet said.csv --withdraw"):
        result = tagllm(line)
        assert (result.exit_code, "cannot read said.csv: Permission denied" in result.stderr) == (2, True)


def test_a_folder_that_takes_no_files(work: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: not mode & os.W_OK and real(path, mode, **more))
    check_error("import l.parquet said.csv", "cannot be written", None)


def test_hostile_names_do_no_harm(tmp_path: Path) -> None:
    hostile = ["=1+1.png", "a\nb\x1b[31m.png", "'quote\".png", " space .png", "<script>.png", "ü,;|.png"]
    work = Workspace(tmp_path)
    for number, name in enumerate(hostile):
        work.paint(number, name)
    work.both()
    said = write_sheet(
        tmp_path / "=said\x1b[31m.csv",
        [(f"'{n}" if n[0] == "=" else n, "cat", "yes", "=ann\x1b]0;\n") for n in hostile],
    )
    result = tagllm(["import", str(work.labels_out), str(said)])
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert [human_labels_of(work.labels_out, name) for name in hostile] == [{"cat": "yes"}] * len(hostile)
    assert "\x1b" not in tagllm(["info", str(work.labels_out)]).output


def test_decisions_about_what_is_gone_are_kept_and_counted(work: Workspace) -> None:
    tagllm("import l.parquet said.csv")
    (work.images / "000.png").unlink()
    work.write_vocabulary([name for name in LABELS if name != "dog"])
    work.both(allow_gone=True)
    Path("more.csv").write_text("image,label,decision\n002.png,cat,yes\n000.png,cat,no\n001.png,dog,yes\n")
    result = tagllm("import l.parquet more.csv --json")
    value = one_object(result.stdout)
    (file,) = value["files"]
    assert (file["images_not_in_table"], file["labels_not_in_vocabulary"]) == (["000.png"], ["dog"])
    assert value["people"]["gone"]["examples"] == ["000.png"]
    assert value["people"]["gone_labels"] == {"dog": 1}
    assert len(on_record(Path("l.parquet"))) == 3
    work.paint(0, "000.png")
    work.write_vocabulary(LABELS)
    work.both()
    assert human_labels_of(work.labels_out, "000.png") == {"cat": "yes"}
    assert human_labels_of(work.labels_out, "001.png") == {"dog": "no"}


def run_import(folder: str, seconds: float) -> None:
    """Import in a process that the kernel kills after so many seconds of processor time."""
    from tagllm_cli.evaluation.human_labels.take_in import import_files

    kill_after(seconds)
    import_files(Path(folder, "l.parquet"), [Path(folder, "all.csv")])


@pytest.mark.slow
def test_killed_at_random_moments_nothing_is_lost_or_half_applied(tmp_path: Path) -> None:
    work = Workspace(tmp_path, 60)
    work.both()
    before = work.labels_out.read_bytes()
    lines = [(f"{number:03}.png", label, "no", "ann") for number in range(60) for label in LABELS]
    write_sheet(work.out.parent / "all.csv", lines)
    saved = snapshot(work.out.parent)
    process = processes().Process(target=run_import, args=(str(work.out.parent), 1e6))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    after, count = work.labels_out.read_bytes(), len(on_record(work.labels_out))
    assert count == len(lines)
    assert not any(labels_of(work.labels_out, f"{number:03}.png") for number in range(60))
    rng, states = Random(5), set()
    for _ in range(25):
        restore(work.out.parent, saved)
        process = processes().Process(target=run_import, args=(str(work.out.parent), rng.uniform(0.0, 0.25)))
        process.start()
        process.join(120)
        shown = work.labels_out.read_bytes()
        assert shown in (before, after)
        recorded = len(on_record(work.labels_out))
        assert recorded in (0, count)
        states.add((recorded > 0, shown == after))
        if rng.random() < 0.5:
            assert tagllm(["import", str(work.labels_out), str(work.out.parent / "all.csv")]).exit_code == 0
        elif recorded:
            work.disambiguate()
        else:
            continue
        assert work.labels_out.read_bytes() == after
        assert len(on_record(work.labels_out)) == count
    assert (False, True) not in states
    assert len(states) > 1


def restore(folder: Path, saved: dict[str, bytes | None]) -> None:
    """Put the files of a folder back, with their times; the table on record is told by them."""
    for path in folder.iterdir():
        if path.name not in saved:
            path.unlink() if path.is_file() else None
    for name, content in saved.items():
        if content is not None:
            (folder / name).write_bytes(content)


def test_a_killed_import_leaves_no_lock(work: Workspace) -> None:
    assert evidence_of(Path("l.parquet")).exists()
    assert json.loads(tagllm("import l.parquet said.csv --json").stdout)["recorded"] == 2
