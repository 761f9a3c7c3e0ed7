"""The best threshold of a label against scikit-learn's curves, and how far it is shrunk."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.thresholds.counts import Counts, above, count, grid_of
from tagllm_cli.evaluation.thresholds.fit import MIN_POSITIVES, between_variance, expit, fit, logit, nearest
from tagllm_cli.evaluation.thresholds.metric import Metric
from tests.evaluation.judged import comparison_of

ONE_FOLD = np.array([0])


def drawn(seed: int, images: int = 120, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities float32 and truth, [images, labels]; each label is off by another number of logits."""
    random = np.random.default_rng(seed)
    logits = random.normal(-1, 2, (images, labels))
    present = random.random(logits.shape) < expit(logits)
    return expit(logits + np.linspace(-2, 2, labels)).astype(np.float32), present


def counts_of(
    probability: np.ndarray, judgment: np.ndarray, listed: np.ndarray | None = None, folds: int = 1
) -> Counts:
    grid = grid_of(probability[np.isfinite(probability)], judgment.shape[1], 0.5)
    return count(comparison_of(probability, judgment, listed), np.arange(len(judgment)) % folds, grid)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_threshold_of_each_label_is_that_of_scikit_learns_curve(seed: int) -> None:
    probability, present = drawn(seed)
    counts = counts_of(probability, present)
    tp, fp = counts.above(ONE_FOLD)
    support = counts.support[0]
    for label in range(present.shape[1]):
        precision, recall, _ = precision_recall_curve(present[:, label], probability[:, label])
        reached = {}
        for metric in (Metric("f1"), Metric("precision", 0.8), Metric("recall", 0.9)):
            place = metric.best(tp, fp, support)[label]
            true, false = tp[label, place], fp[label, place]
            reached[metric.kind] = true / (true + false), true / support[label]
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
        ours = reached["f1"]
        assert 2 * ours[0] * ours[1] / sum(ours) == pytest.approx(f1.max())
        assert reached["precision"][1] == pytest.approx(recall[precision >= 0.8].max())
        assert reached["precision"][0] >= 0.8
        assert reached["recall"][0] == pytest.approx(precision[recall >= 0.9].max(), abs=0.02)
        assert reached["recall"][1] >= 0.9 - 1e-9


def test_the_common_threshold_has_the_best_mean_f1_of_all() -> None:
    probability, present = drawn(5)
    counts = counts_of(probability, present)
    tp, fp = counts.above(ONE_FOLD)
    place = Metric("f1").best_common(tp, fp, counts.support[0])

    def mean_f1(threshold: float) -> float:
        said = probability.astype(float) > threshold
        hits = (said & present).sum(axis=0)
        return float(np.mean(2 * hits / (said.sum(axis=0) + present.sum(axis=0))))

    assert mean_f1(counts.grid[place]) == pytest.approx(max(mean_f1(each) for each in counts.grid))


def test_counts_are_those_of_a_loop_with_partial_truth_and_unlisted_positives() -> None:
    random = np.random.default_rng(1)
    probability, present = drawn(1, 60, 3)
    probability[random.random(probability.shape) < 0.1] = np.nan
    judgment = np.where(random.random(present.shape) < 0.2, -1, present)
    listed = random.random(present.shape) < 0.7
    counts = counts_of(probability, judgment, listed, folds=3)
    for place in range(0, len(counts.grid), 7):
        for fold in range(3):
            tp, fp = counts.above(np.array([fold]))
            for label in range(3):
                rows = [row for row in range(60) if row % 3 == fold and listed[row, label]]
                said = [row for row in rows if probability[row, label] > counts.grid[place]]
                assert tp[label, place] == sum(judgment[row, label] == 1 for row in said)
                assert fp[label, place] == sum(judgment[row, label] == 0 for row in said)
    for fold in range(3):
        assert counts.support[fold].tolist() == (judgment[fold::3] == 1).sum(axis=0).tolist()


