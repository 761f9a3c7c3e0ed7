"""What thresholds are chosen for: the best F1, the most recall at a precision, or the fewest yes at a recall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.entries import Array


@dataclass(frozen=True, slots=True)
class Metric:
    """`f1`, or `precision` or `recall` that must reach a `target` in (0, 1]."""

    kind: Literal["f1", "precision", "recall"]
    target: float = 0.0

    def __str__(self) -> str:
        return self.kind if self.kind == "f1" else f"{self.kind}={self.target:g}"

    @classmethod
    def parse(cls, text: str) -> Metric:
        """Return the metric that was typed: `f1`, `precision=0.9`, `recall=0.95`. Raises UsageError."""
        kind, equals, value = text.strip().lower().partition("=")
        if kind == "f1" and not equals:
            return cls("f1")
        try:
            target = float(value)
        except ValueError:
            target = -1.0
        if kind in ("precision", "recall") and 0 < target <= 1:
            return cls(kind, target)  # type: ignore[arg-type]
        raise UsageError(
            f"--metric takes f1, precision=P or recall=R, not {text!r}", "For example --metric recall=0.95."
        )

    def value(self, tp: Array, fp: Array, support: Array) -> Array:
        """Return how good counts are, float64, element by element; only values of one label can be compared.

        `f1`: 2 TP / (support + TP + FP), 0 of 0. `precision`: above 1 where the target is reached, the more recall the
        better; below 1, by precision, where it is missed, and below 0 where all that is predicted is wrong. `recall`:
        above 1 where it is reached, the fewer predictions the better; below 1, by recall, where it is missed.
        """
        predicted = tp + fp
        if self.kind == "f1":
            return np.asarray(2 * tp / np.maximum(support + predicted, 1))
        fewer = fp / (predicted + 1)  # below 1: decides between equal true positives
        if self.kind == "precision":
            reached = (tp >= self.target * predicted - 1e-9) & (tp > 0)
            return np.where(reached, 2 + tp - fewer, np.where(tp > 0, tp / (predicted + 1), -fewer))
        reached = tp >= self.target * support - 1e-9
        return np.where(reached, 1 + 1 / (1 + predicted), (tp - fewer) / (support + 1))

    def best(self, tp: Array, fp: Array, support: Array) -> Array:
        """Return the best threshold's place, int64 [...], of counts [..., thresholds] and supports [...].

        Neighbors that are as good make a plateau: its middle is taken.
        """
        return _middle_of_best(self.value(tp, fp, support[..., None]))

    def best_common(self, tp: Array, fp: Array, support: Array) -> int:
        """Return the place of the best threshold for all labels together, of counts [labels, thresholds].

        `f1`: by the mean F1 of the labels with support; the others: by the sums over labels.
        """
        if self.kind == "f1":
            return int(_middle_of_best(self.value(tp, fp, support[:, None])[support > 0].mean(axis=0)))
        return int(_middle_of_best(self.value(tp.sum(axis=0), fp.sum(axis=0), np.asarray(support.sum()))))

    def overall(self, tp: Array, fp: Array, support: Array) -> float:
        """Return how good all labels together are, of counts [labels]; comparable as `value` is."""
        if self.kind == "f1":
            return float(self.value(tp, fp, support)[support > 0].mean())
        return float(self.value(tp.sum(), fp.sum(), support.sum()))


def _middle_of_best(values: Array) -> Array:
    first = values.argmax(axis=-1)
    places = np.arange(values.shape[-1])
    worse = (values < values.max(axis=-1, keepdims=True)) & (places > first[..., None])
    end = np.where(worse.any(axis=-1), worse.argmax(axis=-1), values.shape[-1])
    return np.asarray((first + end - 1) // 2)
