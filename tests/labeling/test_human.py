"""What people decided over a row, and what the model alone said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagllm_cli.labeling.human import HumanOverlay
from tagllm_cli.labeling.rows import proposals
from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status
from tagllm_cli.store.table import TableInfo
from tagllm_cli.vocabulary.model import Label, Vocabulary

NAMES = ("cat", "dog", "cow", "cup")
YES, NO, UNKNOWN = Decision.YES, Decision.NO, Decision.UNKNOWN
VOCABULARY = Vocabulary("tiny", tuple(map(Label, NAMES)))
PLAN = {"threshold": 0.5, "min_mass": 0.5, "label_thresholds": {"dog": 0.8}}


def overlay(stage: str = "labels", **plan: object) -> HumanOverlay:
    return HumanOverlay(TableInfo(stage, SourceInfo("folder", "/x"), VOCABULARY, {**PLAN, **plan}))


def row(*labels: LabelEntry, status: Status = Status.OK) -> Row:
    known = None if status in (Status.FAILED, Status.PENDING) else labels
    return Row("1.jpg", "1.jpg", b"f" * 16, 8, 8, status, None, known, ())


CAT = LabelEntry("cat", YES, 0.75, 0.98, 0.75, ("co",), ("co-1",))
DOG = LabelEntry("dog", NO, 0.75, 0.98, 0.75, ("co",), ("co-2",))
COW = LabelEntry("cow", UNKNOWN, None, 0.25, 0.5, ("co",), ("co-1",))


def said(found: Row) -> dict[str, tuple[Decision | None, str, float]]:
    return {entry.name: (entry.decision, entry.source, entry.score) for entry in found.labels or ()}


def test_what_people_decided_wins_and_the_rest_stays() -> None:
    found = overlay().row(row(CAT, DOG, COW), {"cat": NO, "cup": YES, "cow": NO, "horse": YES})
    assert said(found) == {
        "cat": (NO, "human", 0.75),
        "dog": (NO, "model", 0.75),
        "cow": (NO, "human", 0.5),
        "cup": (YES, "human", 1.0),
    }
    assert found.labels is not None
    assert found.labels[0].probability == 0.75


@pytest.mark.parametrize("status", [Status.FAILED, Status.PENDING])
def test_an_image_without_answers_has_the_labels_of_people_and_all_others_are_unknown(status: Status) -> None:
    before = row(status=status)
    found = overlay().row(before, {"cat": YES, "dog": NO})
    assert found.status == status
    assert said(found) == {
        "cat": (YES, "human", 1.0),
        "dog": (NO, "human", 0.0),
        "cow": (UNKNOWN, "model", 0.0),
        "cup": (UNKNOWN, "model", 0.0),
    }
    assert overlay().model_row(found) == before
    assert overlay().row(found, {}) == before


def test_decisions_about_labels_that_are_gone_change_nothing() -> None:
    assert overlay().row(row(CAT), {"horse": YES}) == row(CAT)


ENTRIES = st.sampled_from(
    [
        *(LabelEntry("x", YES if p > 0.5 else NO, p, 0.9, p, ("co",), ("g",)) for p in (0.125, 0.5, 0.75)),
        LabelEntry("x", UNKNOWN, None, 0.25, 0.5, ("co",), ("g",)),
        LabelEntry("x", UNKNOWN, None, None, 0.5, ("co", "dis"), ("g", "h")),
        LabelEntry("x", UNKNOWN),
    ]
)
CANDIDATES = st.sampled_from(
    [
        LabelEntry("x", None, score=1.0, arms=("co", "dis"), groups=("g", "h")),
        LabelEntry("x", UNKNOWN, score=0.5, arms=("co",), groups=("g",)),
        LabelEntry("x", None, 0.75, 0.9, 0.75, ("all",)),
        LabelEntry("x", NO, 0.25, 0.9, 0.25),
        LabelEntry("x", UNKNOWN, None, 0.25, 0.0),
        LabelEntry("x", UNKNOWN),
    ]
)


def names_of(entries: tuple[LabelEntry, ...] | None) -> list[str]:
    return [entry.name for entry in entries or ()]


def rows_of(entries: st.SearchStrategy[LabelEntry]) -> st.SearchStrategy[Row]:
    from dataclasses import replace

    some = st.dictionaries(st.sampled_from([name for name in NAMES if name != "dog"]), entries)
    return some.map(lambda found: row(*(replace(found[name], name=name) for name in NAMES if name in found)))


@given(rows_of(ENTRIES), st.dictionaries(st.sampled_from(NAMES), st.sampled_from(Decision)))
def test_the_models_view_of_a_label_table_is_what_it_said(before: Row, decisions: dict[str, Decision]) -> None:
    found = overlay().row(before, decisions)
    assert overlay().model_row(found) == before
    assert overlay().row(found, decisions) == found


@given(rows_of(CANDIDATES), st.dictionaries(st.sampled_from(NAMES), st.sampled_from(Decision)))
def test_the_models_view_of_candidates_is_what_it_said(before: Row, decisions: dict[str, Decision]) -> None:
    votes = overlay("candidates", min_votes=1)
    found = votes.row(before, decisions)
    entries = {entry.name: entry for entry in before.labels or () if not (entry.decision == UNKNOWN and entry.arms)}
    views = {entry.name: entry for entry in votes.model_row(found).labels or ()}
    assert {name: views.get(name) for name in entries} == entries
    assert names_of(proposals(found)) == names_of(proposals(before))


def test_a_labels_own_threshold_decides_again() -> None:
    found = overlay().row(row(CAT, DOG), {"dog": YES})
    assert overlay().model_row(found) == row(CAT, DOG)
    lower = overlay(label_thresholds={"dog": 0.7})
    assert said(lower.model_row(found))["dog"] == (YES, "model", 0.75)
