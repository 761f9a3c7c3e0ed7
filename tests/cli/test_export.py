"""`tagllm export` as it is typed: its help, what shells complete, and its options."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tagllm_cli.export.registry import FORMATS
from tests.export.test_formats import ENTRIES, LABELS, rows, written
from tests.support.command_line import tagllm


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ENTRIES:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return written(Path("labels.parquet"), tmp_path / "images", rows(tmp_path / "images"))


def plain(text: str) -> str:
    """The words of a text, which each shell quotes in its own way."""
    return " ".join(re.findall(r"\w+", text))


def test_an_unknown_format_is_refused_in_our_words() -> None:
    error = tagllm("export t.parquet --format nope --out o").stderr.splitlines()[0]
    assert error.startswith("error: Invalid value for '--format': 'nope' is not one of 'coco', 'csv'")


def test_the_help_says_what_each_format_is() -> None:
    said = " ".join(tagllm(["export", "--help"]).stdout.replace("│", " ").split())
    for name, form in FORMATS.items():
        assert f"{name}: {form.help.split()[0]}" in said


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("typed", ["", "csv"])
def test_shells_complete_formats(shell: str, typed: str) -> None:
    line = f"tagllm export labels.parquet --format {typed}"
    asked = {
        "_TAGLLM_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": "4",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'tagllm'; from tagllm_cli.cli import main; main()"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True)
    assert done.stderr == ""
    for name, form in FORMATS.items():
        if name.startswith(typed):
            assert name in done.stdout
            assert shell == "bash" or plain(form.help) in plain(done.stdout)
    assert ("coco" in done.stdout) == (typed == "")


def test_options_are_read_and_what_was_done_is_said(table: Path) -> None:
    options = "--labels dog,cat --min-probability 0.5 --unknown keep --split train=.5,test=.5 --seed 2 --json"
    done = tagllm(f"export {table} --format csv-long --out out.csv {options}")
    said = json.loads(done.stdout)
    assert said["files"] == ["out.train.csv", "out.test.csv"]
    assert sum(said["splits"].values()) == said["images"] == len(LABELS)
    assert said["left_out"] == {"failed": 1, "pending": 1}
    done = tagllm(f"export {table} --format imagefolder --out folder --link --split train=1 --group-by folder")
    assert "train: 4 images" in done.stdout
    assert Path("folder/train/sub/human.png").samefile("images/sub/human.png")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--format csv --copy", "csv holds no images: there is nothing to copy"),
        ("--format hf --link", "hf cannot link images"),
        ("--format imagefolder --copy --link", "--copy and --link exclude each other"),
        ("--format csv --split train=.8", "the shares of --split sum to 0.8, not to 1"),
        ("--format csv --labels doge", "has no label 'doge'"),
        ("--format csv --labels @none.txt", "none.txt cannot be read"),
        ("--format csv --unknown keep", "csv cannot tell undecided labels from absent ones"),
        ("--format csv --unknown perhaps", "perhaps"),
        ("--format csv --group-by folder", "there is no --split"),
        ("--format csv --shard-size 5", "csv has no shards"),
        ("--format webdataset --shard-size many", "--shard-size takes images or bytes"),
        ("--format xml", "xml"),
    ],
)
def test_what_does_not_go_together_is_said_in_two_lines_and_leaves_no_trace(
    table: Path, options: str, said: str
) -> None:
    done = tagllm(f"export {table} {options} --out new/out")
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert not Path("new").exists()
