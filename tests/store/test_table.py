"""The label table: read back by us and by tools that know nothing of us; replaced whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import datasets
import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagllm_cli.errors import TableError
from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status
from tagllm_cli.store import table as tables
from tagllm_cli.store.schema import table_schema
from tagllm_cli.store.table import RowReader, TableInfo, open_table, table_metadata, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.support.workspace import snapshot

VOCABULARY = Vocabulary(
    "tiny",
    (Label("cat", "animal", ("kitty",), "a small furry pet", ("dog",)), Label("dog", "animal"), Label('a, "b"\n')),
    {"byhand": [["cat"], ["dog", 'a, "b"\n']]},
    "for tests",
)
SOURCE = SourceInfo("folder", "/data/photos", {"exclude": ["*.gif"]})
INFO = TableInfo("labels", SOURCE, VOCABULARY, {"model": "m", "threshold": 0.5})
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
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 192)
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
    assert file.metadata[b"tagllm.schema_version"] == b"2"
    assert file.metadata[b"tagllm.stage"] == b"labels"
    assert json.loads(file.metadata[b"tagllm.vocabulary"])["name"] == "tiny"
    assert json.loads(file.metadata[b"tagllm.source"]) == {
        "kind": "folder", "uri": "/data/photos", "options": {"exclude": ["*.gif"]}
    }  # fmt: skip
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
    write_table(path, TableInfo("labels", SOURCE, VOCABULARY, {"threshold": 0.5, "model": "m"}), iter(ROWS))
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
    metadata = {"tagllm.schema_version": "3"}
    pq.write_table(table_schema().empty_table().replace_schema_metadata(metadata), path)
    with pytest.raises(TableError, match="schema version 3; this tagllm reads up to 2"):
        open_table(path)


def test_a_link_to_a_table_stays_and_the_table_is_replaced(path: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    path.symlink_to("store/real.parquet")
    for rows in (ROWS, ROWS[:2]):
        write_table(path, INFO, rows)
    assert path.is_symlink()
    assert len(open_table(tmp_path / "store" / "real.parquet")) == 2


def test_the_metadata_of_schema_version_1_is_read(path: Path) -> None:
    metadata = {**table_metadata(INFO), "tagllm.schema_version": "1", "tagllm.root": "/old/photos"}
    del metadata["tagllm.source"]
    pq.write_table(table_schema().empty_table().replace_schema_metadata(metadata), path)
    assert open_table(path).info.source == SourceInfo("folder", "/old/photos")


@pytest.mark.parametrize(
    "change",
    [
        {"tagllm.schema_version": "one"},
        {"tagllm.vocabulary": None},
        {"tagllm.vocabulary": "{"},
        {"tagllm.vocabulary": "[]"},
        {"tagllm.vocabulary": '{"name": "x", "labels": [{}]}'},
        {"tagllm.plan": None},
        {"tagllm.source": '{"kind": "folder"}'},
        {"tagllm.source": "[1]"},
        {"tagllm.stage": b"\xff"},
    ],
)
def test_metadata_that_makes_no_sense_is_damage_and_no_traceback(path: Path, change: dict[str, Any]) -> None:
    metadata = {key: value for key, value in {**table_metadata(INFO), **change}.items() if value is not None}
    pq.write_table(table_schema().empty_table().replace_schema_metadata(metadata), path)
    with pytest.raises(TableError, match=r"t\.parquet is damaged: ") as raised:
        open_table(path)
    assert "\n" not in raised.value.message


@pytest.mark.parametrize("column", table_schema().names)
def test_a_missing_column_is_named(path: Path, column: str) -> None:
    schema = table_schema().with_metadata(table_metadata(INFO))
    pq.write_table(schema.empty_table().drop_columns([column]), path)
    with pytest.raises(TableError, match=f"its column {column} is missing"):
        open_table(path)


def test_a_column_of_another_type_is_named(path: Path) -> None:
    table = table_schema().with_metadata(table_metadata(INFO)).empty_table()
    pq.write_table(table.set_column(3, "width", pa.array([], pa.string())), path)
    with pytest.raises(TableError, match="its column width is missing or of another type"):
        open_table(path)


def test_a_damaged_page_is_one_clear_error(big: Path) -> None:
    data = bytearray(big.read_bytes())
    data[8:400] = bytes(392)
    big.write_bytes(data)
    with pytest.raises(TableError, match=r"t\.parquet is damaged: "):
        list(open_table(big).rows())


def test_a_row_that_makes_no_sense_is_one_clear_error(path: Path) -> None:
    write_table(path, INFO, ROWS)
    read = pq.read_table(path)
    pq.write_table(read.set_column(5, "status", pa.array(["fine"] * len(ROWS))), path)
    with pytest.raises(TableError, match="damaged: 'fine' is not a valid Status"):
        list(open_table(path).rows())


@pytest.mark.parametrize(("rows", "entries"), [(192, 10**9), (192, 57), (1000, 13), (8192, 2**21)])
def test_rows_that_are_taken_over_and_rows_that_are_made_give_the_same_bytes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, entries: int
) -> None:
    monkeypatch.setattr(tables, "ROWS_PER_BATCH", 64)
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", rows)
    monkeypatch.setattr(tables, "ENTRIES_PER_GROUP", entries)
    before = [*ROWS, *many(1500)]
    write_table(path, INFO, before)
    rng = Random(rows + entries)
    mixed: list[Row | int] = []
    for number in range(len(before)):
        mixed += [rng.choice(ROWS)] * (rng.random() < 0.02)
        mixed += [number] * (rng.random() < 0.98)
    after = [before[row] if isinstance(row, int) else row for row in mixed]
    reader = RowReader(open_table(path))
    assert [reader.row(number) for number in (0, 5, 700, len(before) - 1)] == [before[n] for n in (0, 5, 700, -1)]
    write_table(tmp_path / "mixed.parquet", INFO, mixed, reader)
    write_table(tmp_path / "anew.parquet", INFO, after)
    reader.close()
    assert list(open_table(tmp_path / "mixed.parquet").rows()) == after
    assert (tmp_path / "mixed.parquet").read_bytes() == (tmp_path / "anew.parquet").read_bytes()
