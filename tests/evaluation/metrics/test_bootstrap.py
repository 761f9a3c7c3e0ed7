"""The bootstrap over images: against scipy, by coverage in a simulation, and the same draws for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import average_precision_score, hamming_loss

from tagllm_cli.evaluation.entries import Comparison, compare, entries_of
from tagllm_cli.evaluation.metrics import bootstrap as own
from tagllm_cli.evaluation.metrics.bootstrap import draw, resample
from tagllm_cli.evaluation.metrics.columns import columns_of
from tagllm_cli.evaluation.metrics.counts import count
from tagllm_cli.evaluation.metrics.figures import headline
from tests.evaluation.problem import Problem, vocabulary


def compared(problem: Problem) -> Comparison:
    names = vocabulary(*problem.names)
    return compare(entries_of(problem.rows(), names, "labels"), names, problem.truth())


def measures(problem: Problem) -> dict[str, Callable[[np.ndarray], float]]:
    true, said = problem.true, problem.said & (problem.scores > 0)

    def mean_ap(images: np.ndarray) -> float:
        there = true[images].any(axis=0)
        return float(average_precision_score(true[images][:, there], problem.scores[images][:, there], average="macro"))

    return {
        "of1": lambda images: float(2 * (true & said)[images].sum() / (true[images].sum() + said[images].sum())),
        "hamming": lambda images: hamming_loss(true[images], said[images]),
        "exact_match": lambda images: float((true[images] == said[images]).all(axis=1).mean()),
        "mean_difference": lambda images: float((said[images].sum() - true[images].sum()) / len(images)),
        "map": mean_ap,
    }


def test_a_round_measures_the_images_that_it_drew() -> None:
    problem = Problem(4, images=60, labels=6)
    found = resample(columns_of(compared(problem)), rounds=5, seed=3).figures
    for number in range(5):
        images = np.repeat(np.arange(60), draw(60, 3, number))
        for name, measure in measures(problem).items():
            assert found[name][number] == pytest.approx(measure(images)), name


def test_intervals_are_those_of_scipy() -> None:
    problem = Problem(6, images=80, labels=5)
    sample = resample(columns_of(compared(problem)), rounds=3000, seed=1)
    intervals = sample.intervals(problem.names, seed=1)
    for name in ("of1", "hamming", "exact_match", "mean_difference"):
        measure = measures(problem)[name]
        theirs = bootstrap(
            (np.arange(80),), lambda drawn, measure=measure: measure(drawn.astype(int)), vectorized=False,
            n_resamples=600, method="percentile", rng=np.random.default_rng(2),
        ).confidence_interval  # fmt: skip
        width = theirs.high - theirs.low
        ours = intervals.figures[name]
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.15 * width), name


def test_draws_depend_on_the_seed_and_the_round_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = columns_of(compared(Problem(2, images=50)))
    whole = resample(columns, 30, seed=5)
    monkeypatch.setattr(own, "_WEIGHTS", 1)  # one round at a time
    for rounds in (30, 20):
        again = resample(columns, rounds, seed=5).figures
        assert again["of1"] == pytest.approx(whole.figures["of1"][:rounds], abs=1e-12)
        assert again["map"] == pytest.approx(whole.figures["map"][:rounds], abs=1e-12)
    assert not np.array_equal(resample(columns, 30, seed=6).figures["of1"], whole.figures["of1"])
    assert draw(50, 5, 7).sum() == 50


def test_weights_that_are_all_1_are_the_comparison_itself() -> None:
    columns = columns_of(compared(Problem(9)))
    one, twice = (headline(count(columns, np.full((1, columns.images), weight, np.uint8))) for weight in (1, 2))
    assert {name: value[0] for name, value in one.items()} == pytest.approx({name: v[0] for name, v in twice.items()})


def test_intervals_hold_the_figures_of_the_population_about_as_often_as_they_say() -> None:
    population = compared(Problem(11, images=6000, labels=6))
    random = np.random.default_rng(12)
    whole = headline(count(columns_of(population), np.ones((1, 6000), np.uint8)))
    names, trials = ("op", "or", "of1", "cf1", "map", "hamming"), 120
    covered = dict.fromkeys(names, 0)
    for trial in range(trials):
        images = random.choice(6000, 250, replace=False)
        sample = columns_of(population.restricted(images, np.arange(6)))
        found = resample(sample, 150, seed=trial).intervals(population.entries.names, trial).figures
        for name in names:
            covered[name] += bool(found[name].low <= whole[name][0] <= found[name].high)
    # 95% of 120 are 114, with a standard deviation of 2.4. The bootstrap is a little too sure of few images.
    assert min(covered.values()) >= 104, covered
    assert 0.92 <= sum(covered.values()) / trials / len(names) <= 0.975, covered
