"""Typing `tagllm` in tests, in this process: a command line in, its exit code and both streams out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from tagllm_cli.cli.app import app
from tests.support.workspace import snapshot


def tagllm(line: str | Sequence[str], endpoint: str | None = None, environment: Mapping[str, str] | None = None) -> Any:
    """Run a command line; of the developer's own environment, nothing about models counts."""
    nothing = dict.fromkeys(("TAGLLM_MODEL", "TAGLLM_API_KEY", "TAGLLM_LLM_ENDPOINT", "TAGLLM_LLM_API_KEY"))
    known = {**nothing, "TAGLLM_ENDPOINT": endpoint, **(environment or {})}
    words = shlex.split(line) if isinstance(line, str) else list(line)
    return CliRunner().invoke(app, words, prog_name="tagllm", env=known)


def one_object(output: str) -> Any:
    """Return the value of a text that holds one JSON object and nothing else."""
    value = json.loads(output)
    assert isinstance(value, dict)
    return value


def check_error(line: str, message: str, endpoint: str | None) -> None:
    """One line of what, one of what to do, exit code 2, nothing touched; with `--json` the same as one object.

    The working directory is read whole, so it must be the test's own.
    """
    assert not Path("pyproject.toml").exists(), "a test of errors works in a folder of its own"
    before = snapshot(Path())
    result = tagllm(line, endpoint)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    what, advice = [line for line in result.stderr.splitlines() if "starting the engine" not in line]
    assert what.startswith("error: ")
    assert message in what
    assert advice.endswith((".", "?"))
    told = tagllm(f"{line} --json", endpoint)
    error = one_object(told.stdout)["error"]
    assert (told.exit_code, told.stderr) == (2, result.stderr)
    assert error["kind"].endswith("Error")
    assert (message.replace("\\udcff", "\udcff") in error["message"], error["hint"]) == (True, advice)
    assert snapshot(Path()) == before
