"""One classifier: trained on one label set with one seed, and asked about the test images after every epoch.

The loss is the binary cross-entropy over the pairs of image and label that are judged,

    sum over judged (i, l) of -(t log p + (1 - t) log(1 - p)) / number of judged pairs,

with targets t in [0, 1]: hard labels are 0 and 1, soft ones probabilities. AdamW under a one-cycle learning rate (Smith
and Topin, arXiv 1708.07120). Fine-tuning sees images mirrored and moved at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tagllm_cli.evaluation.downstream.inputs import Inputs
from tagllm_cli.evaluation.downstream.label_sets import CERTAIN, UNJUDGED
from tagllm_cli.evaluation.entries import Array

if TYPE_CHECKING:
    import torch

_FEATURE_BATCH, _PIXEL_BATCH, _TEST_BATCH = 256, 64, 256
_HEAD_RATE, _SCRATCH_RATE, _PRETRAINED_RATE = 3e-3, 4e-3, 1e-4
_WEIGHT_DECAY = 0.01
_SHIFT = 8  # images move by up to this part of their side
PATIENCE = 5  # epochs without a smaller loss on the validation images


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a classifier is made: `backbone` makes what is trained under the head, None: the inputs are features."""

    epochs: int
    backbone: Callable[[], torch.nn.Module] | None = None
    is_pretrained: bool = False
    early_stopping: bool = False


@dataclass(frozen=True, slots=True)
class Split:
    """The stored images and the places of the images to train on, to validate on and to test on."""

    inputs: Inputs
    training: Array
    validation: Array
    test: Array


@dataclass(frozen=True, slots=True)
class Fitted:
    """A classifier's `scores` of the test images, float32 [test images, labels] in [0, 1].

    `curve` is what was measured after each epoch; `kept` is the epoch, from 0, whose scores these are.
    """

    scores: Array
    curve: tuple[float, ...]
    kept: int


def fit(split: Split, targets: Array, recipe: Recipe, seed: int, measure: Callable[[Array], float]) -> Fitted:
    """Train on `targets`, uint8 [images, labels] as in `LabelSet`; `measure` is given the scores after each epoch.

    What it returns decides nothing. The same arguments give the same scores on the same machine (on a CPU with the same
    number of threads).
    """
    import torch

    with _threads(recipe), torch.random.fork_rng():
        torch.manual_seed(seed)
        trainer = _Trainer(split, targets, recipe, torch.Generator().manual_seed(seed))
        curve: list[float] = []
        kept, least = 0, math.inf
        for epoch in range(recipe.epochs):
            trainer.epoch()
            scores = trainer.scores(split.test)
            curve.append(measure(scores))
            loss = trainer.loss(split.validation) if recipe.early_stopping else -epoch
            if loss < least or not epoch:
                kept, least, best = epoch, loss, scores
            if epoch - kept == PATIENCE:
                break
    return Fitted(best, tuple(curve), kept)


def masked_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of logits float32 [n, labels] about targets uint8 [n, labels]; 0 where nothing is judged."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    judged = targets != UNJUDGED
    wanted = targets.float().clamp(max=CERTAIN) / CERTAIN
    losses = binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (losses * judged).sum() / judged.sum().clamp(min=1)


