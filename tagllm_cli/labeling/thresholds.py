"""When a probability decides yes: one threshold for all labels, and a label's own where it has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Thresholds:
    """`yes` above a label's threshold; `unknown` below `min_mass` on yes and no. All in [0, 1].

    `per_label` holds the labels that have a threshold of their own; the others are on the common `threshold`.

    >>> Thresholds(0.5, per_label={"dog": 0.4}).of("dog"), Thresholds(0.5, per_label={"dog": 0.4}).of("cat")
    (0.4, 0.5)
    """

    threshold: float = 0.5
    min_mass: float = 0.5
    per_label: Mapping[str, float] = field(default_factory=dict)

    def of(self, name: str) -> float:
        """Return the threshold of a label."""
        return self.per_label.get(name, self.threshold)
