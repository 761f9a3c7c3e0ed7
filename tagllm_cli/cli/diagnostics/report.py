"""`tagllm doctor`: what this machine can run, and what is missing.

The facts come from package metadata, nvidia-smi and the model's files. Nothing is downloaded or loaded, and only the
servers that are given are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tagllm_cli.cli.diagnostics import machine, software
from tagllm_cli.cli.diagnostics import model as models
from tagllm_cli.cli.diagnostics.base import Check
from tagllm_cli.engines.local.gpus import list_gpus
from tagllm_cli.engines.local.memory import free_memory
from tagllm_cli.errors import UsageError

__all__ = ["Check", "Report", "examine"]


@dataclass(frozen=True, slots=True)
class Report:
    """The checks, in the order in which they are read."""

    checks: tuple[Check, ...]

    @property
    def ready(self) -> bool:
        """Whether images can be labeled: by a server where some are given, else by vLLM on this machine."""
        endpoints = [check.state for check in self.checks if check.name.startswith("endpoint")]
        local = [check.state for check in self.checks if check.name in ("vLLM", "model")]
        return any(state == "ok" for state in endpoints) if endpoints else "missing" not in local

    def to_json(self) -> dict[str, Any]:
        """Return `{"ready": bool, "checks": [{"name", "state", "detail", "hint"}, ...]}`."""
        return {"ready": self.ready, "checks": [asdict(check) for check in self.checks]}


def examine(model: str | None = None, endpoints: Sequence[str] = ()) -> Report:
    """Check this machine, and the model or the servers that are to be used.

    Args:
        model: folder or hub name that vLLM is to load here; with `endpoints`, the served name.
        endpoints: URLs of OpenAI-compatible servers, asked at the same time, with TAGLLM_API_KEY.

    Raises:
        UsageError: the current folder was removed.
    """
    try:
        folder = Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current folder does not exist any more", "Change to another folder.") from None
    gpus, reason = list_gpus()
    checks = [software.versions(), software.vllm(bool(gpus)), machine.gpu(gpus, reason)]
    checks += [machine.memory(), machine.disk(folder), software.storage()]
    if addresses := list(dict.fromkeys(endpoints)):
        with ThreadPoolExecutor(max_workers=len(addresses)) as pool:
            checks += pool.map(partial(models.endpoint, name=model), addresses)
    elif model is not None:
        checks.append(models.model(model, max((each.total for each in gpus), default=free_memory())))
    return Report(tuple(checks))
