"""Gates: least values of metrics, or of the lower ends of their intervals (`of1.low`), and the least overlap."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.metrics import Evaluation
from tagllm_cli.evaluation.metrics.bootstrap import Interval

GATES = ("op", "or", "of1", "cp", "cr", "cf1", "map", "exact_match")
LOW = ".low"
MIN_OVERLAP = 0.9

# What a prediction that is wrong would lower.
_NEED_ABSENCE = frozenset(GATES) - {"or", "cr"}


@dataclass(frozen=True, slots=True)
class MissedGate:
    """A gate that was missed: its metric (or `overlap`), the least value that passes, what was found, and why."""

    metric: str
    least: float
    value: float
    reason: str = ""

    def __str__(self) -> str:
        return self.reason or f"{self.metric} is {self.value:.4f}, below {self.least:g}"


def parse_gates(specs: Iterable[str]) -> dict[str, float]:
    """Read gates such as `of1=0.9`: each metric's least value, in [0, 1]. Raises UsageError for anything else."""
    hint = f"Use one of {', '.join(GATES)}, as in of1=0.9; of1.low is the lower end of its interval."
    return parse_limits(specs, {*GATES, *(f"{name}{LOW}" for name in GATES)}, hint, "0.9")


def parse_limits(specs: Iterable[str], names: Collection[str], hint: str, example: str) -> dict[str, float]:
    """Read limits such as `labels=0.02`, in [0, 1], by name. Raises UsageError for others, with a `hint`.

    `example` is a value that messages show.
    """
    limits = {}
    for spec in specs:
        name, _, value = spec.partition("=")
        name = name.strip().lower()
        if name not in names:
            raise UsageError(f"no gate is called {name!r}", hint)
        try:
            limits[name] = float(value)
        except ValueError:
            limits[name] = math.nan
        if not 0 <= limits[name] <= 1:
            raise UsageError(f"the gate {spec!r} needs a number from 0 to 1", f"Write it as {name}={example}.")
    return limits


def need_intervals(specs: Iterable[str]) -> bool:
    """Return whether a gate is on the lower end of an interval. Raises UsageError for what is no gate."""
    return any(metric.endswith(LOW) for metric in parse_gates(specs))


def check_gates(
    evaluation: Evaluation, specs: Iterable[str], intervals: Mapping[str, Interval] | None = None
) -> list[MissedGate]:
    """Return the gates that `evaluation` misses, in their order; a value equal to its gate passes.

    Gates on lower ends need the `intervals` of the figures.
    Where the truth judges nothing absent, a gate on a metric that wrong predictions lower is missed.
    """
    missed = []
    for metric, least in parse_gates(specs).items():
        figure = metric.removesuffix(LOW)
        value = getattr(evaluation, "or_" if figure == "or" else figure)
        if metric != figure:
            value = (intervals or {})[figure].low
        if evaluation.judges_no_absence and figure in _NEED_ABSENCE:
            reason = f"{metric} cannot be measured: the truth judges no label absent"
            missed.append(MissedGate(metric, least, value, reason))
        elif value < least:
            missed.append(MissedGate(metric, least, value))
    return missed


def check_overlap(found: int, images: int, least: float) -> list[MissedGate]:
    """Return the gate on the overlap, if fewer than the share `least` of the truth's `images` were found."""
    share = found / max(1, images)
    if share >= least:
        return []
    reason = f"only {found:,} of {images:,} images of the truth are in the table, less than --min-overlap {least:g}"
    return [MissedGate("overlap", least, share, reason)]
