"""Gates of `tagllm diff`: the largest share that may differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from tagllm_cli.errors import UsageError

GATES = ("labels", "images", "unknown", "added", "removed")


def parse_gates(specs: Iterable[str]) -> dict[str, float]:
    """Read gates such as `labels=0.02`: the largest share that passes, in [0, 1]. Raises UsageError for others."""
    gates = {}
    for spec in specs:
        name, _, value = spec.partition("=")
        name = name.strip().lower()
        if name not in GATES:
            raise UsageError(f"no gate is called {name!r}", f"Use one of {', '.join(GATES)}, as in labels=0.02.")
        try:
            gates[name] = float(value)
        except ValueError:
            gates[name] = math.nan
        if not 0 <= gates[name] <= 1:
            raise UsageError(f"the gate {spec!r} needs a number from 0 to 1", f"Write it as {name}=0.02.")
    return gates


def missed_gates(shares: Mapping[str, float], gates: Mapping[str, float]) -> list[str]:
    """Return what is above its gate, a sentence each; a share equal to its gate passes."""
    return [f"{name} is {shares[name]:.4f}, above {most:g}" for name, most in gates.items() if shares[name] > most]
