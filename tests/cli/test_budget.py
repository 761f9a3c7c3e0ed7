"""Limits and estimates on the command line: a run that is ended by a limit goes on with the same command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tagllm_cli.engines.base import Usage
from tagllm_cli.errors import GOES_ON
from tagllm_cli.pipeline.label.budget import Budget, Limits
from tests.support.command_line import one_object, tagllm
from tests.support.faulty_proxy import FaultyProxy
from tests.support.stub_server import stub_server
from tests.support.workspace import Workspace

IMAGES = 12
COMMANDS = {
    "candidates": "candidates images --vocab vocabulary.yaml --group-size 5 --out candidates.parquet",
    "disambiguate": "disambiguate done.parquet --out labels.parquet",
    "run": "run images --vocab vocabulary.yaml --group-size 5 --out labels.parquet",
}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyProxy]:
    with stub_server() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, server: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Workspace(tmp_path, IMAGES)
    made = "candidates images --vocab vocabulary.yaml --group-size 5 --out done.parquet"
    assert tagllm(made, server.url).exit_code == 0
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_limit_of_requests_ends_a_run_with_3_and_the_same_command_goes_on(
    folder: Path, server: FaultyProxy, command: str
) -> None:
    before = len(server.questions)
    stopped = tagllm(f"{COMMANDS[command]} --max-requests 7", server.url)
    assert stopped.exit_code == 3, stopped.output
    assert "the budget is used up (--max-requests 7)" in stopped.output
    assert len(server.questions) - before == 7
    assert tagllm(COMMANDS[command], server.url).exit_code == 0
    asked = [each.body for each in server.questions[before:]]
    assert len(set(asked)) == len(asked)
    assert tagllm(COMMANDS[command], server.url).exit_code == 0
    assert len(server.questions) - before == len(asked)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_estimate_asks_about_a_few_images_and_says_what_is_left(
    folder: Path, server: FaultyProxy, command: str
) -> None:
    result = tagllm(f"{COMMANDS[command]} --estimate 4 --price-in 2 --json", server.url)
    assert result.exit_code == 0, result.output
    said = one_object(result.stdout)
    assert said["asked_images"] == 4
    assert [stage["command"] for stage in said["stages"]] == (
        ["candidates", "disambiguate"] if command == "run" else [command]
    )
    for stage in said["stages"]:
        low, expected, high = stage["requests"]
        assert 0 < low <= expected <= high
        assert isinstance(expected, int)
        assert stage["cost"][1] == pytest.approx(stage["prompt_tokens"][1] * 2 / 1e6, rel=0.01, abs=1e-4)
    shown = tagllm(f"{COMMANDS[command]} --estimate", server.url)  # 32 of 12 images: nothing is left
    assert shown.exit_code == 0, shown.output
    assert "0 images, 0 requests" in shown.output


def test_money_is_a_limit_once_there_is_a_price(folder: Path, server: FaultyProxy) -> None:
    refused = tagllm(f"{COMMANDS['candidates']} --max-cost 5", server.url)
    assert refused.exit_code == 2
    assert "--max-cost needs a price" in refused.output
    assert not Path("candidates.parquet").exists()
    assert tagllm(f"{COMMANDS['candidates']} --max-cost 5 --price-in 0.2", server.url).exit_code == 0


@pytest.mark.parametrize("limit", ["--max-requests 0", "--max-seconds 0", "--max-cost 0 --price-in 1"])
def test_a_limit_of_nothing_asks_nothing(folder: Path, server: FaultyProxy, limit: str) -> None:
    before = len(server.questions)
    result = tagllm(f"{COMMANDS['run']} {limit}", server.url)
    assert (result.exit_code, len(server.questions)) == (3, before)
    assert result.stdout.count("nothing was asked") == 2
    assert "on record" not in result.stdout
    assert ("starting the engine" in result.stderr, "not ready" in result.stderr) == (False, "requests" not in limit)


def test_only_a_run_that_has_asked_nothing_is_told_that_the_model_was_not_ready() -> None:
    late, later = Budget(Limits(seconds=0)), Budget(Limits(seconds=0))
    assert later.grant(1) == 1  # by the first stage; the second one finds no time
    assert not late.look(Usage(), None)
    assert not later.look(Usage(), None)
    assert "was not ready" in late.error(was_ready=False).hint
    assert later.error(was_ready=False).hint == GOES_ON


@pytest.mark.parametrize("option", ["--limit 3", "--sample 3", "--offline", "--dry-run"])
def test_an_estimate_chooses_its_images_itself(folder: Path, server: FaultyProxy, option: str) -> None:
    refused = tagllm(f"{COMMANDS['candidates']} --estimate 4 {option}", server.url)
    assert refused.exit_code == 2
    assert "--estimate draws the images itself" in refused.output
