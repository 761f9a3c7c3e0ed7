"""The log beside the table: what a night can be looked into with, and what never stands in it."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from tagllm_cli.cli import logs
from tests.support.command_line import tagllm
from tests.support.stub_server import stub_server
from tests.support.workspace import paint


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    paint(tmp_path / "photos" / "1.png", 1)
    return ["candidates", str(tmp_path / "photos"), "--vocab", "voc", "--out", str(tmp_path / "c.parquet"), "--quiet"]


def test_every_run_is_appended_to_the_log_beside_the_table(tmp_path: Path, words: list[str]) -> None:
    with stub_server() as server:
        assert tagllm(words, server.url).output == ""
        assert tagllm(words, server.url).output == ""
    text = (tmp_path / "c.log").read_text()
    for line in ("INFO tagllm_cli: tagllm 0.1.0: ", "starting the engine for 1 images", "1 images (1 ok)"):
        assert line in text
    assert text.count("next: tagllm disambiguate") == 2
    assert "DEBUG" not in text


def test_what_touches_nothing_leaves_no_log(tmp_path: Path, words: list[str]) -> None:
    assert tagllm([*words, "--model", "./nowhere"]).exit_code == 2
    with stub_server() as server:
        assert tagllm([*words, "--dry-run"], server.url).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize(
    "form", ["http://me:pa55w0rd@{}", "me:pa55w0rd@{}", "http://me:pa55@w0rd@{}", "{}/v1?key=w0rd"]
)
def test_secrets_are_not_logged(form: str, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with stub_server() as server:
        command = [*words, "--endpoint", form.format(server.url.removeprefix("http://")), "--verbose"]
        monkeypatch.setattr(sys, "argv", ["tagllm", *command])
        assert tagllm(command).exit_code == 0
        monkeypatch.setenv("TAGLLM_API_KEY", "sk-example-1")
        logs.start(tmp_path / "x.parquet", verbose=True)
        logging.getLogger("tagllm_cli.engines").debug("%s", {"Authorization": "Bearer " + "s" * 9})
        logs.stop()
    text = (tmp_path / "c.log").read_text()
    assert "--endpoint" in text
    assert "w0rd" not in text
    assert "sk-example" not in text
    assert not (tmp_path / "x.log").exists()


def test_a_log_that_cannot_be_written_ends_nothing(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.log").mkdir()
    with stub_server() as server:
        result = tagllm(words, server.url)
    assert (result.exit_code, result.output) == (0, "")
    assert capsys.readouterr() == ("", "")
    assert os.listdir(tmp_path / "c.log") == []


def test_a_long_log_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 2_000)
    logs.start(tmp_path / "c.parquet")
    logs.open_file()
    for number in range(100):
        logging.getLogger("tagllm_cli.pipeline").info("image %d", number)
    logs.stop()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.log", "c.log.1"]
    assert "image 99" in (tmp_path / "c.log").read_text()
    assert (tmp_path / "c.log.1").stat().st_size <= 2_000


def test_records_wait_until_something_is_done(tmp_path: Path) -> None:
    logs.start(tmp_path / "c.parquet")
    for number in range(5_000):
        logging.getLogger("tagllm_cli").info("image %d", number)
    assert list(tmp_path.iterdir()) == []
    logs.open_file()
    logs.stop()
    lines = (tmp_path / "c.log").read_text().splitlines()
    assert (len(lines), lines[-1].endswith("image 4999")) == (1_000, True)


def test_a_traceback_goes_to_the_log_and_names_no_secret(tmp_path: Path) -> None:
    logs.start(tmp_path / "c.parquet")
    assert logs.record_crash(ValueError("http://me:s3cret@host")) == tmp_path / "c.log"
    logs.stop()
    text = (tmp_path / "c.log").read_text()
    assert "CRITICAL tagllm_cli: unexpected ValueError" in text
    assert "http://…@host" in text
