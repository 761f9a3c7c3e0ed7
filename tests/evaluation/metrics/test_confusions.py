"""Confused labels: against dense arithmetic, whatever fits in memory, and what is not judged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tagllm_cli.evaluation.entries import compare, entries_of
from tagllm_cli.evaluation.metrics import confusions
from tagllm_cli.evaluation.metrics.confusions import find_confusions
from tagllm_cli.records import Decision, LabelEntry
from tests.evaluation.problem import Problem, row, truth, vocabulary


@pytest.mark.parametrize("at_once", [1, 100, 2**22])
def test_pairs_agree_with_dense_arithmetic(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(confusions, "_PAIRS", at_once)
    problem = Problem(1)
    names = vocabulary(*problem.names)
    found = find_confusions(compare(entries_of(problem.rows(), names, "labels"), names, problem.truth()), most=1000)
    said = problem.said & (problem.scores > 0)
    wrong, missed = (said & ~problem.true).astype(int), (problem.true & ~said).astype(int)
    both, images = wrong.T @ missed, len(said)
    by_chance = np.outer(wrong.sum(axis=0), missed.sum(axis=0)) / images
    assert found.pairs == np.count_nonzero(both)
    place = {name: number for number, name in enumerate(problem.names)}
    for each in found.found:
        a, b = place[each.said], place[each.missed]
        assert (each.both, each.wrong, each.misses) == (both[a, b], wrong[:, a].sum(), missed[:, b].sum())
        assert (each.expected, each.lift) == pytest.approx((by_chance[a, b], both[a, b] / by_chance[a, b]))
    assert len(found.found) == np.count_nonzero(both > by_chance)
    excess = [each.both - each.expected for each in found.found]
    assert excess == sorted(excess, reverse=True)


def test_what_is_not_judged_confuses_nothing() -> None:
    yes = [LabelEntry(name, Decision.YES, score=0.9) for name in ("cat", "dog")]
    rows = [row("1", yes[0]), row("2", yes[0]), row("3", yes[1]), row("4")]
    human = truth({"1": ["dog"], "2": ["dog"], "3": ["dog"], "4": []}, "cat", "dog")
    names = vocabulary("cat", "dog")
    (found,) = find_confusions(compare(entries_of(rows, names, "labels"), names, human)).found
    assert (found.said, found.missed, found.both, found.expected, found.lift) == ("cat", "dog", 2, 1.0, 2.0)
    positive_only = truth({"1": ["dog"], "2": ["dog"], "3": ["dog"], "4": []}, "cat", "dog", absent={})
    nothing = find_confusions(compare(entries_of(rows, names, "labels"), names, positive_only))
    assert (nothing.found, nothing.pairs, nothing.tables()) == ((), 0, ())
    assert json.loads(json.dumps(nothing.to_json())) == {"pairs": 0, "found": []}
