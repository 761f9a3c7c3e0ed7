"""Average precision: equal to scikit-learn and to torchmetrics, weighted and not; neither is loaded."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torchmetrics.functional.classification import multilabel_average_precision

from tagllm_cli.evaluation.entries import compare, entries_of
from tagllm_cli.evaluation.metrics import evaluate_rows
from tagllm_cli.evaluation.metrics.columns import columns_of
from tagllm_cli.evaluation.metrics.counts import count
from tagllm_cli.records import Decision, LabelEntry
from tests.evaluation.problem import Problem, row, truth, vocabulary


@pytest.mark.parametrize("values", [(0.5,), (0.5, 1.0), (0.1, 0.2, 0.3, 0.7, 0.9)])
@pytest.mark.parametrize("seed", range(3))
def test_map_is_that_of_scikit_learn_and_of_torchmetrics(seed: int, values: tuple[float, ...]) -> None:
    problem = Problem(seed)
    random = np.random.default_rng(seed)
    listed = problem.scores > 0
    problem.scores = np.where(listed, random.choice(values, listed.shape), 0).astype(np.float32)
    found = evaluate_rows(problem.rows(), vocabulary(*problem.names), problem.truth())
    supported = problem.true.any(axis=0)
    true, scores = problem.true[:, supported], problem.scores[:, supported]
    assert found.map == pytest.approx(average_precision_score(true, scores, average="macro"), abs=1e-9)
    theirs = multilabel_average_precision(torch.tensor(scores), torch.tensor(true).long(), num_labels=true.shape[1])
    assert found.map == pytest.approx(float(theirs), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_weights_count_images_as_scikit_learn_does(seed: int) -> None:
    problem = Problem(seed)
    table = entries_of(problem.rows(), vocabulary(*problem.names), "labels")
    columns = columns_of(compare(table, vocabulary(*problem.names), problem.truth()))
    weights = np.random.default_rng(seed).poisson(1, (6, len(problem.true))).astype(np.uint8)
    weights[5] = 0
    weights[5, 3] = 2  # an image alone
    found = count(columns, weights)
    for number, weight in enumerate(weights):
        for label, present in enumerate(problem.true.T):
            expected = np.nan
            if present @ weight:
                expected = average_precision_score(present, problem.scores[:, label], sample_weight=weight)
            assert found.ap[number, label] == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_scores_that_are_all_the_same_have_one_operating_point_and_everything() -> None:
    entries = [LabelEntry(name, Decision.YES, score=0.9) for name in ("cat", "dog")]
    rows = [row("1", *entries), row("2", entries[0]), row("3")]
    found = evaluate_rows(rows, vocabulary("cat", "dog"), truth({"1": ["cat"], "2": [], "3": ["dog"]}, "cat", "dog"))
    # Cat: listed twice, once rightly. Dog: listed once, wrongly; then all three images at score 0.
    assert [label.ap for label in found.labels] == [0.5, pytest.approx(1 / 3)]


def test_torch_is_not_loaded() -> None:
    code = (
        "import sys; from tests.evaluation.problem import *; found = evaluated(); "
        "assert found.map > 0; print(sorted({'torch', 'torchmetrics', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
