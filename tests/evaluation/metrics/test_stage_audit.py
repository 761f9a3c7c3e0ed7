"""The stage audit: a case worked by hand, agreement with the evaluation, and requests from the run records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tagllm_cli.evaluation.entries import compare, entries_of
from tagllm_cli.evaluation.metrics import evaluate_rows
from tagllm_cli.evaluation.metrics.requests import Requests, requests_on_record
from tagllm_cli.evaluation.metrics.stage_audit import StageAudit, audit_stages
from tagllm_cli.evaluation.truth import Truth
from tagllm_cli.records import Decision, LabelEntry, Row
from tests.evaluation.problem import Problem, row, truth, vocabulary
from tests.support.parts import Maker, Picture

YES, NO, UNKNOWN = Decision.YES, Decision.NO, Decision.UNKNOWN


def audited(rows: list[Row], human: Truth, *names: str, requests: Requests = Requests()) -> StageAudit:  # noqa: B008
    known = vocabulary(*names)
    found = audit_stages(compare(entries_of(rows, known, "labels"), known, human), requests)
    assert found is not None
    return found


def test_a_case_worked_by_hand() -> None:
    rows = [
        row("1", LabelEntry("cat", YES, score=0.9), LabelEntry("dog", NO, score=0.1)),
        row("2", LabelEntry("cat", NO, score=0.2), LabelEntry("dog", UNKNOWN, score=0.5)),
        row("3", LabelEntry("cat", YES, score=0.8), LabelEntry("dog", UNKNOWN, score=0.5)),
        row("4", LabelEntry("cow", YES, score=0.8)),
    ]
    human = truth({"1": ["cat"], "2": ["cat", "dog", "cow"], "3": ["cow"], "4": []}, "cat", "dog", "cow",
                  unknown={"4": frozenset({"cow"})})  # fmt: skip
    found = audited(rows, human, "cat", "dog", "cow", requests=Requests(2.0, 1.75))
    overall = found.overall
    assert (overall.present, overall.proposed, overall.lost) == (5, 3, 2)  # the cow of 2 and of 3 was never proposed
    assert (overall.kept, overall.removed, overall.unknown) == (1, 1, 1)
    assert (overall.absent, overall.wrongly_kept, overall.rightly_removed, overall.absent_unknown) == (3, 1, 1, 1)
    assert (overall.candidate_recall, overall.candidate_precision) == (0.6, 0.5)
    assert (overall.label_recall, overall.label_precision) == (0.2, 0.5)
    cat, dog, cow = found.labels
    assert (cat.removed, cat.wrongly_kept, dog.unknown, dog.rightly_removed, cow.lost) == (1, 1, 1, 1, 2)
    assert found.recall_per_request("candidates") == pytest.approx(0.6 / 2)
    assert found.recall_per_request("labels") == pytest.approx(0.2 / 3.75)
    value = found.to_json()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    stages, decisions, lost = found.tables()
    assert stages[1][1][0] == ["candidates", "0.5000", "0.6000", "2.00", "0.3000"]
    assert decisions[1][1][0] == ("present", "3", "1", "1", "1", "2")
    assert lost[1][1] == [("cow", "2", "2", "0.000")]


def test_the_last_stage_has_the_figures_of_the_evaluation() -> None:
    problem = Problem(3)
    whole = evaluate_rows(problem.rows(), vocabulary(*problem.names), problem.truth())
    found = audited(problem.rows(), problem.truth(), *problem.names)
    assert (found.overall.label_precision, found.overall.label_recall) == pytest.approx((whole.op, whole.or_))
    assert found.overall.present - found.overall.proposed == (problem.true & (problem.scores == 0)).sum()
    assert found.recall_per_request("labels") is None
    assert found.tables()[0][1][0] == ["after", "precision", "recall"]


def test_a_candidate_table_decides_nothing() -> None:
    known = vocabulary("cat")
    rows = [row("1", LabelEntry("cat", score=1.0))]
    table = entries_of(rows, known, "candidates")
    assert audit_stages(compare(table, known, truth({"1": ["cat"]}, "cat"), stage="candidates")) is None


def test_requests_are_those_on_record_for_both_tables(tmp_path: Path) -> None:
    table = tmp_path / "labels.parquet"
    assert requests_on_record(table) == Requests()
    pictures = [Picture(f"{number}.jpg", number) for number in range(4)]  # two answers to each
    Maker("labels").make(table, pictures)
    assert requests_on_record(table) == Requests(None, 2.0)
    Maker().make(tmp_path / "labels.candidates.parquet", [*pictures[:3], Picture("3.jpg", 3, answers=("cat",))])
    assert requests_on_record(table) == Requests(7 / 4, 2.0)
    table.rename(elsewhere := tmp_path / "decided.parquet")
    table.with_suffix(".evidence").rename(elsewhere.with_suffix(".evidence"))
    assert requests_on_record(elsewhere) == Requests(None, 2.0)
    assert requests_on_record(elsewhere, tmp_path / "labels.candidates.parquet") == Requests(7 / 4, 2.0)
    elsewhere.rename(table)
    (tmp_path / "labels.evidence").write_bytes(b"not a database, but long enough to look like a file")
    assert requests_on_record(table) == Requests(7 / 4, None)
