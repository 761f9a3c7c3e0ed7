"""Held-out figures are honest; what is no better is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tagllm_cli.evaluation.thresholds import counts as counts_of_thresholds
from tagllm_cli.evaluation.thresholds.counts import count, grid_of
from tagllm_cli.evaluation.thresholds.crossfit import KEPT, CrossFitted, cross_fit
from tagllm_cli.evaluation.thresholds.figures import held_out, is_predicted
from tagllm_cli.evaluation.thresholds.fit import expit, logit
from tagllm_cli.evaluation.thresholds.metric import Metric
from tests.evaluation.judged import comparison_of

F1 = Metric("f1")
FOLDS = 3


def drawn(seed: int, images: int, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and truth: at a shift of 0, a threshold near 0.5 is the best for F1."""
    random = np.random.default_rng(seed)
    present = random.random((images, len(shifts))) < 0.3
    logits = np.where(present, 1.6, -2.6) + random.normal(0, 1.6, present.shape) + shifts
    return expit(logits).astype(np.float32), present


def fitted(probability: np.ndarray, present: np.ndarray, seed: int = 0) -> tuple[CrossFitted, np.ndarray, float, float]:
    comparison = comparison_of(probability, present)
    folds = np.random.default_rng(seed).permutation(len(present)) % FOLDS
    grid = grid_of(probability.ravel(), present.shape[1], 0.5)
    found = cross_fit(count(comparison, folds, grid), F1, seed)
    held = held_out(comparison, is_predicted(comparison, grid, found.held_out, folds), seed)
    return found, grid, held.before["mean F1"].value, held.after["mean F1"].value


def mean_f1(said: np.ndarray, present: np.ndarray) -> float:
    return float(np.mean(2 * (said & present).sum(axis=0) / np.maximum(said.sum(axis=0) + present.sum(axis=0), 1)))


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of fewer thresholds: faster, and close enough."""
    monkeypatch.setattr(counts_of_thresholds, "GRID", 128)


def test_gains_that_are_chance_are_not_reported_and_mostly_refused() -> None:
    shifts = np.zeros(5)
    gains, in_sample, kept = [], [], 0
    for seed in range(12):
        probability, present = drawn(seed, 70, shifts)
        found, grid, before, after = fitted(probability, present, seed)
        gains.append(after - before)
        best = [max(mean_f1(probability[:, [k]] > t, present[:, [k]]) for t in grid) for k in range(present.shape[1])]
        in_sample.append(float(np.mean(best)) - before)
        kept += int((found.chosen.labels == KEPT).sum())
    assert np.mean(in_sample) > 0.03
    assert np.mean(gains) < 0.005
    assert kept > 12 * 5 / 3


def test_held_out_figures_are_what_new_images_show() -> None:
    shifts = np.array([0.0, 2.0, -2.0, 1.0, -1.0, 2.0])
    fresh, truth = drawn(999, 20_000, shifts)
    differences = []
    for seed in range(8):
        probability, present = drawn(seed, 240, shifts)
        found, grid, before, after = fitted(probability, present, seed)
        assert after > before + 0.05
        new = [mean_f1(fresh > grid[np.where(each == KEPT, np.searchsorted(grid, 0.5), each)], truth)
               for each in found.held_out]  # fmt: skip
        differences.append(after - float(np.mean(new)))
    assert np.mean(differences) == pytest.approx(0, abs=0.015)


def test_thresholds_follow_the_shifts_of_their_labels() -> None:
    shifts = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    found, grid, *_ = fitted(*drawn(0, 3000, shifts))
    own = logit(grid[np.where(found.chosen.labels == KEPT, np.searchsorted(grid, 0.5), found.chosen.labels)])
    assert own == pytest.approx(shifts - 0.15, abs=0.45)  # where the posterior is half of the best F1
    assert found.chosen.reasons.count("") >= 4


def test_the_same_seed_gives_the_same_thresholds() -> None:
    one, two = (fitted(*drawn(3, 150, np.array([0.0, 2.0])))[0] for _ in range(2))
    assert one.chosen.labels.tolist() == two.chosen.labels.tolist()
    assert one.held_out.tolist() == two.held_out.tolist()


def test_intervals_are_those_of_resampled_images() -> None:
    probability, present = drawn(1, 300, np.array([0.0, 1.0, 2.0]))
    comparison = comparison_of(probability, present)
    after = comparison.entries.probabilities > 0.7
    held = held_out(comparison, after)
    said = probability > 0.7
    random = np.random.default_rng(0)
    drawn_f1, drawn_gain = [], []
    for _ in range(800):
        rows = random.integers(0, 300, 300)
        drawn_f1.append(mean_f1(said[rows], present[rows]))
        drawn_gain.append(drawn_f1[-1] - mean_f1(probability[rows] > 0.5, present[rows]))
    for figure, values in ((held.after["mean F1"], drawn_f1), (held.gain["mean F1"], drawn_gain)):
        low, high = np.quantile(values, [0.025, 0.975])
        assert (figure.low, figure.high) == pytest.approx((low, high), abs=0.2 * (high - low))
    assert held.after["mean F1"].value == pytest.approx(mean_f1(said, present))


def test_positives_of_a_single_fold_change_nothing() -> None:
    present = np.zeros((30, 2), bool)
    present[0, 0] = True
    probability = np.random.default_rng(0).random(present.shape).astype(np.float32)
    grid = grid_of(probability, 2, 0.5)
    counts = count(comparison_of(probability, present), np.arange(30) % 3, grid)
    for metric in (Metric("f1"), Metric("precision", 0.9), Metric("recall", 0.9)):
        found = cross_fit(counts, metric, 0, np.array([1.0, -1.0]))
        assert set(found.chosen.reasons) == {"fewer than 5 positives"}
        assert found.chosen.with_offsets is False
