"""The loss: equal to a formula in NumPy, blind to pairs that are not judged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tagllm_cli.evaluation.downstream.label_sets import CERTAIN, UNJUDGED
from tagllm_cli.evaluation.downstream.train import masked_loss


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_the_mean_cross_entropy_of_judged_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (40, 7))
    targets = random.integers(0, CERTAIN + 1, (40, 7)).astype(np.uint8)
    targets[random.random((40, 7)) < 0.3] = UNJUDGED
    judged, wanted = targets != UNJUDGED, targets / CERTAIN
    p = 1 / (1 + np.exp(-logits))
    expected = -(wanted * np.log(p) + (1 - wanted) * np.log(1 - p))[judged].mean()
    found = masked_loss(torch.tensor(logits, dtype=torch.float32), torch.from_numpy(targets))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_pairs_that_are_not_judged_pull_at_nothing() -> None:
    logits = torch.zeros(2, 2, requires_grad=True)
    masked_loss(logits, torch.tensor([[CERTAIN, UNJUDGED], [UNJUDGED, 0]], dtype=torch.uint8)).backward()
    assert logits.grad is not None
    assert (logits.grad != 0).tolist() == [[True, False], [False, True]]


def test_without_a_judged_pair_the_loss_is_zero() -> None:
    found = masked_loss(torch.ones(3, 2), torch.full((3, 2), UNJUDGED, dtype=torch.uint8))
    assert float(found) == 0.0
