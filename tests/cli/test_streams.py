"""Signals while everything is still being imported; a full disk or a closed pipe behind stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tagllm_cli.cli import interrupted

pytestmark = pytest.mark.slow


def run(line: str, stdout: int = subprocess.PIPE, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `python -m tagllm_cli`; modules in `path` come before the real ones."""
    entries = [str(each) for each in (path, Path(__file__).parents[2]) if each is not None]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entries)}
    command = [sys.executable, "-m", "tagllm_cli", *line.split()]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, env=environment, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("line", ["vocab list", "vocab list --json", "vocab show --help"])
def test_a_full_disk_behind_stdout_is_one_error(line: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(line, full.fileno())
    assert done.returncode == 1
    what, hint = done.stderr.splitlines()
    assert what == "error: stdout cannot be written: No space left on device"
    assert hint


@pytest.mark.parametrize("line", ["vocab show nothing", "vocab show nothing --json", "vocab show --nonsense --json"])
def test_an_error_is_told_though_stdout_is_full(line: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(line, full.fileno())
    assert done.returncode == 2
    what, hint = done.stderr.splitlines()
    assert what.startswith("error: ")
    assert "stdout" not in what
    assert hint


@pytest.mark.parametrize("line", ["vocab show coco", "vocab show coco --json", "candidates --help"])
def test_a_reader_that_is_gone_ends_the_command_quietly(line: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run(line, writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("line", ["vocab list", "vocab list --json"])
@pytest.mark.parametrize("module", ["typer", "yaml"])
def test_a_signal_during_the_imports_is_exit_code_130(tmp_path: Path, number: str, line: str, module: str) -> None:
    """Whatever is imported at that moment, and however it treats exceptions: no traceback."""
    code = f"import os, signal\ntry:\n    os.kill(os.getpid(), signal.{number})\nexcept BaseException: pass\n1 / 0\n"
    (tmp_path / f"{module}.py").write_text(code)
    done = run(line, path=tmp_path)
    assert done.returncode == 130
    what, hint = done.stderr.splitlines()
    assert (what, bool(hint)) == ("error: interrupted; every file is complete, or as it was before", True)
    if "--json" in line:
        error = json.loads(done.stdout)["error"]
        assert (error["kind"], error["hint"]) == ("InterruptedRunError", hint)
    else:
        assert done.stdout == ""


def test_only_commands_that_ask_a_model_say_that_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("run", "candidates", "export", "import", "review", "diff"):
        monkeypatch.setattr(sys, "argv", ["tagllm", command, "run"])
        assert ("answered is kept" in interrupted().message) is (command in {"run", "candidates"})


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_after_the_work_is_done_changes_nothing(number: str) -> None:
    code = (
        "import atexit, os, signal, sys; from tagllm_cli.cli import main; sys.argv[1:] = ['vocab', 'list'];"
        f"atexit.register(os.kill, os.getpid(), signal.{number}); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr, "coco" in done.stdout) == (0, "", True)


def test_a_command_in_the_background_of_a_shell_keeps_ignoring_signals(tmp_path: Path) -> None:
    """`tagllm ... &` in a script: the shell ignores SIGINT for it, and a Ctrl-C is meant for the script."""
    (tmp_path / "yaml.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit(7)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])}
    script = 'trap "" INT; exec "$0" -m tagllm_cli vocab list'
    done = subprocess.run(["sh", "-c", script, sys.executable], env=environment, check=False, timeout=60)
    assert done.returncode == 7
