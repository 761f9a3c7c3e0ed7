"""The label table: read back by us and by tools that know nothing of us; replaced whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagllm_cli.errors import TableError
from tagllm_cli.records import Decision, LabelEntry, Row, Status
from tagllm_cli.store import table as tables
from tagllm_cli.store.schema import table_schema
from tagllm_cli.store.table import TableInfo, open_table, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.support.workspace import snapshot

VOCABULARY = Vocabulary(
    "tiny",
    (Label("cat", "animal", ("kitty",), "a small furry pet", ("dog",)), Label("dog", "animal"), Label('a, "b"\n')),
    {"byhand": [["cat"], ["dog", 'a, "b"\n']]},
    "for tests",
)
INFO = TableInfo("labels", "/data/photos", VOCABULARY, {"model": "m", "threshold": 0.5})
SURE = LabelEntry("cat", Decision.YES, 0.75, 0.5, 0.75, ("cooccurring", "disjoint"), ("cooccurring:0", "disjoint:1"))
DOUBTFUL = LabelEntry("cat", Decision.UNKNOWN)
ROWS = [
    Row("a.jpg", "a.jpg", b"a" * 16, 640, 480, Status.OK, None, (SURE, LabelEntry("dog", Decision.NO, 0.25, 1.0)), ()),
    Row("b/é 1.jpg", "b/é 1.jpg", b"b" * 16, 1, 1, Status.OK, None, (), ("unicorn", "a,b")),
    Row("c.jpg", "c.jpg", b"c" * 16, 9, 9, Status.PARTIAL, "request_failed: 1", (DOUBTFUL,), ()),
    Row("d.jpg", "d.jpg", b"d" * 16, 0, 0, Status.FAILED, "truncated_file: cut", None, None),
    Row("e.jpg", "e.jpg", b"", 0, 0, Status.FAILED, "unreadable: no permission", None, None),
    Row("f.jpg", "f.jpg", b"", 0, 0, Status.PENDING, None, None, None),
]  # fmt: skip


def many(count: int) -> Iterator[Row]:
    """Rows of many images, each with a label and every third one failed."""
    for number in range(count):
        name = f"{number:06d}.png"
        if number % 3:
            yield Row(name, name, number.to_bytes(16, "big"), 8, 8, Status.OK, None, (SURE,), ())
        else:
            yield Row(name, name, b"", 0, 0, Status.FAILED, "vanished: gone", None, None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.parquet"


@pytest.fixture
def big(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of 1,000 images in several row groups."""
    monkeypatch.setattr(tables, "ROWS_PER_BATCH", 64)
    monkeypatch.setattr(tables, "BATCHES_PER_ROW_GROUP", 3)
    write_table(path, INFO, many(1000))
    return path


def test_rows_and_info_come_back(path: Path) -> None:
    write_table(path, INFO, ROWS)
    table = open_table(path)
    assert table.info == INFO
    assert len(table) == len(ROWS)
    assert list(table.rows()) == ROWS


def test_failed_and_pending_are_not_empty(path: Path) -> None:
    write_table(path, INFO, ROWS)
    columns = pq.read_table(path).to_pydict()
    assert [None if labels is None else len(labels) for labels in columns["labels"]] == [2, 0, 1, None, None, None]
    assert columns["fingerprint"][3:] == [b"d" * 16, None, None]
    assert columns["width"] == [640, 1, 9, None, None, None]


def test_the_file_has_our_schema_and_says_what_it_is(big: Path) -> None:
    file = pq.read_schema(big)
    assert file.remove_metadata() == table_schema()
    assert file.metadata[b"tagllm.schema_version"] == b"1"
    assert file.metadata[b"tagllm.stage"] == b"labels"
    assert json.loads(file.metadata[b"tagllm.vocabulary"])["name"] == "tiny"
    assert [pq.read_metadata(big).row_group(number).num_rows for number in range(6)] == [192] * 5 + [40]