def test_a_coarse_grid_holds_what_must_be_in_it_and_decides_alike_in_float32() -> None:
    scores = np.random.default_rng(0).random(50_000).astype(np.float32)
    grid = grid_of(scores, 80, 0.5)
    assert len(grid) < 1100
    assert {0.0, 0.5, 1.0} <= set(grid.tolist())
    inner = grid[(grid > 0) & (grid < 1) & (grid != 0.5)]
    below = np.searchsorted(np.sort(scores.astype(np.float64)), inner)
    assert np.diff(below).max() < 200
    assert np.isin(inner, scores.astype(np.float64)).mean() < 0.05


def test_scores_next_to_each_other_are_told_apart_also_after_a_threshold_is_rounded() -> None:
    top = np.nextafter(np.float32(1), np.float32(0))
    scores = np.array([0.1, np.nextafter(np.float32(0.1), np.float32(1)), np.nextafter(top, np.float32(0)), top, 1])
    scores = scores.astype(np.float32)
    grid = grid_of(scores, 1, 0.4)
    assert {tuple(scores > threshold) for threshold in grid} == {tuple(np.arange(5) >= first) for first in range(6)}
    assert grid.tolist() == grid.astype(np.float32).tolist()


def test_where_a_precision_is_out_of_reach_nothing_is_better_than_only_wrong_ones() -> None:
    tp, fp, support = np.array([[0, 0, 0]]), np.array([[9, 4, 0]]), np.array([6])
    assert Metric("precision", 0.9).best(tp, fp, support).tolist() == [2]
    tp, fp = np.array([[5, 3, 1, 0]]), np.array([[20, 6, 1, 0]])
    assert Metric("precision", 0.9).best(tp, fp, support).tolist() == [2]


def test_the_variance_between_labels_is_recovered() -> None:
    random = np.random.default_rng(2)
    variances = random.uniform(0.05, 2, 4000)
    distances = random.normal(0, 0.7, 4000) + random.normal(0, np.sqrt(variances))
    assert between_variance(distances, variances) == pytest.approx(0.49, rel=0.15)
    assert between_variance(random.normal(0, 0.5 * np.sqrt(variances)), variances) == 0


def test_a_label_with_few_examples_is_shrunk_further() -> None:
    random = np.random.default_rng(3)
    logits = random.normal(-1, 2, (3000, 6))
    present = random.random(logits.shape) < expit(logits)
    shifted = expit(logits + np.array([0.6, -0.6, 0.6, -0.6, 0.6, 0.6])).astype(np.float32)
    judgment = present.astype(int)
    judgment[60:, 5] = -1
    counts = counts_of(shifted, judgment)
    found = fit(counts, ONE_FOLD, Metric("f1"), np.random.default_rng(0), 100)
    assert found.weight[5] < 0.8 < found.weight[:5].min()
    widths = logit(found.high) - logit(found.low)
    assert widths[5] > widths[:5].max()
    own = counts.grid[found.own]
    assert ((found.low <= own + 1e-9) & (own <= found.high + 1e-9)).all()


def test_a_label_with_too_few_positives_has_the_common_threshold() -> None:
    probability, present = drawn(4, 200)
    judgment = present.astype(int)
    judgment[np.flatnonzero(present[:, 2])[MIN_POSITIVES - 1 :], 2] = -1
    found = fit(counts_of(probability, judgment), ONE_FOLD, Metric("f1"), np.random.default_rng(0))
    assert (found.own[2], found.weight[2]) == (found.common, 0)


def test_places_are_the_nearest_and_logits_invert() -> None:
    values = np.array([-3.0, 0.0, 1.0, 5.0])
    assert nearest(values, np.array([-9, -1.6, -1.4, 0.4, 0.6, 99])).tolist() == [0, 0, 1, 1, 2, 3]
    some = np.array([0.0, 0.2, 0.5, 1.0])
    assert expit(logit(some)) == pytest.approx(some, abs=1e-6)
    assert above(np.array([5, 1, 2])).tolist() == [3, 2]


@pytest.mark.parametrize("text", ["f2", "f1=0.5", "precision", "precision=0", "recall=1.2", "recall=x", "recall=nan"])
def test_other_metrics_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--metric takes f1, precision=P or recall=R"):
        Metric.parse(text)


def test_metrics_are_read_as_they_are_written() -> None:
    for text in ("f1", "precision=0.9", "recall=0.95"):
        assert str(Metric.parse(text)) == text
