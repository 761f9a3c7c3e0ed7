"""GPU, memory, disk."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tagllm_cli.cli.diagnostics.base import GIB, Check, size
from tagllm_cli.engines.local.gpus import Gpu, visible
from tagllm_cli.engines.local.memory import free_memory

LEAST_MEMORY = 4 * GIB  # vLLM's processes and its smallest cache
LEAST_DISK = GIB  # evidence takes a few hundred bytes per request


def gpu(gpus: Sequence[Gpu], reason: str) -> Check:
    """Check the GPUs, and whether the memory that vLLM takes by default is free."""
    if not gpus:
        return Check("GPU", "warning", reason, "vLLM uses the CPU, which suits small models; or use --endpoint URL")
    kinds = Counter((each.name, each.total) for each in gpus)
    listed = ", ".join(f"{count} × {name} ({size(total)})" for (name, total), count in kinds.items())
    detail = f"{listed}, driver {gpus[0].driver}"
    if chosen := os.environ.get("CUDA_VISIBLE_DEVICES"):
        detail += f", CUDA_VISIBLE_DEVICES={chosen}"
    if len(gpus) > 1:
        detail += f"; --gpus all uses {visible(gpus)}"
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