def test_pandas_reads_it(big: Path) -> None:
    frame = pd.read_parquet(big)
    assert frame["image_id"].nunique() == len(frame) == 1000
    assert frame["status"].value_counts().to_dict() == {"ok": 666, "failed": 334}
    named = frame[frame["labels"].notna()]["labels"].map(lambda labels: [label["name"] for label in labels])
    assert len(named) == 666
    assert set(named.map(tuple)) == {("cat",)}


def test_duckdb_reads_it(big: Path) -> None:
    def ask(query: str) -> Any:
        return duckdb.sql(query).fetchall()

    assert ask(f"SELECT count(*), count(DISTINCT image_id), count(labels) FROM '{big}'") == [(1000, 1000, 666)]
    entries = f"(SELECT unnest(labels) AS label FROM '{big}')"
    assert ask(f"SELECT label.name, label.decision, count(*), avg(label.probability) FROM {entries} GROUP BY ALL") == [
        ("cat", "yes", 666, 0.75)
    ]


def test_datasets_reads_it(big: Path, tmp_path: Path) -> None:
    loaded = datasets.Dataset.from_parquet(str(big), cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 1000
    assert len(set(loaded["image_id"])) == 1000
    assert loaded[0]["labels"] is None
    assert loaded[1]["labels"][0]["arms"] == ["cooccurring", "disjoint"]


def test_the_same_rows_make_the_same_bytes(path: Path) -> None:
    write_table(path, INFO, ROWS)
    first = path.read_bytes()
    write_table(path, TableInfo("labels", INFO.root, VOCABULARY, {"threshold": 0.5, "model": "m"}), iter(ROWS))
    assert path.read_bytes() == first


def test_an_empty_table_is_a_table(path: Path) -> None:
    write_table(path, INFO, [])
    assert (len(open_table(path)), list(open_table(path).rows())) == (0, [])


def failing() -> Iterator[Row]:
    yield ROWS[0]
    raise TableError("the evidence is gone")


def test_rows_that_fail_leave_the_old_table(path: Path) -> None:
    write_table(path, INFO, ROWS)
    before = snapshot(path.parent)
    with pytest.raises(TableError, match="the evidence is gone"):
        write_table(path, INFO, failing())
    assert snapshot(path.parent) == before


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_failure_before_the_rename_leaves_the_old_table(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_table(path, INFO, ROWS)
    before = snapshot(path.parent)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(TableError, match=r"cannot write .*No space left on device") as raised:
        write_table(path, INFO, ROWS[:1])
    assert "Free some space" in raised.value.hint
    monkeypatch.undo()
    assert snapshot(path.parent) == before


def test_a_folder_that_takes_no_file_is_one_clear_error() -> None:
    with pytest.raises(TableError, match=r"cannot write /proc/t\.parquet"):
        write_table(Path("/proc/t.parquet"), INFO, ROWS)


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (lambda path: None, "there is no table"),
        (lambda path: path.mkdir(), "is not a file"),
        (lambda path: os.mkfifo(path), "is not a file"),
        (lambda path: path.write_bytes(b""), "is not a Parquet file"),
        (lambda path: path.write_bytes(b"PAR1" + bytes(100) + b"PAR1"), "is not a Parquet file"),
        (lambda path: pq.write_table(pa.table({"a": [1]}), path), "but no label table"),
    ],
    ids=["nothing", "folder", "fifo", "empty", "noise", "other"],
)
def test_what_is_no_table_is_said_in_a_line(path: Path, put: Any, said: str) -> None:
    put(path)
    with pytest.raises(TableError, match=said) as raised:
        open_table(path)
    assert "\n" not in raised.value.message


def test_a_newer_schema_is_refused(path: Path) -> None:
    metadata = {"tagllm.schema_version": "2"}
    pq.write_table(table_schema().empty_table().replace_schema_metadata(metadata), path)
    with pytest.raises(TableError, match="schema version 2; this tagllm reads up to 1"):
        open_table(path)
