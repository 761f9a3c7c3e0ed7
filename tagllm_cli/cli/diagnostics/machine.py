"""GPU, memory, disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tagllm_cli.cli.diagnostics.base import GIB, Check, size
from tagllm_cli.engines.local.memory import free_memory

GPU_TIMEOUT_S = 10.0
LEAST_MEMORY = 4 * GIB  # vLLM's processes and its smallest cache
LEAST_DISK = GIB  # evidence takes a few hundred bytes per request
_QUERY = ("--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader,nounits")


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


def gpu(gpus: Sequence[Gpu], reason: str) -> Check:
    """Check the GPUs, and whether the memory that vLLM takes by default is free."""
    if not gpus:
        return Check("GPU", "warning", reason, "vLLM uses the CPU, which suits small models; or use --endpoint URL")
    kinds = Counter((each.name, each.total) for each in gpus)
    listed = ", ".join(f"{count} × {name} ({size(total)})" for (name, total), count in kinds.items())
    detail = f"{listed}, driver {gpus[0].driver}"
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        detail += f", CUDA_VISIBLE_DEVICES={visible}"
    share, free = min(((each.free / each.total, each.free) for each in gpus if each.total), default=(1.0, 0))
    if share < 0.9:  # vLLM's default
        hint = f"End what uses it, or give vLLM less: --engine-arg gpu_memory_utilization={max(0.05, share - 0.05):.2f}"
        return Check("GPU", "warning", f"{detail}; only {size(free)} of one free", hint)
    return Check("GPU", "ok", detail)


def memory() -> Check:
    """Check the free memory, within the container's limit if there is one."""
    hint = f"vLLM needs {size(LEAST_MEMORY)} and the model's weights: end other programs, or use --endpoint URL"
    return _space("memory", free_memory(), LEAST_MEMORY, hint)


def disk(folder: Path) -> Check:
    """Check the free space for tables and evidence."""
    if not os.access(folder, os.W_OK):
        return Check("disk", "warning", f"{folder} cannot be written", "Give --out in a folder that can be written")
    hint = "Free some space for the evidence, or give --out on another disk"
    return _space("disk", shutil.disk_usage(folder).free, LEAST_DISK, hint)


def _space(name: str, free: int, least: int, hint: str) -> Check:
    detail = f"{size(free)} free"
    return Check(name, "ok", detail) if free >= least else Check(name, "warning", detail, hint)


def _bytes(mebibytes: str) -> int:
    return int(mebibytes) << 20 if mebibytes.strip().isdigit() else 0  # `[N/A]`
