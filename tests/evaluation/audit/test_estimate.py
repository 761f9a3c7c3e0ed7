"""Estimates against the truth: unbiased, with intervals that hold it as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import precision_recall_fscore_support

from tagllm_cli.evaluation.audit.estimate import NOTHING, estimate_all, estimate_labels, points
from tagllm_cli.evaluation.audit.shares import ABSENT, LISTED, PREDICTED, Answered
from tests.bench.audit_coverage import FIGURES, Audits, covered, holds, width
from tests.evaluation.audit.world import world


@pytest.fixture(scope="module")
def audits() -> Audits:
    """4,000 images and 10 labels, the commonest 80 times as frequent as the rarest."""
    return Audits(world(4, images=4_000, labels=10, often=0.4, rarely=0.005))


def test_answers_about_everything_give_the_figures_themselves() -> None:
    audits = Audits(world(9, images=300, labels=6, often=0.5, rarely=0.05))
    answered, true, said = audits.answered(10**6, 0), audits.world.true, audits.world.said
    found = estimate_all(answered, audits.sizes.sum(axis=0))
    overall = precision_recall_fscore_support(true, said, average="micro")[:3]
    assert [found[name].value for name in ("precision", "recall", "f1")] == pytest.approx(overall)
    assert found["prevalence"].value == pytest.approx(true.mean())
    assert {(each.low, each.high, each.more_answers) for each in found.values()} == {
        (each.value, each.value, 0) for each in found.values()
    }
    labels, means = estimate_labels(answered, audits.sizes, audits.world.entries.names)
    precision, recall, _, _ = precision_recall_fscore_support(true, said, average=None)
    assert [each.precision.value for each in labels] == pytest.approx(precision)
    assert [each.recall.value for each in labels] == pytest.approx(recall)
    assert [each.prevalence.value for each in labels] == pytest.approx(true.mean(axis=0))
    cp, cr = precision.mean(), recall.mean()
    assert [means[name].value for name in ("cp", "cr", "cf1")] == pytest.approx([cp, cr, 2 * cp * cr / (cp + cr)])


@pytest.mark.parametrize("first", [None, 400])
def test_figures_are_right_on_average_also_where_the_last_pairs_are_not_answered(
    audits: Audits, first: int | None
) -> None:
    true, totals = audits.world.figures, audits.sizes.sum(axis=0)
    rounds = [points(audits.answered(800, seed, first), totals) for seed in range(100)]
    for name in FIGURES:
        found = np.array([each[name] for each in rounds])
        error = found.std() / len(found) ** 0.5
        # Ratios have a bias of the order of 1 / answers, far below the spread.
        assert abs(found.mean() - true[name]) < 3 * error + 0.15 * found.std()


@pytest.mark.slow
def test_95_percent_intervals_hold_the_truth_in_93_to_97_percent_of_audits(audits: Audits) -> None:
    found = covered(audits, 1000, rounds=300)
    # Of 300 audits, 0.013 is one standard error of the share.
    assert all(0.93 - 0.02 <= share <= 0.97 + 0.02 for share in found.values()), found
    assert 0.93 <= np.mean(list(found.values())) <= 0.98


@pytest.mark.parametrize(("size", "first"), [(2400, 600), (1500, 500)])
def test_intervals_hold_the_truth_where_most_pairs_are_drawn_and_not_all_answered(size: int, first: int) -> None:
    audits = Audits(world(108, images=300, labels=8, often=0.4, rarely=0.05))
    found = covered(audits, size, 40, first)
    assert all(share >= 0.85 for share in found.values()), found


def test_one_group_has_the_interval_of_a_binomial() -> None:
    present = np.arange(200) < 30
    answered = Answered(np.zeros(200, int), np.zeros(200, int), present, np.full(200, 1e-6))
    found = estimate_all(answered, np.array([200_000_000, 0, 0]))["precision"]
    low, high = stats.binomtest(30, 200).proportion_ci(method="wilson")
    assert (found.value, found.low, found.high) == pytest.approx((0.15, low, high), abs=0.006)


def test_nothing_found_is_not_nothing_there() -> None:
    groups = np.repeat([PREDICTED, ABSENT], 100)
    answered = Answered(np.zeros(200, int), groups, groups == PREDICTED, np.full(200, 1e-4))
    found = estimate_all(answered, np.array([1_000_000, 0, 1_000_000]))
    assert found["recall"].value == 1
    # Exact: 100 absent pairs without any present one allow a share of up to 3.6%.
    most = stats.binomtest(0, 100).proportion_ci(method="exact").high
    assert 1 / (1 + most) < 1 - width(found["recall"]) < 0.99
    assert width(found["precision"]) > 0


def test_where_no_answer_is_yes_nobody_knows_how_many_would_halve_the_interval_of_recall() -> None:
    answered = Answered(np.zeros(40, int), np.repeat([PREDICTED, ABSENT], 20), np.zeros(40, bool), np.full(40, 0.1))
    found = estimate_all(answered, np.array([200, 0, 200]))["recall"]
    assert (found.value, found.more_answers) == (0, None)
    assert width(found) > 0.5


def test_unequal_weights_count_as_fewer_answers() -> None:
    present = np.tile([True, False, False, False], 50)
    even = Answered(np.zeros(200, int), np.zeros(200, int), present, np.full(200, 0.001))
    uneven = Answered(np.zeros(200, int), np.zeros(200, int), present, np.tile(np.repeat([0.001, 0.01], 4), 25))
    sizes = np.array([10**6, 0, 0])
    narrow, wide = (width(estimate_all(answered, sizes)["precision"]) for answered in (even, uneven))
    assert wide > 1.2 * narrow


@pytest.mark.slow
def test_so_many_more_answers_halve_the_interval(audits: Audits) -> None:
    totals = audits.sizes.sum(axis=0)
    before = [estimate_all(audits.answered(300, seed), totals) for seed in range(40)]
    for name in FIGURES:
        more = round(np.mean([each[name].more_answers or 0 for each in before]))
        after = [estimate_all(audits.answered(300 + more, seed), totals) for seed in range(20)]
        halves = np.mean([width(each[name]) for each in after]) / np.mean([width(each[name]) for each in before])
        assert halves == pytest.approx(0.5, abs=0.08)


def test_a_figure_without_answers_is_missing_not_zero() -> None:
    sizes = np.array([100, 50, 1000])
    none = Answered(*(np.empty(0, kind) for kind in (int, int, bool, float)))
    assert set(estimate_all(none, sizes).values()) == {NOTHING}
    said = Answered(np.zeros(9, int), np.full(9, PREDICTED), np.ones(9, bool), np.full(9, 0.1))
    found = estimate_all(said, sizes)
    assert (found["precision"].value, found["recall"]) == (1, NOTHING)
    absent = Answered(np.zeros(9, int), np.full(9, ABSENT), np.zeros(9, bool), np.full(9, 0.1))
    assert set(estimate_all(absent, sizes).values()) == {NOTHING}


def test_a_table_that_predicts_nothing_has_no_precision_and_recall_0() -> None:
    groups = np.repeat([LISTED, ABSENT], 20)
    answered = Answered(np.zeros(40, int), groups, groups == LISTED, np.full(40, 0.1))
    found = estimate_all(answered, np.array([0, 200, 200]))
    assert (found["precision"], found["recall"].value, found["f1"].value) == (NOTHING, 0, 0)
    assert found["prevalence"].value == pytest.approx(0.5)


def test_a_label_with_few_answers_has_no_recall_and_the_means_are_missing(audits: Audits) -> None:
    labels, means = estimate_labels(audits.answered(40, 0), audits.sizes, audits.world.entries.names)
    assert NOTHING in [each.recall for each in labels]
    assert (means["cr"], means["cf1"]) == (NOTHING, NOTHING)
    labels, means = estimate_labels(audits.answered(6000, 0), audits.sizes, audits.world.entries.names)
    true, said = audits.world.true, audits.world.said
    precision, recall, _, _ = precision_recall_fscore_support(true, said, average="macro")
    assert holds(means["cp"], precision)
    assert holds(means["cr"], recall)


def test_the_prevalence_of_single_labels_is_in_its_interval(audits: Audits) -> None:
    held = []
    for seed in range(12):
        labels, _ = estimate_labels(audits.answered(2000, seed), audits.sizes, audits.world.entries.names)
        for each, share in zip(labels, audits.world.true.mean(axis=0), strict=True):
            if each.prevalence is not NOTHING:
                held.append(holds(each.prevalence, share))
    assert len(held) > 100
    assert np.mean(held) >= 0.93
