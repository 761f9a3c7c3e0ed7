"""Tables side by side: what they share, paired differences, and how often a difference by chance is said to be none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.entries import Comparison, compare, entries_of
from tagllm_cli.evaluation.metrics import evaluate_rows
from tagllm_cli.evaluation.metrics.bootstrap import Interval
from tagllm_cli.evaluation.metrics.paired import TableComparison, compare_tables
from tagllm_cli.records import Decision, LabelEntry, Row
from tests.evaluation.problem import Problem, row, vocabulary


def compared(rows: list[Row], problem: Problem, *names: str) -> Comparison:
    known = vocabulary(*(names or problem.names))
    return compare(entries_of(rows, known, "labels"), known, problem.truth())


def side_by_side(*comparisons: Comparison, rounds: int = 100, **options: bool) -> TableComparison:
    paths = [Path(f"{number}.parquet") for number in range(len(comparisons))]
    return compare_tables(list(zip(paths, comparisons, strict=True)), rounds, **options)


def noisy(problem: Problem, share: float, seed: int) -> list[Row]:
    """The same table with a share of its decisions turned round."""
    other = Problem.__new__(Problem)
    turned = (np.random.default_rng(seed).random(problem.said.shape) < share) & (problem.scores > 0)
    other.names, other.true, other.scores = problem.names, problem.true, problem.scores
    other.said = problem.said ^ turned
    return other.rows()


def test_tables_are_measured_on_the_images_and_labels_that_all_have() -> None:
    problem = Problem(1)
    first = compared(problem.rows()[:150], problem)
    fewer = [name for name in reversed(problem.names) if name != "label 7"]
    cut = [replace(each, labels=tuple(e for e in each.labels or () if e.name != "label 7"))
           for each in reversed(noisy(problem, 0.1, 2)[30:])]  # fmt: skip
    found = side_by_side(first, compared(cut, problem, *fewer))
    assert (found.images, found.labels) == (120, 11)
    alone = {"first": problem.rows()[30:150], "second": noisy(problem, 0.1, 2)[30:150]}
    known = vocabulary(*(name for name in problem.names if name != "label 7"))
    truth = replace(problem.truth(), names=known.names)
    for each, rows in zip(found.compared, alone.values(), strict=True):
        rows = [replace(one, labels=tuple(e for e in one.labels or () if e.name != "label 7")) for one in rows]
        expected = evaluate_rows(rows, known, truth)
        assert each.figures["of1"] == pytest.approx(expected.of1)
        assert each.figures["map"] == pytest.approx(expected.map)
        assert each.figures["exact_match"] == pytest.approx(expected.exact_match)
    assert found.notes[0].startswith("0.parquet: 30 images and 1 labels are not in all tables")
    value = found.to_json()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["tables"][0]["differences"] == {}


def test_a_table_with_more_errors_is_worse_beyond_noise_and_the_same_table_is_not() -> None:
    problem = Problem(4, images=400)
    problem.said = problem.true  # what is listed is decided rightly
    found = side_by_side(compared(problem.rows(), problem), compared(noisy(problem, 0.05, 1), problem), rounds=200)
    difference = found.compared[1].differences["of1"]
    assert difference.value < 0
    assert difference.is_beyond_noise
    assert str(difference).endswith(" *")
    one = evaluate_rows(problem.rows(), vocabulary(*problem.names), problem.truth()).of1
    assert difference.value == pytest.approx(found.compared[1].figures["of1"] - one)
    same = side_by_side(compared(problem.rows(), problem), compared(problem.rows(), problem)).compared[1].differences
    assert {(each.value, each.interval, each.is_beyond_noise) for each in same.values()} == {
        (0.0, Interval(0.0, 0.0), False)
    }


def test_tables_that_are_equally_good_differ_beyond_noise_about_as_rarely_as_chance_has_it() -> None:
    false_alarms, trials = 0, 100
    for trial in range(trials):
        problem = Problem(1000 + trial, images=80, labels=6)
        tables = [compared(noisy(problem, 0.15, 2 * trial + number), problem) for number in (0, 1)]
        found = side_by_side(*tables, rounds=100)
        false_alarms += found.compared[1].differences["of1"].is_beyond_noise
    assert 0 < false_alarms <= 12  # 5 are expected, with a standard deviation of 2.2


def test_what_a_person_decided_in_one_table_is_judged_in_none() -> None:
    problem = Problem(3)
    human = problem.rows()
    human[:50] = [
        replace(each, labels=tuple(replace(entry, source="human") for entry in each.labels or ()))
        for each in human[:50]
    ]
    found = side_by_side(compared(problem.rows(), problem), compared(human, problem))
    first, second = (each.figures for each in found.compared)
    assert first == second
    with_people = side_by_side(compared(problem.rows(), problem), compared(human, problem), include_human=True)
    assert with_people.compared[0].figures != first


def test_tables_without_anything_in_common_are_refused() -> None:
    problem = Problem(2)
    with pytest.raises(UsageError, match="share no image"):
        side_by_side(compared(problem.rows()[:50], problem), compared(problem.rows()[50:], problem))
    other = [row("1.jpg", LabelEntry("label 1", Decision.YES, score=1.0))]
    only = vocabulary("label 1")
    rest = replace(problem.truth(), names=tuple(problem.names))
    some = compare(entries_of(other, only, "labels"), only, rest)
    without = [replace(each, labels=()) for each in problem.rows()]
    with pytest.raises(UsageError, match="share no label"):
        side_by_side(some, compared(without, problem, *(name for name in problem.names if name != "label 1")))
