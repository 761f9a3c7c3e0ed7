"""Average precision: equal to scikit-learn and to torchmetrics, loaded only where scores rank, and missed in words."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torchmetrics.functional.classification import multilabel_average_precision

from tagllm_cli.evaluation.metrics import evaluate_rows
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
    assert found.map == pytest.approx(average_precision_score(true, scores, average="macro"), abs=1e-5)
    theirs = multilabel_average_precision(torch.tensor(scores), torch.tensor(true).long(), num_labels=true.shape[1])
    assert found.map == pytest.approx(float(theirs), abs=1e-5)


def test_without_torchmetrics_every_other_figure_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(3)
    complete = evaluate_rows(problem.rows(), vocabulary(*problem.names), problem.truth())
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.classification", None)
    found = evaluate_rows(problem.rows(), vocabulary(*problem.names), problem.truth())
    assert (found.map, {label.ap for label in found.labels}) == (None, {None})
    assert [label.f1 for label in found.labels] == [label.f1 for label in complete.labels]
    assert (found.of1, found.cf1, found.to_json()["map"]) == (complete.of1, complete.cf1, None)


def test_scores_that_are_all_the_same_need_no_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.classification", None)
    entries = [LabelEntry(name, Decision.YES, score=0.9) for name in ("cat", "dog")]
    rows = [row("1", *entries), row("2", entries[0]), row("3")]
    found = evaluate_rows(rows, vocabulary("cat", "dog"), truth({"1": ["cat"], "2": [], "3": ["dog"]}, "cat", "dog"))
    # Cat: listed twice, once rightly. Dog: listed once, wrongly; then all three images at score 0.
    assert [label.ap for label in found.labels] == [0.5, pytest.approx(1 / 3)]


def test_torch_is_not_loaded_where_no_score_ranks() -> None:
    code = (
        "import sys; from tests.evaluation.problem import *; entry = LabelEntry('cat', Decision.YES, score=0.9); "
        "found = evaluate_rows([row('1', entry), row('2')], vocabulary('cat'), truth({'1': ['cat'], '2': []}, 'cat')); "
        "assert found.map == 1; print(sorted({'torch', 'torchmetrics', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
