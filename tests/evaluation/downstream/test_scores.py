"""mAP on resampled images is scikit-learn's with weights; intervals and the share of the gap cover what they should."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tagllm_cli.evaluation.downstream.gap import Gap, fieller
from tagllm_cli.evaluation.downstream.label_sets import CERTAIN, UNJUDGED
from tagllm_cli.evaluation.downstream.scores import Draws, Figures, figures, mean_ap, resampled_maps, with_interval


def _problem(seed: int, images: int = 60, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    scores = np.round(random.random((images, labels)), 1).astype(np.float32)  # many ties
    true = np.where(random.random((images, labels)) < 0.3, CERTAIN, 0).astype(np.uint8)
    true[random.random((images, labels)) < 0.2] = UNJUDGED
    return scores, true


@pytest.mark.parametrize("seed", range(3))
def test_resampled_map_is_that_of_scikit_learn_with_weights(seed: int) -> None:
    scores, true = _problem(seed)
    draws = Draws.of(len(scores), seeds=1, rounds=5, seed=seed)
    expected = []
    for weights in draws.images:
        of_labels = []
        for label in range(true.shape[1]):
            judged = true[:, label] != UNJUDGED
            present, weight = true[judged, label] == CERTAIN, weights[judged]
            if (weight * present).any():
                of_labels.append(average_precision_score(present, scores[judged, label], sample_weight=weight))
        expected.append(np.mean(of_labels))
    assert resampled_maps(scores, true, draws.images) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_images_drawn_once_each_have_the_map_of_torchmetrics(seed: int) -> None:
    scores, true = _problem(seed)
    true[:, 1] = 0  # a label without a positive counts in nothing
    found = resampled_maps(scores, true, np.ones((1, len(scores)), np.uint16))
    assert found[0] == pytest.approx(mean_ap(scores, true), abs=1e-6)


def test_an_interval_lies_around_its_figure() -> None:
    samples = np.random.default_rng(0).normal(0.6, 0.1, 100_000)
    found = with_interval(0.5, samples)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.304, 0.696), abs=0.005)


def _figures(maps: np.ndarray, resampled: np.ndarray) -> Figures:
    return Figures(maps, resampled)


def test_intervals_hold_the_noise_of_seeds_and_of_images() -> None:
    # mAP of seed s on resample r is 0.5 + a_s + b_r: the interval must be as wide as both together.
    random = np.random.default_rng(3)
    draws = Draws.of(10, seeds=40, rounds=4000)
    of_seeds, of_images = random.normal(0, 0.06, 40), random.normal(0, 0.02, 4000)
    found = _figures(0.5 + of_seeds, 0.5 + of_seeds[:, None] + of_images).interval(draws)
    deviation = np.hypot(of_seeds.std() / np.sqrt(40), 0.02)
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.07)


def test_differences_are_paired_over_seeds_and_images() -> None:
    # Both label sets go up and down together: their difference knows no noise.
    random = np.random.default_rng(4)
    draws = Draws.of(10, seeds=5, rounds=200)
    common = 0.4 + random.normal(0, 0.1, (5, 200))
    found = {
        name: _figures(common[:, 0] + more, common + more)
        for name, more in {"plain": 0.0, "ours": 0.06, "truth": 0.1}.items()
    }
    gap = Gap.of("plain", found, "ours", "truth", draws)
    assert (gap.gap.low, gap.gap.high) == pytest.approx((0.1, 0.1))
    assert gap.closed is not None
    assert (gap.closed.value, gap.closed.low, gap.closed.high) == pytest.approx((0.6, 0.6, 0.6))


def test_rounds_without_a_positive_make_no_figure_nan() -> None:
    true = np.zeros((20, 1), np.uint8)
    true[3] = CERTAIN
    draws = Draws.of(20, seeds=2)
    found = {
        name: figures([_problem(seed, 20, 1)[0] for seed in (n, n + 9)], true, draws) for n, name in enumerate("pot")
    }
    assert 0.2 < np.isnan(found["p"].resampled).mean() < 0.5
    interval = found["p"].interval(draws)
    assert interval.low < interval.value < interval.high
    json.dumps(Gap.of("p", found, "o", "t", draws).to_json(), allow_nan=False)


def test_a_gap_within_noise_is_not_measurable() -> None:
    random = np.random.default_rng(5)
    draws = Draws.of(10, seeds=5, rounds=200)
    noise = {name: random.normal(0.4, 0.05, (5, 200)) for name in ("plain", "ours", "truth")}
    found = {name: _figures(each.mean(1), each) for name, each in noise.items()}
    assert Gap.of("plain", found, "ours", "truth", draws).closed is None


@pytest.mark.parametrize("noise", [1.0, 3.5])
def test_the_interval_of_the_share_covers_it_in_19_of_20_worlds(noise: float) -> None:
    """Worlds of 200 images whose gains have the means 0.6 and 1; at the larger noise a gap is barely above zero."""
    share, images, rounds, covered, measured = 0.6, 200, 400, 0, 0
    random = np.random.default_rng(6)
    weights = random.multinomial(images, np.full(images, 1 / images), rounds) / images
    for _ in range(400):
        common = random.normal(0, noise, images)
        above = share + common + random.normal(0, noise, images)
        below = 1 + common + random.normal(0, noise, images)
        samples = weights @ below
        if np.percentile(samples, 2.5) > 0:
            low, high = fieller(weights @ above, samples)
            measured += 1
            covered += low <= share <= high
    assert measured > 200
    assert 0.92 <= covered / measured <= 0.98
