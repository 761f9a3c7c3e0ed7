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
    "disambiguate": Command(frozenset({"model", "concepts"})),
    "concepts": Command(frozenset({"model", "rounds"})),
    "export": Command(frozenset({"format_", "limit"})),
}


def load(folder: Path, text: str, command: str = "candidates") -> dict[str, Any]:
    path = folder / "tagllm.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, command, COMMANDS)


def test_a_commands_own_section_wins_over_what_all_share(tmp_path: Path) -> None:
    text = "model: m\nlimit: 3\nexport:\n  limit: 2\n  format: coco\ncandidates:\n  max-pixels: 100\n"
    assert load(tmp_path, text) == {"model": "m", "limit": "3", "max_pixels": "100"}
    assert load(tmp_path, text, "export") == {"limit": "2", "format_": "coco"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("--max-pixels: 9", {"max_pixels": "9"}),
        ("max_pixels: 9", {"max_pixels": "9"}),
        ("json: true", {"json_output": "true"}),
        ("endpoint: http://one:8000", {"endpoint": ["http://one:8000"]}),
        ("endpoint: [a, b]", {"endpoint": ["a", "b"]}),
        ("endpoint: null", {}),
        ("model: no", {"model": "no"}),
        ("model: 2020-01-01T00:00:00+99:99", {"model": "2020-01-01T00:00:00+99:99"}),
        ("concepts: cards.yaml", {}),
        ("concepts: {rounds: 3}", {}),
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
        ("endpoint: {a: b}", "'endpoint' takes text, or a list of texts", "command line"),
        ("endpoint: [[a]]", "'endpoint' takes text, or a list of texts", "command line"),
        ("model: !!binary aGVsbG8=", "'model' takes one value", "command line"),
        ("model: !!int abc", "not valid YAML", "option: value"),
        (f"model: {'[' * 20_000}{']' * 20_000}", "nested more than 50 deep", ""),
        ("concepts: [a, b]", "'concepts' takes one value", "command line"),
        ("model: a\nmodel: b", "the key 'model' stands twice", "option: value"),
        ("candidates: 3", "'candidates' holds no options", "Indent"),
        ("- model", "holds no options", "option: value"),
        ("model: [", "line 2: did not find expected node content", "option: value"),
        ("model: \x00", "not valid YAML", "option: value"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=r"tagllm\.yaml") as caught:
        load(tmp_path, text, "disambiguate" if text.startswith("concepts") else "candidates")
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("intervals: true", {"intervals": "200"}),
        ("suspects: yes", {"suspects": "20"}),
        ("intervals: no", {}),
        ("intervals: 50", {"intervals": "50"}),
    ],
)
def test_true_is_an_option_typed_without_its_number(tmp_path: Path, text: str, value: Mapping[str, Any]) -> None:
    path = tmp_path / "tagllm.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_config(path, "evaluate", {"evaluate": Command(frozenset({"intervals", "suspects"}))}) == value


def test_a_key_that_is_an_option_and_a_command_is_told_apart_by_its_value(tmp_path: Path) -> None:
    assert load(tmp_path, "concepts: cards.yaml\nmodel: m", "disambiguate") == {"concepts": "cards.yaml", "model": "m"}
    assert load(tmp_path, "concepts: cards.yaml\nmodel: m", "concepts") == {"model": "m"}
    assert load(tmp_path, "concepts: {rounds: 2}", "disambiguate") == {}
    assert load(tmp_path, "concepts: {rounds: 2}", "concepts") == {"rounds": "2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limit: abc", "--limit"),
        ("limit: 2020-99-99", "--limit"),
        (f"limit: {'9' * 5000}", "--limit"),
        ("limit: 0", "--limit"),
        ("missing: perhaps", "--missing"),
        ("dry-run: perhaps", "--dry-run"),
    ],
)
def test_a_value_of_the_wrong_type_names_the_option_and_the_file(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "tagllm.yaml"
    config.write_text(f"vocab: voc\nout: c.parquet\n{text}\n")
    result = tagllm(["candidates", str(tmp_path), "--config", str(config)])
    assert (result.exit_code, result.stdout) == (2, "")
    what, _ = result.stderr.splitlines()
    assert what.startswith("error: ")
    assert message in what
    assert what.endswith(f"(in the config file {config})")
    assert len(what) < 1000


def test_values_are_converted_by_the_options_own_types(tmp_path: Path) -> None:
    paint(tmp_path / "photos" / "1.png", 1)
    config = tmp_path / "tagllm.yaml"
    config.write_text("vocab: voc\nlimit: 1\nmax-failed-rate: 0.5\ndry-run: yes\njson: on\narms: disjoint\n")
    words = ["candidates", str(tmp_path / "photos"), "--config", str(config), "--out", str(tmp_path / "c.parquet")]
    result = tagllm([*words, "--replay", "nothing"])
    assert (result.exit_code, json.loads(result.stdout)["images"]) == (0, 1)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"tagllm\.yaml"):
        load(tmp_path, f"model: {'[' * 20_000}{']' * 20_000}")


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


@pytest.mark.parametrize(
    ("environment", "flags", "error"),
    [
        ({"TAGLLM_ENDPOINT": "{url}"}, ["--model", "./folder"], "no model at ./folder"),
        ({"TAGLLM_ENDPOINT": "{url}"}, ["--model", "served", "--endpoint", "{url}"], None),
        ({"TAGLLM_ENDPOINT": "{url}", "TAGLLM_MODEL": "served"}, [], None),
        ({"TAGLLM_MODEL": "served"}, ["--endpoint", "{url}"], None),
        ({"TAGLLM_ENDPOINT": "http://127.0.0.1:9"}, ["--endpoint", "{url}"], None),
    ],
)
def test_a_typed_model_is_loaded_here_unless_an_endpoint_is_typed_too(
    tmp_path: Path, environment: dict[str, str], flags: list[str], error: str | None
) -> None:
    paint(tmp_path / "photos" / "1.png", 1)
    with stub_server("served") as server:
        known = {name: value.format(url=server.url) for name, value in environment.items()}
        words = ["candidates", str(tmp_path / "photos"), "--vocab", "voc", "--out", str(tmp_path / "c.parquet")]
        result = tagllm([*words, *(flag.format(url=server.url) for flag in flags)], environment=known)
    if error is None:
        assert (result.exit_code, open_table(tmp_path / "c.parquet").info.plan["model"]) == (0, "served")
    else:
        note, what, _ = result.stderr.splitlines()
        assert (result.exit_code, server.received, error in what) == (2, [], True)
        assert (
            note
            == "./folder is loaded here; the endpoint that comes from the environment or the config file is ignored"
        )


def test_json_from_the_file_holds_for_errors_too(tmp_path: Path) -> None:
    config = tmp_path / "tagllm.yaml"
    config.write_text("json: true\nvocab: voc\nout: c.parquet\n")
    result = tagllm(["candidates", str(tmp_path / "nowhere"), "--config", str(config)])
    assert (result.exit_code, json.loads(result.stdout)["error"]["kind"]) == (2, "SourceError")