class _Trainer:
    """A network with its optimizer."""

    def __init__(self, split: Split, targets: Array, recipe: Recipe, generator: torch.Generator) -> None:
        import torch

        self._split, self._targets, self._generator = split, targets, generator
        self._moves = recipe.backbone is not None
        self._device = device()
        body = recipe.backbone() if recipe.backbone else _standardized(split)
        with torch.no_grad():
            body.eval()
            width = body(torch.from_numpy(split.inputs.of(split.training[:1])).float()).shape[1]
        head = torch.nn.Linear(width, targets.shape[1])
        torch.nn.init.constant_(head.bias, _prior(targets[split.training]))
        self._network = torch.nn.Sequential(body, head).to(self._device)
        rate = _SCRATCH_RATE if recipe.backbone and not recipe.is_pretrained else _HEAD_RATE
        groups = [(head.parameters(), rate), (body.parameters(), _PRETRAINED_RATE if recipe.is_pretrained else rate)]
        held = [(list(some), rate) for some, rate in groups]
        held = [(some, rate) for some, rate in held if some]
        rates = [rate for _, rate in held]
        self._optimizer = torch.optim.AdamW(
            [{"params": some, "lr": rate} for some, rate in held], weight_decay=_WEIGHT_DECAY
        )
        self._batch = min(_PIXEL_BATCH if self._moves else _FEATURE_BATCH, max(8, len(split.training) // 8))
        steps = recipe.epochs * max(1, len(split.training) // self._batch)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._optimizer, rates, total_steps=steps + 1)

    def epoch(self) -> None:
        """Train on every training image once, but for a last batch that is not full."""
        import torch

        self._network.train()
        order = self._split.training[torch.randperm(len(self._split.training), generator=self._generator).numpy()]
        for start in range(0, len(order) - self._batch + 1, self._batch):
            places = order[start : start + self._batch]
            inputs = self._inputs(places)
            loss = masked_loss(self._network(self._moved(inputs)), self._wanted(places))
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            self._schedule.step()

    def scores(self, places: Array) -> Array:
        """Return probabilities, float32 [places, labels]."""
        return np.concatenate([logits.sigmoid().cpu().numpy() for _, logits in self._logits(places)])

    def loss(self, places: Array) -> float:
        """Return the loss over some images, about their own labels."""
        total = sum(float(masked_loss(logits, self._wanted(some))) * len(some) for some, logits in self._logits(places))
        return total / max(1, len(places))

    def _logits(self, places: Array) -> Iterator[tuple[Array, torch.Tensor]]:
        import torch

        self._network.eval()
        with torch.no_grad():
            for start in range(0, len(places), _TEST_BATCH):
                some = places[start : start + _TEST_BATCH]
                yield some, self._network(self._inputs(some))

    def _inputs(self, places: Array) -> torch.Tensor:
        import torch

        return torch.from_numpy(self._split.inputs.of(places)).float().to(self._device)

    def _wanted(self, places: Array) -> torch.Tensor:
        import torch

        return torch.from_numpy(self._targets[places]).to(self._device)

    def _moved(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return a batch of pixels mirrored or not, and moved, alike for all of it."""
        import torch

        if not self._moves:
            return inputs
        reach = inputs.shape[3] // _SHIFT
        mirrored, down, right = (
            int(torch.randint(low, high + 1, (1,), generator=self._generator))
            for low, high in ((0, 1), (-reach, reach), (-reach, reach))
        )
        return (inputs.flip(3) if mirrored else inputs).roll((down, right), (2, 3))


def device() -> str:
    """Return where classifiers are trained: `cuda` where torch sees a GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _prior(targets: Array) -> float:
    """Return the logit of the mean target, within reason."""
    judged = targets != UNJUDGED
    mean = float(targets[judged].mean()) / CERTAIN if judged.any() else 0.5
    mean = min(max(mean, 1e-4), 1 - 1e-4)
    return math.log(mean / (1 - mean))


def _standardized(split: Split) -> torch.nn.Module:
    """Return what gives features the mean 0 and the deviation 1 over the training images."""
    import torch

    total, squares, count = 0.0, 0.0, len(split.training)
    for start in range(0, count, _TEST_BATCH):
        values = split.inputs.of(split.training[start : start + _TEST_BATCH]).astype(np.float64)
        total, squares = total + values.sum(0), squares + (values**2).sum(0)
    mean = np.asarray(total / count)
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    deviation[deviation < 1e-6 * (1 + np.abs(mean))] = np.inf  # a feature that never changes says nothing

    class Standardized(torch.nn.Module):  # type: ignore[misc]  # torch counts as Any
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
            self.register_buffer("scale", torch.tensor(1 / deviation, dtype=torch.float32))

        def forward(self, features: torch.Tensor) -> Any:
            return (features - self.mean) * self.scale

    return Standardized()


@contextmanager
def _threads(recipe: Recipe) -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    # Of many short steps threads mostly wait for one another, on a busy machine twenty times as long as they work.
    if recipe.backbone is None or not recipe.is_pretrained:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
