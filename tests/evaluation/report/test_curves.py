"""Precision and recall against scikit-learn, on problems with ties, and thinned curves that stay exact."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from tagllm_cli.evaluation.entries import compare, entries_of
from tagllm_cli.evaluation.report.curves import BINS, Curve, histogram, precision_recall
from tests.evaluation.problem import Problem, vocabulary


def curves_of(problem: Problem, points: int = 1000) -> tuple[Curve, dict[str, Curve]]:
    known = vocabulary(*problem.names)
    comparison = compare(entries_of(problem.rows(), known, "labels"), known, problem.truth())
    return precision_recall(comparison.entries, comparison.judgments, points)


def reference(true: np.ndarray, scores: np.ndarray) -> dict[float, tuple[float, float]]:
    """Return recall and precision by threshold; what has no score is not listed."""
    precision, recall, thresholds = precision_recall_curve(true, scores)
    points = zip(thresholds, recall[:-1], precision[:-1], strict=True)
    return {round(float(at), 4): (float(one), float(other)) for at, one, other in points if at > 0}


def check(curve: Curve, expected: dict[float, tuple[float, float]]) -> None:
    found = curve.to_json()
    assert found["thresholds"] == sorted(expected, reverse=True)
    for at, recall, precision in zip(found["thresholds"], curve.recall, curve.precision, strict=True):
        assert (recall, precision) == pytest.approx(expected[at])


@pytest.mark.parametrize("seed", range(3))
def test_every_point_is_that_of_scikit_learn(seed: int) -> None:
    problem = Problem(seed)
    together, labels = curves_of(problem)
    check(together, reference(problem.true.ravel(), problem.scores.ravel()))
    for number, name in enumerate(problem.names):
        if problem.true[:, number].any() and problem.scores[:, number].any():
            check(labels.pop(name), reference(problem.true[:, number], problem.scores[:, number]))
    assert labels == {}


def test_a_thinned_curve_has_points_of_the_whole_one() -> None:
    problem = Problem(5)
    whole, thin = (curves_of(problem, points)[0].to_json() for points in (1000, 4))
    assert len(thin["thresholds"]) == 4
    points = [set(zip(*curve.values(), strict=True)) for curve in (whole, thin)]
    assert points[1] < points[0]
    assert (thin["recall"][0], thin["recall"][-1]) == (whole["recall"][0], whole["recall"][-1])


def test_the_histogram_counts_every_probability_once() -> None:
    problem = Problem(1)
    entries = entries_of(problem.rows(), vocabulary(*problem.names), "labels")
    assert histogram(entries, None) == {}  # these entries have scores only
    entries.probabilities[:] = entries.scores
    counts = histogram(entries, None)["all"]
    assert (len(counts), sum(counts)) == (BINS, len(entries.rows))
    said = np.where(entries.labels % 2 == 0, 1, -1).astype(np.int8)
    kinds = histogram(entries, said)
    assert set(kinds) == {"present", "not judged"}
    assert np.add(kinds["present"], kinds["not judged"]).tolist() == counts
