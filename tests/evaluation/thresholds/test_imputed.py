"""How often a label is there at a probability, from answers about doubtful pairs only."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from tagllm_cli.evaluation.thresholds.fit import expit, logit
from tagllm_cli.evaluation.thresholds.imputed import recalibrated


def test_without_answers_the_models_probability_counts() -> None:
    probability = np.array([0.1, 0.5, 0.9])
    none = np.zeros(3, bool)
    found = recalibrated(logit(probability), np.arange(3), none, none, 3)
    np.testing.assert_allclose(found, probability)


def test_answers_about_doubtful_pairs_tell_about_all() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(0, 3, 40_000), random.integers(0, 4, 40_000)
    offset = np.array([-1.5, 0.0, 0.5, 1.0])
    true = expit(0.7 * logits + offset[labels])
    present = random.random(len(true)) < true
    found = recalibrated(logits, labels, np.abs(logits) < 1.5, present, 4)
    assert np.abs(found - true).mean() < 0.02


def test_it_is_a_penalized_logistic_regression() -> None:
    random = np.random.default_rng(1)
    logits, labels = random.normal(0, 2, 60), random.integers(0, 3, 60)
    present = random.random(60) < expit(logits - 1)
    found = recalibrated(logits, labels, np.ones(60, bool), present, 3)
    # A ridge on the distance of the slope from 1, with its deviation 1/2: an offset, and a rescaled column.
    columns = np.column_stack([np.ones(60), logits / 2, *(labels == label for label in range(3))])

    def loss(beta: np.ndarray) -> float:
        z = columns @ beta + logits
        return float(np.sum(np.logaddexp(0, z) - present * z) + beta @ beta / 2)

    best = minimize(loss, np.zeros(5), tol=1e-12).x
    np.testing.assert_allclose(found, expit(columns @ best + logits), atol=1e-4)
