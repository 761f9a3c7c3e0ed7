"""Decisions over many rows as columns: the same as row by row."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tagllm_cli.labeling.human_changes import Changes
from tagllm_cli.labeling.human_columns import fits, overlaid
from tagllm_cli.records import Decision, LabelEntry, Row, Status
from tagllm_cli.store.row_records import row_from_record
from tagllm_cli.store.table import arrow_tables
from tests.labeling.test_human import NAMES, overlay

POSITIONS = {name: number for number, name in enumerate(NAMES)}
decisions = st.dictionaries(st.sampled_from((*NAMES, "horse")), st.sampled_from(Decision), max_size=5)


@st.composite
def tables_rows(draw: st.DrawFn) -> Row:
    listed = draw(st.lists(st.sampled_from(NAMES), unique=True))
    labels = tuple(
        LabelEntry(
            name,
            draw(st.sampled_from((None, *Decision))),
            *draw(st.sampled_from(((None, None, 0.5), (0.75, 0.875, 0.75)))),
            draw(st.sampled_from(((), ("co",), ("co", "dis")))),
            draw(st.sampled_from(((), ("co-1",)))),
        )
        for name in sorted(listed, key=NAMES.index)
    )
    status = draw(st.sampled_from((Status.OK, Status.PARTIAL)))
    return Row("1.jpg", "1.jpg", b"f" * 16, 8, 8, status, None, labels, draw(st.sampled_from(((), ("cup",)))))


@given(st.lists(st.tuples(tables_rows(), decisions), min_size=1, max_size=8))
def test_rows_and_counts_are_those_of_one_row_at_a_time(given_: list[tuple[Row, dict[str, Decision]]]) -> None:
    rows, said = zip(*given_, strict=True)
    piece = pa.concat_tables(arrow_tables(rows))
    assert fits(piece).all()
    counted, expected = Changes(), Changes()
    found = overlaid(piece, said, POSITIONS, counted)
    after = [overlay().row(row, decided) for row, decided in zip(rows, said, strict=True)]
    assert found.schema == piece.schema
    assert [row_from_record(each) for each in found.to_pylist()] == after
    for before, row in zip(rows, after, strict=True):
        expected.add(before, row)
    assert counted == expected


def test_rows_without_labels_and_rows_that_people_decided_do_not_fit() -> None:
    human = LabelEntry("cat", Decision.YES, source="human")
    rows = [
        Row("1", "1", b"f" * 16, 8, 8, Status.OK, None, (LabelEntry("cat"),), ()),
        Row("2", "2", b"f" * 16, 8, 8, Status.OK, None, (human, LabelEntry("dog")), ()),
        Row("3", "3", b"f" * 16, 8, 8, Status.FAILED, "x", None, None),
        Row("4", "4", b"f" * 16, 8, 8, Status.FAILED, "x", (LabelEntry("cat"),), None),
        Row("5", "5", b"f" * 16, 8, 8, Status.OK, None, (), ()),
    ]
    assert fits(pa.concat_tables(arrow_tables(rows))).tolist() == [True, False, False, False, True]
