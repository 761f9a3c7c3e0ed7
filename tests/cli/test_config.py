"""The config file: which options it sets for which command, and which other source of an option wins over it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.cli.config import Command, load_config
from tagllm_cli.errors import UsageError
from tagllm_cli.store.table import open_table
from tests.support.command_line import tagllm
from tests.support.stub_server import stub_server
from tests.support.workspace import paint

COMMANDS = {
    "candidates": Command(
        frozenset({"model", "endpoint", "max_pixels", "limit", "json_output"}), frozenset({"endpoint"})
    ),
    "export": Command(frozenset({"format_", "limit"})),
}


def load(folder: Path, text: str, command: str = "candidates") -> dict[str, Any]:
    path = folder / "tagllm.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, command, COMMANDS)


def test_a_commands_own_section_wins_over_what_all_share(tmp_path: Path) -> None:
    text = "model: m\nlimit: 3\nexport:\n  limit: 2\n  format: coco\ncandidates:\n  max-pixels: 100\n"
    assert load(tmp_path, text) == {"model": "m", "limit": 3, "max_pixels": 100}
    assert load(tmp_path, text, "export") == {"limit": 2, "format_": "coco"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("--max-pixels: 9", {"max_pixels": 9}),
        ("max_pixels: 9", {"max_pixels": 9}),
        ("json: true", {"json_output": True}),
        ("endpoint: http://one:8000", {"endpoint": ["http://one:8000"]}),
        ("endpoint: [a, b]", {"endpoint": ["a", "b"]}),
        ("endpoint: null", {"endpoint": None}),
        ("", {}),
        ("candidates:", {}),
    ],
)
def test_every_way_to_write_an_option(tmp_path: Path, text: str, value: Mapping[str, Any]) -> None:
    assert load(tmp_path, text) == value


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("max-pixel: 9", "there is no option 'max-pixel'", "Did you mean 'max-pixels'?"),
        ("candidates:\n  format: coco", "there is no option 'format'", "--help"),
        ("doctor:\n  model: m", "there is no option 'doctor'", "--help"),
        ("model: [a, b]", "'model' takes one value", "command line"),
        ("endpoint: {a: b}", "'endpoint' takes values", "command line"),
        ("candidates: 3", "'candidates' holds no options", "Indent"),
        ("- model", "holds no options", "option: value"),
        ("model: [", "is not YAML", "option: value"),
        ("model: \x00", "is not YAML", "option: value"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=r"tagllm\.yaml") as caught:
        load(tmp_path, text)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file or directory"):
        load_config(tmp_path / "none.yaml", "candidates", COMMANDS)
    (tmp_path / "latin.yaml").write_bytes(b"model: caf\xe9")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_config(tmp_path / "latin.yaml", "candidates", COMMANDS)


@pytest.mark.parametrize("winner", ["file", "environment", "flag"])
def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path, winner: str) -> None:
    paint(tmp_path / "photos" / "1.png", 1)
    config, table = tmp_path / "tagllm.yaml", tmp_path / "c.parquet"
    with ExitStack() as stack:
        # Each names its own model on its own server.
        servers = {name: stack.enter_context(stub_server(name)) for name in ("file", "environment", "flag")}
        urls = {name: server.url for name, server in servers.items()}
        shared = {"vocab": "voc", "out": str(table), "model": "file", "endpoint": urls["file"]}
        config.write_text(json.dumps({**shared, "candidates": {"arms": "disjoint"}}))
        environment = {"TAGLLM_MODEL": "environment", "TAGLLM_ENDPOINT": urls["environment"]}
        flags = ["--model", "flag", "--endpoint", urls["flag"]]
        words = ["candidates", str(tmp_path / "photos"), "--config", str(config), *(flags if winner == "flag" else [])]
        result = tagllm(words, environment=environment if winner != "file" else None)
    assert result.exit_code == 0, result.output
    assert [name for name, server in servers.items() if server.received] == [winner]
    plan = open_table(table).info.plan
    assert (plan["model"], list(plan["arms"])) == (winner, ["disjoint"])


def test_json_from_the_file_holds_for_errors_too(tmp_path: Path) -> None:
    config = tmp_path / "tagllm.yaml"
    config.write_text("json: true\nvocab: voc\nout: c.parquet\n")
    result = tagllm(["candidates", str(tmp_path / "nowhere"), "--config", str(config)])
    assert (result.exit_code, json.loads(result.stdout)["error"]["kind"]) == (2, "SourceError")
