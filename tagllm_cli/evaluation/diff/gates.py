"""Gates of `tagllm diff`: the largest share that may differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tagllm_cli.evaluation.gates import parse_limits

GATES = ("labels", "images", "unknown", "added", "removed")


def parse_gates(specs: Iterable[str]) -> dict[str, float]:
    """Read gates such as `labels=0.02`: the largest share that passes, in [0, 1]. Raises UsageError for others."""
    return parse_limits(specs, GATES, f"Use one of {', '.join(GATES)}, as in labels=0.02.", "0.02")


def missed_gates(shares: Mapping[str, float], gates: Mapping[str, float]) -> list[str]:
    """Return what is above its gate, a sentence each; a share equal to its gate passes."""
    return [f"{name} is {shares[name]:.4f}, above {most:g}" for name, most in gates.items() if shares[name] > most]
