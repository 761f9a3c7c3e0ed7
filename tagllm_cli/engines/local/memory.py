"""Memory for the key-value cache on a machine without a GPU, where vLLM by default takes nearly all of it."""

from __future__ import annotations

from pathlib import Path

GIB = 1 << 30
_LEAST, _MOST = GIB // 2, 4 * GIB  # all requests of an image come together: its prefix is not needed for long
_PROCESSES = 3 * GIB  # of vLLM's processes beside weights and cache


def cpu_cache_bytes(weights: int, free: int | None = None) -> int:
    """Return the size of the key-value cache in bytes: 0.5 to 4 GiB, and at most half of what the weights leave.

    Args:
        weights: size of the model's weights in bytes.
        free: free memory in bytes; None: that of this machine or container.
    """
    if free is None:
        free = free_memory()
    return max(_LEAST, min(_MOST, (free - weights - _PROCESSES) // 2))


def fits(weights: int, free: int) -> bool:
    """Return whether weights of so many bytes leave memory for the smallest cache and vLLM's processes."""
    return weights + _LEAST + _PROCESSES <= free


def free_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes of memory that are available without swapping, within the container's limit if there is one."""
    available = 0
    for line in _read(proc / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit, used = _read(cgroup / "memory.max").strip(), _read(cgroup / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        available = min(available, int(limit) - int(used))
    return available


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
