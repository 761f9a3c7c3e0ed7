"""vLLM's engine arguments on a machine without a GPU: data type, block size, memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tagllm_cli.engines.local.cores import usable_cores
from tagllm_cli.engines.local.memory import cpu_cache_bytes, fits, free_memory
from tagllm_cli.engines.local.model_files import is_quantized, weight_bytes

# vLLM's default of 128 tokens is more than the image prefix of a small image: nothing would be shared.
_BLOCK_SIZE = 32
# Up to here the model runs in the engine's own process, which spares the start of another one, with another import of
# vLLM, and it is not compiled: for the demo model on 2 cores that took as long as 10,000 requests gain by it. On larger
# machines vLLM's worker process binds its threads to cores.
_FEW_CORES = 4
_IN_PARTS = ("tensor_parallel_size", "pipeline_parallel_size")
_BFLOAT16_FLAGS = frozenset({"avx512f", "avx512_bf16", "amx_bf16"})


def emulates_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this is an x86 CPU without AVX-512 and AMX, where float32 is six times as fast as bfloat16."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    return flags is not None and not _BFLOAT16_FLAGS.intersection(flags)


def cpu_defaults(
    model: str,
    parsed: Mapping[str, Any],
    *,
    cpuinfo: Path = Path("/proc/cpuinfo"),
    free: int | None = None,
    cores: int | None = None,
) -> dict[str, Any]:
    """Return engine arguments for a CPU, which the user's replace; none is part of the model's identity.

    Args:
        model: folder, hub name or URL.
        parsed: the engine arguments that the user gave.
        cpuinfo: description of the CPU.
        free: free memory in bytes; None: that of this machine or container.
        cores: number of cores; None: those that this process may use.
    """
    cores = usable_cores() if cores is None else cores
    free = free_memory() if free is None else free
    weights = weight_bytes(model, parsed)
    defaults: dict[str, Any] = {
        "block_size": _BLOCK_SIZE,
        "mm_processor_cache_gb": 1,
        "enforce_eager": cores <= _FEW_CORES or not (os.environ.get("CXX") or shutil.which("g++")),
    }
    if cores <= _FEW_CORES and not parsed.keys() & set(_IN_PARTS):
        defaults["distributed_executor_backend"] = "uni"
    # float32 takes twice the memory of the two-byte types in which weights are stored; 0: not downloaded yet.
    has_free_slot = weights > 0 and fits(2 * weights, free)
    if "dtype" not in parsed and emulates_bfloat16(cpuinfo) and has_free_slot and not is_quantized(model, parsed):
        defaults["dtype"] = "float32"
        weights *= 2
    if not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        defaults["kv_cache_memory_bytes"] = cpu_cache_bytes(weights, free)
    return defaults
