"""The GPUs of this machine, and vLLM's arguments that put copies of a model on them (`--gpus`)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tagllm_cli.errors import ModelError

GPU_TIMEOUT_S = 10.0
_QUERY = ("--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader,nounits")
_OTHER_KINDS = "For GPUs that are not NVIDIA's, say how many copies: --engine-arg data_parallel_size=N."

GpuCount = int | Literal["all"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as nvidia-smi lists it; memory in bytes, 0 where it is shared with the CPU."""

    name: str
    total: int
    free: int
    driver: str


def list_gpus() -> tuple[list[Gpu], str]:
    """Return the NVIDIA GPUs of this machine, and why there are none."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return [], "no NVIDIA GPU (there is no nvidia-smi)"
    try:
        done = subprocess.run(
            [command, *_QUERY], capture_output=True, text=True, errors="replace", timeout=GPU_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return [], f"nvidia-smi did not answer within {GPU_TIMEOUT_S:g} s"
    except OSError as error:
        return [], f"nvidia-smi cannot be run: {error.strerror}"
    rows = [line.rsplit(", ", 3) for line in done.stdout.splitlines()]
    if done.returncode or not rows or any(len(row) != 4 for row in rows):
        output = " ".join((done.stdout + done.stderr).split())
        return [], f"nvidia-smi failed: {output[:200] or f'exit code {done.returncode}'}"
    return [Gpu(name, _bytes(total), _bytes(free), driver) for name, total, free, driver in rows], ""


def visible(gpus: Sequence[Gpu], environment: Mapping[str, str] = os.environ) -> int:
    """Return how many of these GPUs CUDA_VISIBLE_DEVICES leaves to a program: those before the first invalid number."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return len(gpus)
    count = 0
    for entry in map(str.strip, chosen.split(",")):
        is_number = entry.lstrip("-").isdigit()
        if not entry or (is_number and not 0 <= int(entry) < len(gpus)):
            break
        count += 1  # a UUID is taken at its word
    return count


def gpu_arguments(wanted: GpuCount | None, parsed: Mapping[str, Any]) -> dict[str, Any]:
    """Return vLLM's arguments for as many copies of the model as fit on the GPUs that are wanted.

    Args:
        wanted: a number of GPUs, or all that are visible; None: as the other arguments say.
        parsed: the engine arguments that the user gave; one copy takes `tensor_parallel_size` GPUs, times
            `pipeline_parallel_size`.

    Raises:
        ModelError: there are fewer GPUs, they cannot be divided, or an engine argument says otherwise.
    """
    if wanted is None:
        return {}
    gpus, reason = list_gpus()
    count = visible(gpus)
    if not count:
        hidden = f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')} hides the GPUs of this machine"
        raise ModelError(f"--gpus {wanted}: {hidden if gpus else reason}", f"Leave --gpus out. {_OTHER_KINDS}")
    used = count if wanted == "all" else wanted
    if used > count:
        raise ModelError(f"--gpus {wanted}: this machine has {count} visible", "Use --gpus all, or a smaller number.")
    per_copy = _number(parsed, "tensor_parallel_size") * _number(parsed, "pipeline_parallel_size")
    if used % per_copy:
        hint = f"Use --gpus {used - used % per_copy}." if used > per_copy else "Give it that many, or a smaller share."
        raise ModelError(
            f"--gpus {wanted}: a copy of the model takes {per_copy} GPUs, and {used} are no multiple", hint
        )
    copies = used // per_copy
    if "data_parallel_size" in parsed and parsed["data_parallel_size"] != copies:
        raise ModelError(
            f"--gpus {wanted} makes {copies} copies of the model, "
            f"--engine-arg data_parallel_size={parsed['data_parallel_size']} another number",
            "Leave one of them out.",
        )
    return {"data_parallel_size": copies} if copies > 1 else {}


def _number(parsed: Mapping[str, Any], key: str) -> int:
    value = parsed.get(key, 1)
    return value if isinstance(value, int) and value > 0 else 1  # vLLM refuses anything else by name


def _bytes(mebibytes: str) -> int:
    return int(mebibytes) << 20 if mebibytes.strip().isdigit() else 0  # `[N/A]`
