"""Entries: the same from a file as from its rows, whatever the batches; what is damaged is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagllm_cli.errors import TableError
from tagllm_cli.evaluation import entries
from tagllm_cli.evaluation.entries import HUMAN, PREDICTED, UNDECIDED, Entries, entries_of, read_entries
from tagllm_cli.evaluation.entry_arrays import filled, is_text
from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status
from tagllm_cli.store.table import TableInfo, open_table, write_table
from tagllm_cli.vocabulary.model import Vocabulary
from tests.evaluation.problem import vocabulary

NAMES = vocabulary(*(f"label {number}" for number in range(7)))
ARMS = ("cooccurring", "disjoint")


def random_rows(seed: int, images: int, stage: str) -> list[Row]:
    random = np.random.default_rng(seed)

    def entry(name: str) -> LabelEntry:
        arms = tuple(arm for arm in ARMS if random.random() < 0.6)
        decisions = [*Decision, None] if stage == "labels" else [Decision.UNKNOWN, None]
        said = decisions[random.integers(len(decisions))]
        probability = None if random.random() < 0.3 else round(float(random.random()), 2)
        source = "human" if random.random() < 0.1 else "model"
        return LabelEntry(name, said, probability, None, float(random.random()), arms, (), source)

    rows = []
    for image in range(images):
        status = Status(random.choice([*Status]))
        listed = tuple(entry(name) for name in NAMES.names if random.random() < 0.4)
        answered = status in (Status.OK, Status.PARTIAL)
        size = (0, 0) if random.random() < 0.2 else (image + 1, 2 * image + 1)
        rows.append(Row(f"{image}.jpg", "", b"", *size, status, None, listed if answered else None, ()))
    return rows


def write(path: Path, rows: list[Row], stage: str, names: Vocabulary = NAMES) -> Path:
    write_table(path, TableInfo(stage, SourceInfo("folder", "/"), names, {"arms": {arm: [] for arm in ARMS}}), rows)
    return path


def equal(one: Entries, other: Entries) -> bool:
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") if isinstance(a, np.ndarray) else list(a) == list(b)
        for a, b in ((getattr(one, name), getattr(other, name)) for name in Entries.__slots__)
    )


@pytest.mark.parametrize("batch", [1, 7, 8192])
@pytest.mark.parametrize("stage", ["labels", "candidates"])
def test_a_table_is_read_as_its_rows_say(tmp_path: Path, stage: str, batch: int) -> None:
    rows = random_rows(1, 60, stage)
    with patch.object(entries, "_ROWS", batch):
        found = read_entries(open_table(write(tmp_path / "t.parquet", rows, stage)))
    assert equal(found, entries_of(rows, NAMES, stage, ARMS))
    assert (found.ids, found.statuses) == ([row.image_id for row in rows], [row.status for row in rows])
    assert found.widths.tolist() == [row.width for row in rows]
    assert found.heights.tolist() == [row.height for row in rows]
    listed = [(number, entry) for number, row in enumerate(rows) for entry in row.labels or ()]
    assert found.rows.tolist() == [number for number, _ in listed]
    predicted = Decision.YES if stage == "labels" else None
    for place, (_, entry) in enumerate(listed):
        assert NAMES.names[found.labels[place]] == entry.name
        assert found.scores[place] == np.float32(entry.score)
        if entry.probability is None:
            assert np.isnan(found.probabilities[place])
        else:
            assert found.probabilities[place] == np.float32(entry.probability)
        flags = PREDICTED * (entry.decision == predicted) + UNDECIDED * (entry.decision == Decision.UNKNOWN)
        assert found.flags[place] == flags + HUMAN * (entry.source == "human")
        assert found.arms[place] == sum(1 << ARMS.index(arm) for arm in entry.arms)


def test_no_rows_are_no_entries(tmp_path: Path) -> None:
    found = read_entries(open_table(write(tmp_path / "t.parquet", [], "labels")))
    assert (len(found.ids), len(found.rows), found.rows.dtype, found.arms.dtype) == (0, 0, np.int64, np.uint64)


def test_some_rows_and_labels_are_numbered_anew() -> None:
    whole = entries_of(random_rows(2, 40, "labels"), NAMES, "labels", ARMS)
    some = whole.restricted([3, 5, 30], [6, 0])
    assert some.ids == ["3.jpg", "5.jpg", "30.jpg"]
    assert some.widths.tolist() == whole.widths[[3, 5, 30]].tolist()
    expected = [
        ([3, 5, 30].index(row), [6, 0].index(label), score)
        for row, label, score in zip(whole.rows, whole.labels, whole.scores, strict=True)
        if row in (3, 5, 30) and label in (6, 0)
    ]
    assert list(zip(some.rows, some.labels, some.scores, strict=True)) == expected


@pytest.mark.parametrize(("old", "new", "said"), [("label 3", "zebra", "label 'zebra'"), ("ok", "fine", "status")])
def test_what_the_schema_cannot_hold_is_a_damaged_table(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = write(tmp_path / "t.parquet", random_rows(3, 30, "labels"), "labels")
    table = pq.read_table(path)
    records = [
        {**row, "status": new if row["status"] == old else row["status"]}
        | {"labels": row["labels"] and [{**each, "name": each["name"].replace(old, new)} for each in row["labels"]]}
        for row in table.to_pylist()
    ]
    pq.write_table(pa.Table.from_pylist(records, schema=table.schema), path)
    with pytest.raises(TableError, match=said):
        read_entries(open_table(path))


def test_parts_of_arrow_arrays_are_read_where_they_lie_and_nulls_arefilled() -> None:
    numbers = pa.array([1, None, 3], pa.int32())
    assert filled(numbers[1:], 0).tolist() == [0, 3]
    assert filled(numbers[3:], 0).tolist() == []
    assert filled(pa.array([], pa.float32()), np.nan).dtype == np.float32
    flags = pa.array([True, False, None, True])
    assert filled(flags[1:], False).tolist() == [False, False, True]
    assert is_text(pa.array(["a", None, "é", ""])[1:], "é").tolist() == [False, True, False]


def test_reading_a_table_does_not_load_pandas() -> None:
    code = (
        "import sys; from pathlib import Path; from tagllm_cli.store.table import open_table; "
        "from tagllm_cli.evaluation.entries import read_entries; "
        "assert len(read_entries(open_table(Path('tests/data/demo/labels.parquet'))).cells); "
        "print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
