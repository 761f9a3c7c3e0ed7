"""What a run may take: seconds, requests, money. Once that is used up, the run ends cleanly; the rest is pending."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tagllm_cli.engines.base import Usage
from tagllm_cli.errors import StoppedRunError

# Returns what a run has cost, from the seconds since its engine was ready and its tokens.
Cost = Callable[[float, Usage], float]


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a command may take, None: no limit. `seconds` counts from its start, `cost` is in the user's money.

    `cost_of` says what was spent; it is needed where `cost` is given.
    """

    seconds: float | None = None
    requests: int | None = None
    cost: float | None = None
    cost_of: Cost | None = None


class Budget:
    """What is left of the limits of one command, in all its passes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._began = time.monotonic()
        self._granted = 0
        self._spent = 0.0  # by passes that have ended
        self._reason: str | None = None

    def grant(self, requests: int) -> int:
        """Take so many requests; return how many of them may be asked. Fewer: the budget is used up."""
        if self._reason is not None:
            return 0
        granted = requests
        if self._limits.requests is not None and requests > (left := self._limits.requests - self._granted):
            granted = left
            self._reason = f"--max-requests {self._limits.requests:,}"
        self._granted += granted
        return granted

    def look(self, seconds: float, usage: Usage) -> bool:
        """Tell whether anything is left after so many seconds of the engine and this usage in the present pass."""
        limits = self._limits
        if self._reason is None:
            if limits.seconds is not None and time.monotonic() - self._began >= limits.seconds:
                self._reason = f"--max-seconds {limits.seconds:g}"
            elif limits.cost is not None and self._cost(seconds, usage) >= limits.cost:
                self._reason = f"--max-cost {limits.cost:g}"
        return self._reason is None

    def end_pass(self, seconds: float, usage: Usage) -> None:
        """Add what a pass has cost that has ended."""
        self._spent = self._cost(seconds, usage)

    def _cost(self, seconds: float, usage: Usage) -> float:
        return self._spent + (0.0 if self._limits.cost_of is None else self._limits.cost_of(seconds, usage))

    def error(self) -> StoppedRunError:
        """Return the error of a run that the budget has ended."""
        return StoppedRunError(
            f"the budget is used up ({self._reason})", "What was answered is kept; the same command goes on from there."
        )
