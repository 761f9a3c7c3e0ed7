"""What cannot be used is refused in one clear line, with exit code 2, and nothing is touched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagllm_cli.errors import ModelError, SourceError, TableError
from tagllm_cli.store.evidence import Evidence
from tests.support.command_line import tagllm
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import LABELS, Workspace, snapshot

IMAGES = 6


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, IMAGES)


class Refusing(RuleEngine):
    async def start(self) -> None:
        raise ModelError("the model cannot be loaded", "Choose another.")


def test_an_engine_that_cannot_start_leaves_nothing_touched(workspace: Workspace) -> None:
    workspace.engine = Refusing()
    with pytest.raises(ModelError, match="cannot be loaded"):
        workspace.candidates()
    assert workspace.engine.closed == 1
    assert not workspace.out.parent.exists()
    workspace.engine = RuleEngine()
    workspace.candidates()
    before = snapshot(workspace.out.parent)
    workspace.write_vocabulary([*LABELS, "bowl"])
    workspace.paint(100, "new.png")
    workspace.engine = Refusing()
    with pytest.raises(ModelError):
        workspace.candidates()
    assert snapshot(workspace.out.parent) == before


def test_a_second_run_at_the_same_time_says_so(workspace: Workspace) -> None:
    workspace.candidates(limit=1)
    before = workspace.out.read_bytes()
    with Evidence(workspace.out.with_suffix(".evidence")), pytest.raises(TableError, match="another tagllm is writing"):
        workspace.candidates()
    assert workspace.out.read_bytes() == before
    assert workspace.candidates().rows.ok == IMAGES


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (lambda out: out.mkdir(), "is a folder"),
        (lambda out: out.write_text("image,label\n"), "is not a Parquet file"),
        (lambda out: pq.write_table(pa.table({"a": [1]}), out), "is a Parquet file, but no label table"),
        (lambda out: os.mkfifo(out), "is not a file"),
        (lambda out: out.with_suffix(".evidence").write_text("notes " * 100), "is not an evidence file"),
        (lambda out: out.with_suffix(".evidence").mkdir(), "is not a regular file"),
        (lambda out: os.mkfifo(out.with_suffix(".evidence")), "is not a regular file"),
    ],
    ids=["folder", "text", "parquet", "fifo", "foreign evidence", "evidence folder", "evidence fifo"],
)
def test_an_output_that_holds_something_else_is_not_touched(
    workspace: Workspace, put: Callable[[Path], object], said: str
) -> None:
    workspace.out.parent.mkdir()
    put(workspace.out)
    before = snapshot(workspace.out.parent)
    with pytest.raises(TableError, match=said) as raised:
        workspace.candidates()
    assert raised.value.exit_code == 2
    assert snapshot(workspace.out.parent) == before


def test_the_table_is_named_and_not_its_evidence(workspace: Workspace) -> None:
    workspace.out = workspace.out.with_suffix(".evidence")
    with pytest.raises(TableError, match=r"c\.evidence is the name of an evidence file"):
        workspace.candidates()


def test_evidence_of_another_kind_is_not_touched(workspace: Workspace) -> None:
    workspace.candidates()
    workspace.disambiguate()
    workspace.out.unlink()
    workspace.labels_out.with_suffix(".evidence").replace(workspace.out.with_suffix(".evidence"))
    workspace.labels_out.unlink()
    before = snapshot(workspace.out.parent)
    with pytest.raises(TableError, match=r"c.evidence belongs to a table of another kind \(labels\)"):
        workspace.candidates()
    assert snapshot(workspace.out.parent) == before


def test_a_table_without_its_evidence_is_not_overwritten(workspace: Workspace) -> None:
    workspace.candidates()
    workspace.out.with_suffix(".evidence").unlink()
    before = snapshot(workspace.out.parent)
    with pytest.raises(TableError, match=r"its evidence c.evidence is not"):
        workspace.candidates()
    assert snapshot(workspace.out.parent) == before


def test_a_place_that_takes_no_files_is_one_clear_error(workspace: Workspace) -> None:
    workspace.out = Path("/proc/c.parquet")
    with pytest.raises(TableError, match=r"cannot use /proc/c.evidence: unable to open database file"):
        workspace.candidates()
    workspace.out = workspace.vocabulary / "c.parquet"
    with pytest.raises(TableError, match=r"cannot write below .*vocabulary\.yaml: it is not a folder"):
        workspace.candidates()


def test_an_empty_folder_leaves_no_trace(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(SourceError, match="there are no images"):
        workspace.candidates()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["candidates", "{images}", "--vocab", "{vocabulary}", "--endpoint", "http://127.0.0.1:9/v1"],
        ["disambiguate", "{table}", "--endpoint", "http://127.0.0.1:9/v1"],
        ["export", "{table}", "--format", "coco"],
        ["concepts", "{vocabulary}", "--llm-endpoint", "http://127.0.0.1:9/v1"],
        ["vocab", "scenes", "{vocabulary}", "--llm-endpoint", "http://127.0.0.1:9/v1"],
    ],
    ids=["candidates", "disambiguate", "export", "concepts", "scenes"],
)
def test_an_output_on_a_url_is_refused_before_a_server_is_looked_for(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    workspace.candidates()
    monkeypatch.chdir(workspace.images.parent)
    before = snapshot(workspace.images.parent)
    places = {"images": workspace.images, "vocabulary": workspace.vocabulary, "table": workspace.out}
    result = tagllm([*(word.format(**places) for word in arguments), "--out", "s3://my-bucket/c.parquet"])
    assert (result.exit_code, "s3://my-bucket/c.parquet is a URL" in result.stderr) == (2, True)
    assert snapshot(workspace.images.parent) == before


def test_a_glob_that_the_shell_has_expanded_is_to_be_quoted() -> None:
    outcome = tagllm(["candidates", "0.tar", "1.tar", "--vocab", "coco", "--out", "c.parquet"])
    assert outcome.exit_code == 2
    assert "quote globs" in outcome.stderr
