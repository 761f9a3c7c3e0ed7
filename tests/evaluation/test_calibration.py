"""Reliability against scikit-learn and torchmetrics."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import binary_calibration_error

from tagllm_cli.evaluation.calibration import BINS, LABEL_BINS, reliability
from tests.evaluation.judged import comparison_of


@pytest.fixture(params=[0, 1], ids=["over-confident", "rare"])
def drawn(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities [images, labels], what is present, and what is listed."""
    random = np.random.default_rng(request.param)
    probability = random.beta(0.5, 0.8 + 3 * request.param, (400, 6))
    present = random.random(probability.shape) < probability ** (1.5 - request.param)
    return probability.astype(np.float32), present, random.random(probability.shape) < 0.6


def test_overall_figures_are_those_of_torchmetrics_and_scikit_learn(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    probability, present, listed = drawn
    found = reliability(comparison_of(probability, present, listed))
    assert found is not None
    known, true = probability[listed], present[listed]
    ece = binary_calibration_error(torch.tensor(known), torch.tensor(true).int(), n_bins=BINS, norm="l1")
    assert found.overall.ece == pytest.approx(float(ece), abs=1e-6)
    assert found.overall.brier == pytest.approx(brier_score_loss(true, known))
    share, mean = calibration_curve(true, known, n_bins=BINS)
    assert [each.share for each in found.bins] == pytest.approx(share.tolist())
    assert [each.probability for each in found.bins] == pytest.approx(mean.tolist())
    assert sum(each.count for each in found.bins) == listed.sum() == found.overall.count
    assert found.missed == (present & ~listed).sum()
    for each in found.bins:
        bounds = binomtest(round(each.share * each.count), each.count).proportion_ci(method="wilson")
        assert (each.share_low, each.share_high) == pytest.approx(tuple(bounds))


def test_each_label_is_scored_in_bins_of_equal_numbers(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    probability, present, listed = drawn
    found = reliability(comparison_of(probability, present, listed))
    assert found is not None
    assert [each.name for each in found.labels] == [f"label {number}" for number in range(6)]
    for number, each in enumerate(found.labels):
        known, true = probability[listed[:, number], number], present[listed[:, number], number]
        assert each.brier == pytest.approx(brier_score_loss(true, known))
        order = np.argsort(known)
        parts = np.arange(len(known)) * LABEL_BINS // len(known)
        errors = [
            abs(known[order][parts == part].astype(float).sum() - true[order][parts == part].sum())
            for part in range(LABEL_BINS)
        ]
        assert each.ece == pytest.approx(sum(errors) / len(known))


def test_perfect_probabilities_have_the_error_that_chance_explains() -> None:
    errors, expected = [], []
    for seed in range(40):
        random = np.random.default_rng(seed)
        probability = random.random((150, 2))
        found = reliability(comparison_of(probability, random.random(probability.shape) < probability))
        assert found is not None
        errors.append(found.overall.ece)
        expected.append(found.overall.ece_by_chance)
    assert np.mean(errors) == pytest.approx(np.mean(expected), rel=0.1)
    assert np.mean(errors) > 0.03


def test_what_is_not_judged_or_undecided_counts_in_no_figure(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    probability, present, listed = drawn
    whole = reliability(comparison_of(probability[:200], present[:200], listed[:200]))
    judgment = present.astype(np.int8)
    judgment[200:300] = -1
    undecided = probability.copy()
    undecided[300:] = np.nan
    part = reliability(comparison_of(undecided, judgment, listed))
    assert whole is not None
    assert part is not None
    assert (part.overall, part.bins, part.labels) == (whole.overall, whole.bins, whole.labels)
    assert part.without == listed[300:].sum()


def test_without_probabilities_there_is_nothing_to_measure() -> None:
    assert reliability(comparison_of(np.full((5, 2), np.nan), np.ones((5, 2), bool))) is None


def test_tables_and_json_show_the_label_with_the_largest_error_first() -> None:
    random = np.random.default_rng(5)
    probability = random.random((600, 3))
    present = random.random(probability.shape) < probability
    present[:, 1] = random.random(600) < 0.1
    found = reliability(comparison_of(probability, present))
    assert found is not None
    (_, overall), (_, curve), (_, labels) = found.tables()
    assert labels[1][0][0] == "label 1"
    assert all(len(row) == len(columns) for columns, rows in (overall, curve, labels) for row in rows)
    value = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert value["overall"]["ece"] == round(found.overall.ece, 6)
    assert len(value["bins"]) == len(curve[1])
