"""What people see: plain text without a terminal, colours and a moving bar on one, no steering by foreign text."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tagllm_cli.cli.console import Console
from tagllm_cli.engines.base import Usage
from tagllm_cli.errors import UsageError
from tagllm_cli.pipeline.label.stats import RunStats
from tests.support.stub_server import stub_server
from tests.support.workspace import paint

COLUMNS = ("label", "F1", "means")
ROWS = (("cat", "0.5", "a small animal " * 12 + "that purrs"), ("日本", "12", "b"), ("[bold]dog", "-", ":cat: [/]"))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both streams count as terminals, 80 columns wide, whatever the tests run in."""
    for name in ("NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)


def test_without_a_terminal_a_row_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table({}, "labels", COLUMNS, ROWS)
    title, header, *lines = capsys.readouterr().out.splitlines()
    assert (title, header) == ("labels", "label       F1  means")
    assert lines == [
        f"cat        0.5  {ROWS[0][2]}",
        "日本        12  b",
        "[bold]dog    -  :cat: [/]",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_gets_a_table_that_fits(
    terminal: None, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    Console().table({}, "labels", COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == width
    assert [line.strip("─ ") for line in lines[1:4]] == ["", "label       F1  means", ""]
    assert " ".join(" ".join(lines).split()).count("small animal") == 12


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_terminal_gets_a_table_in_parts_without_a_broken_number(
    terminal: None, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    columns = ("table", *(f"figure{number}" for number in range(9)), "95% interval")
    row = ("labels.candidates", *(f"0.{number}1234" for number in range(9)), "0.1234 [-0.1234, 0.1234]")
    Console().table({}, "figures", columns, [row])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    assert [words.count(each) for each in columns[1:10]] == [1] * 9
    assert [words.count(each) for each in row[1:10]] == [1] * 9
    assert {"0.1234", "[-0.1234,", "0.1234]"} <= set(words)


@pytest.mark.parametrize("plain", [False, True])
def test_colours_are_for_terminals_without_no_color(
    terminal: None, plain: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if plain:
        monkeypatch.setenv("NO_COLOR", "1")
    console = Console()
    console.table({}, "checks", ("what", "state"), [("disk", "missing")])
    console.warn("careful")
    console.error(UsageError("wrong", "Do it right."))
    out, err = capsys.readouterr()
    assert ("\x1b[31mmissing" in out, "\x1b[33mwarning" in err, "\x1b[1;31merror" in err) == (not plain,) * 3
    assert ("\x1b" in out + err) is not plain


def test_foreign_text_is_shown_and_does_nothing(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.result({}, ["a\x1b[2Jb\x07 [red]c[/red] :smile: \udcff \\"])
    console.explain(UsageError("two\nlines", "and\ttwo\nmore \\"))
    out, err = capsys.readouterr()
    assert out == "a\\x1b[2Jb\\x07 [red]c[/red] :smile: \\udcff \\\n"
    assert err.splitlines()[0].endswith("two lines")
    assert "and two more \\" in err.splitlines()[1]


def test_long_lines_are_left_to_the_terminal(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    path = "/a folder/" * 30
    Console().result({}, [path])
    assert capsys.readouterr().out == f"{path}\n"


def test_what_hides_or_reorders_text_is_shown_as_an_escape(capsys: pytest.CaptureFixture[str]) -> None:
    Console().result({}, ["gpj.\u202ephoto", "a\u200bb", "x\u2028y", "\ufeffz", "فارسی 日本 é 👍"])
    shown = ["gpj.\\u202ephoto", "a\\u200bb", "x\\u2028y", "\\ufeffz", "فارسی 日本 é 👍"]
    assert capsys.readouterr().out.split("\n") == [*shown, ""]


def test_in_json_they_are_escaped_and_mean_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"gpj.\u202ephoto": ["a\u200bb", "x\u2028y", "\x9b31m", "\ufeffz", "é 👍\n"]}
    Console(json_output=True).result(value, [])
    shown = capsys.readouterr().out
    assert json.loads(shown) == value
    assert not set(shown) & set("\u202e\u200b\u2028\x9b\ufeff")
    assert "é 👍" in shown


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TAGLLM_API_KEY", "sk-example-1")
    line = "next: tagllm x --endpoint http://me:s3cret@host/v1?api-version=2&key=s3cret sk-example-1"
    Console().result({}, [line])
    Console().warn(line)
    Console(json_output=True).error(UsageError(line))
    out, err = capsys.readouterr()
    for text in (out, err):
        assert "http://…@host/v1?api-version=2&key=… …" in text
        assert "s3cret" not in text
        assert "sk-example" not in text


def test_a_terminal_that_is_not_utf_8_gets_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`PYTHONIOENCODING=ascii tagllm ...`: nothing is lost, and nothing fails."""
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PATH": ""}  # without nvidia-smi there is a hint
    code = "from tagllm_cli.cli.app import app\nfor line in {}: app(line.split(), standalone_mode=False)"
    lines = ["vocab show names.txt", "doctor"]
    Path("names.txt").write_text("café → table\n×\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", code.format(lines)], env=environment, capture_output=True, check=False, text=True
    )
    assert "caf\\xe9 -> table" in done.stdout
    assert "\nx\n" in done.stdout
    assert "-> vLLM uses the CPU" in done.stdout
    assert (done.stderr, done.stdout.isascii()) == ("", True)


def test_quiet_leaves_errors_warnings_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(quiet=True)
    console.note("note")
    console.result({}, ["summary"])
    with console.watching("candidates", 3) as watcher:
        watcher.starting()
        watcher.update(RunStats(images=1), Usage())
        watcher.trouble("http://a left out")
    assert capsys.readouterr() == ("", "")
    console.warn("careful")
    console.explain(UsageError("wrong"))
    console.table({}, "t", ("a",), [("1",)])
    Console(quiet=True, json_output=True).result({"a": 1}, [])
    out, err = capsys.readouterr()
    assert err.splitlines() == ["warning: careful", "error: wrong"]
    assert out == '{\n  "a": 1\n}\n'


@pytest.mark.parametrize("value", ["é 日本", "\udcff"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_json_survives_any_text_and_encoding(
    value: str, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "out").open("w", encoding=encoding) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        Console(json_output=True).table({"value": value}, "", (), [])
    assert json.loads((tmp_path / "out").read_text(encoding)) == {"value": value}


def test_without_a_terminal_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr("tagllm_cli.cli.progress.time.monotonic", lambda: now)
    with Console().watching("candidates", 5001) as watcher:
        watcher.starting()
        now += 60  # loading the model does not count as speed
        for images in range(1, 252):
            stats = RunStats(images=images, asked=4 * images, failed_requests=images // 100)
            watcher.update(stats, Usage(1000 * images, 250 * images, 0, 4 * images))
            now += 0.125  # exact in binary
    assert capsys.readouterr().err.splitlines() == [
        "candidates: starting the engine for 5,001 images",
        "candidates: 81/5,001  8.0 images/s  324 requests  8,000 tokens/s  25% cached  ETA 10:15",
        "candidates: 161/5,001  8.0 images/s  644 requests  8,000 tokens/s  25% cached  1 failed  ETA 10:05",
        "candidates: 241/5,001  8.0 images/s  964 requests  8,000 tokens/s  25% cached  2 failed  ETA 9:55",
    ]


def test_without_a_terminal_trouble_is_a_line_when_it_changes_and_numbers_are_told_ever_less(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("tagllm_cli.cli.progress.time.monotonic", lambda: now)
    with Console().watching("candidates", 40) as watcher:  # the first image need not be finished
        watcher.trouble(None)
        for second in range(60):
            now = float(second)
            watcher.trouble(None if second == 30 else f"http://a left out: \x1b[2J no, next try in {60 - second} s")
        now = 61.0
        watcher.trouble("http://b left out")
        watcher.trouble(None)
        now = 63.0
        watcher.trouble(None)
        now = 70.0
        watcher.trouble(None)
        watcher.trouble(None)
    assert capsys.readouterr().err.splitlines() == [
        "candidates: http://a left out: \\x1b[2J no, next try in 60 s",
        "candidates: http://a left out: \\x1b[2J no, next try in 50 s",
        "candidates: requests are answered again",
        "candidates: http://a left out: \\x1b[2J no, next try in 25 s",
        "candidates: http://a left out: \\x1b[2J no, next try in 15 s",
        "candidates: http://b left out",
        "candidates: requests are answered again",
    ]


def test_a_question_shows_facts_in_columns_and_the_end_of_the_input_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console()
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    assert not console.is_interactive
    console.show("mouse\x1b[2J", [("here", "an [bold]animal"), ("similar", "cat\nrat")])
    assert (console.ask("keep? "), console.ask("keep? ")) == ("yes", None)
    out, err = capsys.readouterr()
    assert out == ""
    shown = "\nmouse\\x1b[2J\n  here     an [bold]animal\n  similar  cat rat\n"
    assert err == f"{shown}keep? keep? \n"


def on_a_terminal(command: list[str], width: int) -> tuple[int, str]:
    """Run a command with a pseudo-terminal of this width as stderr; return its exit code and what it drew."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    environment |= {"TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, stdin=theirs, env=environment)
    os.close(theirs)
    drawn = b""
    while True:
        try:
            drawn += (chunk := os.read(ours, 65536))
        except OSError:  # EIO: the last one who held the other end is gone
            break
        if not chunk:
            break
    os.close(ours)
    return process.wait(), drawn.decode()


def test_a_terminal_shows_a_bar_that_fits_and_gives_the_cursor_back(tmp_path: Path) -> None:
    for number in range(8):
        paint(tmp_path / "photos" / f"{number}.png", number)
    with stub_server() as server:
        command = [sys.executable, "-m", "tagllm_cli", "candidates", str(tmp_path / "photos"), "--vocab", "voc"]
        status, drawn = on_a_terminal([*command, "--out", str(tmp_path / "c.parquet"), "--endpoint", server.url], 80)
    assert status == 0, drawn
    assert "starting the engine" in drawn
    assert "8/8" in drawn
    assert "images/s" in drawn
    assert "64% cached" in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")
    assert "error" not in drawn
