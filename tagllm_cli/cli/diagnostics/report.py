"""What this machine can run, and what is missing: the facts behind `tagllm doctor`.

They come from files, package metadata and one call of nvidia-smi. vLLM and torch are not imported (that takes half a
minute), nothing is downloaded, and of servers only the endpoints given are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tagllm_cli.cli.diagnostics import machine, software
from tagllm_cli.cli.diagnostics import model as asked
from tagllm_cli.cli.diagnostics.check import Check
from tagllm_cli.errors import UsageError

__all__ = ["Check", "Report", "examine"]

# What labelling cannot do without, wherever the answers come from, and what vLLM on this machine needs besides.
_ALWAYS_NEEDED = {"prompts", "image formats"}
_NEEDED_HERE = {"CPU", "vLLM", "torch", "torchvision", "model"}


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was looked at, in the order in which people read it."""

    checks: tuple[Check, ...]

    @property
    def ready(self) -> bool:
        """Whether images can be labelled: by an endpoint where some are given, else by vLLM on this machine."""
        missing = {check.name for check in self.checks if check.state == "missing"}
        endpoints = {check.name for check in self.checks if check.name.startswith("endpoint ")}
        able = bool(endpoints - missing) if endpoints else not missing & _NEEDED_HERE
        return able and not missing & _ALWAYS_NEEDED

    def to_json(self) -> dict[str, Any]:
        """Return `{"ready": bool, "checks": [{"name", "state", "detail", "hint"}, ...]}`."""
        return {"ready": self.ready, "checks": [asdict(check) for check in self.checks]}


def examine(model: str | None = None, endpoints: Sequence[str] = ()) -> Report:
    """Look at this machine, and at what the user means to use; under a second without endpoints.

    Args:
        model: folder or hub name that vLLM is to load here.
        endpoints: base URLs of OpenAI-compatible servers, asked together with TAGLLM_API_KEY, for 3 s at most.

    Raises:
        UsageError: the current folder does not exist any more.
    """
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current folder does not exist any more", "Change to another folder") from None
    gpus, trouble = machine.nvidia_gpus()
    checks = [software.tagllm_itself(), machine.cpu(bool(gpus)), machine.memory(), machine.gpu(gpus, trouble)]
    checks += [*software.engine(bool(gpus)), machine.shared_memory(), machine.disk(here), machine.file_system(here)]
    checks += [machine.open_files(), software.image_formats(), software.prompts(), software.vocabularies()]
    if model is not None:
        checks.append(asked.model(model, machine.room_for_weights(gpus)))
    if addresses := list(dict.fromkeys(endpoints)):
        with ThreadPoolExecutor(max_workers=len(addresses)) as pool:
            checks += pool.map(asked.endpoint, addresses)
    return Report(tuple(checks))
