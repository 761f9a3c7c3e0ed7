"""Every `--option` that a text of the package names is an option of some command, or of another program."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

import tagllm_cli
from tagllm_cli.cli.app import app

PACKAGE = Path(tagllm_cli.__file__).parent
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
# Of other programs, as our advice names them.
FOREIGN = {
    "--help": "vllm serve",
    "--head": "ray start",
    "--max-logprobs": "vllm serve",
    "--local-dir": "hf download",
    "--force-reinstall": "pip install",
    "--upgrade": "pip install",
    "--only-binary": "pip install",
    "--shm-size": "docker run",
    "--ipc": "docker run",
    "--query-gpu": "nvidia-smi",
    "--ignore-zeros": "tar",
    "--sparse": "tar",
    "--dereference": "tar",
    "--hard-dereference": "tar",
}


def options_of(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for each in getattr(command, "commands", {}).values():
        yield from options_of(each)


def named_options() -> Iterator[tuple[str, str]]:
    """Yield each option in a string of the package, docstrings and parts of f-strings included, with its place."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for option in OPTION.findall(node.value):
                    yield option, f"{path.relative_to(PACKAGE)}:{node.lineno}"


def test_every_option_that_a_text_names_exists():
    known = {*options_of(typer.main.get_command(app)), *FOREIGN}
    unknown = [f"{place} names {option}" for option, place in named_options() if option.rstrip("-") not in known]
    assert unknown == []


def test_the_search_finds_options_in_messages_and_docstrings():
    assert {"--model", "--engine-arg", "--endpoint", "--cooccurrence"} <= {option for option, _ in named_options()}
