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
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import LABELS, Desk, snapshot

IMAGES = 6


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, IMAGES)


class Refusing(RuleEngine):
    async def start(self) -> None:
        raise ModelError("the model cannot be loaded", "Choose another.")


def test_an_engine_that_cannot_start_leaves_nothing_touched(desk: Desk) -> None:
    desk.engine = Refusing()
    with pytest.raises(ModelError, match="cannot be loaded"):
        desk.candidates()
    assert desk.engine.closed == 1
    assert not desk.out.parent.exists()
    desk.engine = RuleEngine()
    desk.candidates()
    before = snapshot(desk.out.parent)
    desk.write_vocabulary([*LABELS, "bowl"])
    desk.paint(100, "new.png")
    desk.engine = Refusing()
    with pytest.raises(ModelError):
        desk.candidates()
    assert snapshot(desk.out.parent) == before


def test_a_second_run_at_the_same_time_says_so(desk: Desk) -> None:
    desk.candidates(limit=1)
    before = desk.out.read_bytes()
    with Evidence(desk.out.with_suffix(".evidence")), pytest.raises(TableError, match="another tagllm is writing"):
        desk.candidates()
    assert desk.out.read_bytes() == before
    assert desk.candidates().rows.ok == IMAGES


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (lambda out: out.mkdir(), "is a folder"),
        (lambda out: out.write_text("image,label\n"), "is not a Parquet file"),
        (lambda out: pq.write_table(pa.table({"a": [1]}), out), "is a Parquet file, but no label table"),
        (lambda out: os.mkfifo(out), "is not a file"),
        (lambda out: out.with_suffix(".evidence").write_text("notes " * 100), "is not an evidence file"),
        (lambda out: out.with_suffix(".evidence").mkdir(), "cannot read"),
    ],
    ids=["folder", "text", "parquet", "fifo", "foreign evidence", "evidence folder"],
)
def test_an_output_that_holds_something_else_is_not_touched(
    desk: Desk, put: Callable[[Path], object], said: str
) -> None:
    desk.out.parent.mkdir()
    put(desk.out)
    before = snapshot(desk.out.parent)
    with pytest.raises(TableError, match=said) as raised:
        desk.candidates()
    assert raised.value.exit_code == 2
    assert snapshot(desk.out.parent) == before


def test_the_table_is_named_and_not_its_evidence(desk: Desk) -> None:
    desk.out = desk.out.with_suffix(".evidence")
    with pytest.raises(TableError, match="--out names the table") as raised:
        desk.candidates()
    assert raised.value.hint.endswith("c.parquet.")


def test_evidence_of_another_kind_is_not_touched(desk: Desk) -> None:
    desk.candidates()
    desk.disambiguate()
    desk.out.unlink()
    desk.labels_out.with_suffix(".evidence").replace(desk.out.with_suffix(".evidence"))
    desk.labels_out.unlink()
    before = snapshot(desk.out.parent)
    with pytest.raises(TableError, match=r"c.evidence belongs to a table of another kind \(labels\)"):
        desk.candidates()
    assert snapshot(desk.out.parent) == before


def test_a_table_without_its_evidence_is_not_overwritten(desk: Desk) -> None:
    desk.candidates()
    desk.out.with_suffix(".evidence").unlink()
    before = snapshot(desk.out.parent)
    with pytest.raises(TableError, match=r"its evidence c.evidence is not"):
        desk.candidates()
    assert snapshot(desk.out.parent) == before


def test_a_place_that_takes_no_files_is_one_clear_error(desk: Desk) -> None:
    desk.out = Path("/proc/c.parquet")
    with pytest.raises(TableError, match=r"cannot use /proc/c.evidence: unable to open database file"):
        desk.candidates()
    desk.out = desk.vocabulary / "c.parquet"
    with pytest.raises(TableError, match="cannot make the folder"):
        desk.candidates()


def test_an_empty_folder_leaves_no_trace(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(SourceError, match="there are no images"):
        desk.candidates()
    assert snapshot(tmp_path) == before
