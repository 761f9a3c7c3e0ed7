"""Counts of a comparison against a plain computation over rows, one pair of image and label at a time."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tagllm_cli.evaluation.diff.compare import KINDS
from tagllm_cli.evaluation.diff.diff import DiffOptions, diff_tables
from tagllm_cli.evaluation.diff.join import matched, ranks
from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status
from tagllm_cli.store.table import TableInfo, open_table, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary

NAMES = ("cat", "dog", "cow", "cup")
ANSWERED = (Status.OK, Status.PARTIAL)


@st.composite
def entries(draw: st.DrawFn, names: tuple[str, ...], stage: str) -> tuple[LabelEntry, ...]:
    found = []
    for name in draw(st.permutations(names)):
        if draw(st.booleans()):
            probability = draw(st.one_of(st.none(), st.floats(0, 1, width=32)))
            known: list[Decision | None] = [*Decision, None] if stage == "candidates" else [*Decision]
            found.append(LabelEntry(name, draw(st.sampled_from(known)), probability, None, 0.5, ("a",)))
    return tuple(found)


@st.composite
def tables(draw: st.DrawFn, stage: str) -> tuple[Vocabulary, list[Row]]:
    names = tuple(draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True)))
    rows = []
    for name in draw(st.lists(st.sampled_from("pqrstu"), min_size=1, unique=True)):
        status = draw(st.sampled_from(Status))
        fingerprint = draw(st.sampled_from([b"", b"1" * 16, b"2" * 16, name.encode() * 16]))
        labels = draw(entries(names, stage)) if status in ANSWERED else None
        rows.append(Row(name, name, fingerprint, 8, 8, status, None, labels))
    return Vocabulary("some", tuple(map(Label, names))), rows


def joined(one: list[Row], two: list[Row]) -> list[tuple[Row | None, Row | None]]:
    """Join rows by id, then what is left by fingerprint, the first with the first."""
    left, right = {row.image_id: row for row in one}, {row.image_id: row for row in two}
    pairs: list[tuple[Row | None, Row | None]] = [(left[name], right[name]) for name in left if name in right]
    ours = [row for name, row in left.items() if name not in right]
    theirs = [row for name, row in right.items() if name not in left]
    for row in list(ours):
        twin = next((each for each in theirs if row.fingerprint and each.fingerprint == row.fingerprint), None)
        if twin is not None:
            pairs.append((row, twin))
            ours.remove(row)
            theirs.remove(twin)
    return [*pairs, *((row, None) for row in ours), *((None, row) for row in theirs)]


def said(row: Row | None, label: str) -> str:
    entry = next((each for each in (row.labels or () if row else ()) if each.name == label), None)
    if entry is None or entry.decision is Decision.NO:
        return "no"
    return "unknown" if entry.decision is Decision.UNKNOWN else "yes"


def kind(first: str, second: str) -> str:
    if second == "unknown":
        return "undecided"
    if first == "unknown":
        return "decided"
    return "added" if second == "yes" else "removed"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_counts_are_those_of_a_plain_computation(data: st.DataObject) -> None:
    stage = data.draw(st.sampled_from(["labels", "candidates"]))
    one, two = data.draw(tables(stage)), data.draw(tables(stage))
    pairs = joined(one[1], two[1])
    both = [pair for pair in pairs if None not in pair]
    if not both:
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("a.parquet", "b.parquet")]
        for path, (vocabulary, rows) in zip(paths, (one, two), strict=True):
            write_table(path, TableInfo(stage, SourceInfo("folder", folder), vocabulary), rows)
        summary = diff_tables(paths[0], paths[1], DiffOptions(limit=1000))
        found = summary.to_json()
    shared, stated, per_label = Counter[str](), 0, Counter[str]()
    flipped = set()
    for number, (first, second) in enumerate(pairs):
        for label in NAMES:
            states = said(first, label), said(second, label)
            if first is not None and second is not None:
                stated += states != ("no", "no")
            if states[0] != states[1]:
                flipped.add(number)
                if first is not None and second is not None:
                    shared[kind(*states)] += 1
                    per_label[label] += 1
    assert {key: found["labels"][key] for key in KINDS} == {key: shared[key] for key in KINDS}
    assert found["labels"]["pairs"] == stated
    assert {row["name"]: row["changed"] for row in found["per_label"] if row["changed"]} == dict(per_label)
    replaced = sum(bool(a.fingerprint and b.fingerprint) and a.fingerprint != b.fingerprint for a, b in both)  # type: ignore[union-attr]
    assert found["images"]["other_bytes"] == replaced
    assert found["images"]["renamed"] == sum(a.image_id != b.image_id for a, b in both)  # type: ignore[union-attr]
    assert found["images"]["added"] == sum(a is None for a, _ in pairs)
    assert found["images"]["removed"] == sum(b is None for _, b in pairs)
    differing = {
        number
        for number, (a, b) in enumerate(pairs)
        if a is None or b is None or (a.fingerprint and b.fingerprint and a.fingerprint != b.fingerprint)
    }
    assert found["images"]["differing"] == len(differing | flipped)
    assert sum(sum(kinds.values()) for kinds in found["causes"].values()) == len(found["examples"])
    assert sum(shared.values()) + found["labels"]["in_added_images"] + found["labels"]["in_removed_images"] == len(
        found["examples"]
    )
    moves = [each["move"] for each in found["examples"] if each["cause"] == "model's answer"]
    assert moves == sorted(moves, reverse=True)
    assert summary.shares["labels"] == (sum(shared.values()) / stated if stated else 0)


@given(st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)))
def test_equal_values_are_joined_in_their_order(first: list[int], second: list[int]) -> None:
    columns = [pa.chunked_array([pa.array([str(each) for each in values], pa.string())]) for values in (first, second)]
    one, two = matched(*columns)
    assert [first[place] for place in one] == [second[place] for place in two]
    assert len(one) == sum((Counter(first) & Counter(second)).values())
    for value in set(first):
        at = [place for place in range(len(first)) if first[place] == value]
        assert [place for place in one if first[place] == value] == at[: len([x for x in two if second[x] == value])]


def test_ranks_count_equal_codes_before() -> None:
    assert ranks(np.array([3, 1, 3, 3, 1])).tolist() == [0, 0, 1, 2, 1]
    assert ranks(np.empty(0, np.int64)).tolist() == []


def test_a_table_compared_with_itself_differs_in_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [Row("p", "p", b"", 8, 8, Status.OK, None, (LabelEntry("cat", Decision.YES, 0.9),))]
    write_table(path, TableInfo("labels", SourceInfo("folder", "x"), Vocabulary("v", (Label("cat"),))), rows)
    summary = diff_tables(path, path)
    assert summary.lines()[1] == "labels: 0 of 1 changed (0.00%)"
    assert summary.tables() == []
    assert len(open_table(path)) == 1
    empty = tmp_path / "empty.parquet"
    write_table(empty, TableInfo("labels", SourceInfo("folder", "x"), Vocabulary("v", (Label("cat"),))), [])
    assert diff_tables(empty, empty).shares["images"] == 0
