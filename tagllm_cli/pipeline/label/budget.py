"""What a run may take: seconds, requests, money. Once that is used up, the run ends cleanly; the rest is pending."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tagllm_cli.engines.base import Usage
from tagllm_cli.errors import GOES_ON, StoppedRunError

# Returns what a run has cost, from its GPU-seconds and its tokens.
CostOf = Callable[[float, Usage], float]


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a command may take, None: no limit. `seconds` counts from its start, `cost` is in the user's money.

    `cost_of` says what was spent; it is needed where `cost` is given. A GPU costs from the start of the command on.
    """

    seconds: float | None = None
    requests: int | None = None
    cost: float | None = None
    cost_of: CostOf | None = None


class Budget:
    """What is left of the limits of one command, in all its passes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._began = time.monotonic()
        self._granted = 0
        self._used = Usage()  # by passes that have ended
        self._reason = "--max-requests 0" if limits.requests == 0 else None  # no model is loaded for it

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

    def look(self, usage: Usage, gpus: int | None) -> bool:
        """Tell whether anything is left, after this usage in the present pass, on so many GPUs (None: counts as 1)."""
        limits, seconds = self._limits, time.monotonic() - self._began
        if self._reason is None:
            if limits.seconds is not None and seconds >= limits.seconds:
                self._reason = f"--max-seconds {limits.seconds:g}"
            elif limits.cost is not None and self._cost(seconds * (gpus or 1), usage) >= limits.cost:
                self._reason = f"--max-cost {limits.cost:g}"
        return self._reason is None

    def end_pass(self, usage: Usage) -> None:
        """Add what a pass has used that has ended."""
        self._used = self._used.add(usage)

    def _cost(self, gpu_seconds: float, usage: Usage) -> float:
        cost_of = self._limits.cost_of
        return 0.0 if cost_of is None else cost_of(gpu_seconds, self._used.add(usage))

    def error(self, *, was_ready: bool) -> StoppedRunError:
        """Return the error of a run that the budget has ended; `was_ready`: this pass's engine was started in time."""
        starting = "The model was not ready by then, so nothing was asked: allow it more."
        hint = GOES_ON if was_ready or self._granted or self._limits.requests == 0 else starting
        return StoppedRunError(f"the budget is used up ({self._reason})", hint)
