"""The share of the gap closed: how far better labels bring a classifier from plain labels to the truth.

    (mAP trained on ours - mAP trained on plain) / (mAP trained on truth - mAP trained on plain)

as the TagLLM paper reports it (arXiv 2602.20972). Differences are paired: the same seeds and test images on both sides.
The share is measurable only where the whole interval of the gap lies above zero. Its interval is Fieller's, with
bootstrap samples for the normal distribution: the shares s for which 0 lies inside the interval of (ours - plain) -
s (truth - plain). Unlike percentiles of the ratio it needs no sample of the gap to be positive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tagllm_cli.evaluation.downstream.scores import OUTSIDE, Draws, Figures, with_interval
from tagllm_cli.evaluation.entries import Array
from tagllm_cli.evaluation.sections import Figure

_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Gap:
    """One table of plain labels: `gap` is truth less plain, `gain` ours less plain, in mAP.

    `closed` is the share of the gap closed; None: the gap is not beyond noise.
    """

    plain: str
    gap: Figure
    gain: Figure
    closed: Figure | None

    @classmethod
    def of(cls, plain: str, found: Mapping[str, Figures], ours: str, truth: str, draws: Draws) -> Gap:
        """Return the gap between the figures named `plain` and `truth`, and what `ours` closes of it."""
        samples = {name: found[name].samples(draws) for name in (plain, ours, truth)}
        means = {name: found[name].mean for name in samples}
        to_truth, to_ours = (
            _moved(samples[name] - samples[plain], means[name] - means[plain]) for name in (truth, ours)
        )
        gap, gain = (
            with_interval(means[truth] - means[plain], to_truth),
            with_interval(means[ours] - means[plain], to_ours),
        )
        if gap.low <= 0:
            return cls(plain, gap, gain, None)
        low, high = fieller(to_ours, to_truth)
        return cls(plain, gap, gain, Figure(gain.value / gap.value, low, high))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        closed = None if self.closed is None else self.closed.to_json()
        return {"plain": self.plain, "gap": self.gap.to_json(), "gain": self.gain.to_json(), "closed": closed}


def _moved(samples: Array, mean: float) -> Array:
    return np.asarray(samples - samples.mean() + mean)


def fieller(above: Array, below: Array) -> tuple[float, float]:
    """Return the 95% interval of the ratio of two means, from paired samples of both [rounds].

    The lower percentile of `below` must be above 0.
    """

    def root(percent: float) -> float:
        """Return the s for which this percentile of above - s below is 0: it falls as s rises."""
        reach = 1.0
        while np.percentile(above - reach * below, percent) > 0 or np.percentile(above + reach * below, percent) < 0:
            reach *= 2
        low, high = -reach, reach
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if np.percentile(above - middle * below, percent) > 0:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    return root(OUTSIDE), root(100 - OUTSIDE)
