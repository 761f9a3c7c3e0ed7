"""What is known of all servers together: how long an answer usually takes, and what failed since the last one."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

_LEAST_TIMES = 20  # answers until it is known what is usual


@dataclass(slots=True)
class UsualTime:
    """Mean and mean deviation of the seconds that answers took, the last ones weighing most (as TCP estimates them)."""

    times: int = 0
    mean: float = 0.0
    deviation: float = 0.0

    def add(self, seconds: float) -> None:
        """Count an answer."""
        self.times += 1
        if self.times == 1:
            self.mean, self.deviation = seconds, seconds / 2
            return
        difference = seconds - self.mean
        self.mean += difference / 8
        self.deviation += (abs(difference) - self.deviation) / 4

    @property
    def much_longer(self) -> float | None:
        """Seconds that are much more than usual; None: too few answers are known."""
        return None if self.times < _LEAST_TIMES else 2 * (self.mean + 4 * self.deviation)


@dataclass(slots=True)
class Outage:
    """Failed attempts since the last usable answer of any server.

    Args:
        since: when the first of them was sent (`time.monotonic`); None: there is none.
        images: the images that they were about.
        reasons: how often each server failed for each reason.
        silent_since: when something last came back, or the first request was sent.
        answered_at: when the last usable answer came.
    """

    since: float | None = None
    images: set[object] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)
    silent_since: float = 0.0
    answered_at: float = 0.0

    def add(self, server: str, reason: str, image: object, began: float) -> None:
        """Count a failed attempt."""
        if self.since is None:
            self.since = began
        self.images.add(image)
        self.reasons[f"{server}: {reason}"] += 1
        self.silent_since = time.monotonic()

    def end(self) -> None:
        """Forget them: a server has answered."""
        self.silent_since = self.answered_at = time.monotonic()
        if self.since is not None:
            self.since = None
            self.images.clear()
            self.reasons.clear()

    @property
    def most_frequent(self) -> tuple[str, int]:
        """The most frequent reason, with the server's name, and how often it was met."""
        ((reason, times),) = self.reasons.most_common(1)
        return reason, times
