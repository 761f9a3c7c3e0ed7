"""The machine: processor, memory, NVIDIA GPUs, disk, limits."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tagllm_cli.cli.diagnostics.check import OR_ENDPOINT, Check, size
from tagllm_cli.engines.local.memory import GIB, free_memory

PROC = Path("/proc")
GPU_TIMEOUT_S = 5.0

LEAST_MEMORY = 4 * GIB  # vLLM's processes and the smallest cache
LEAST_SHARED_MEMORY = GIB // 2  # containers start with 64 MiB, in which vLLM's processes cannot talk to each other
LEAST_DISK = GIB  # evidence takes a few hundred bytes for each request
LEAST_OPEN_FILES = 1024

_VECTOR_UNITS = {"avx512f": "AVX-512", "asimd": "NEON", "avx2": "AVX2"}
_NETWORK_FILE_SYSTEM = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|drvfs|afs|ceph|lustre|gpfs|beegfs|glusterfs|fuse\.(?!fuse-overlayfs|mergerfs|bindfs|ntfs).+"
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as nvidia-smi shows it; memory in bytes, 0 where it does not say."""

    name: str
    total: int
    free: int
    driver: str


def cpu(has_gpu: bool) -> Check:
    """The processor, and whether it has what vLLM computes with where there is no GPU."""
    fields: dict[str, str] = {}
    for line in _read(PROC / "cpuinfo").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = f"{fields.get('flags', '')} {fields.get('Features', '')}".split()  # as x86 and ARM call them
    unit = next((name for flag, name in _VECTOR_UNITS.items() if flag in flags), None)
    cores = len(os.sched_getaffinity(0))
    detail = f"{fields.get('model name', platform.machine())}, {cores} cores, {unit or 'no AVX2, AVX-512 or NEON'}"
    if has_gpu or unit in ("AVX-512", "NEON"):
        return Check("CPU", "ok", detail)
    if unit is None and "flags" in fields:
        return Check("CPU", "missing", f"{detail}: vLLM cannot run on it", f"Use a newer machine, {OR_ENDPOINT}")
    return Check("CPU", "warning", detail, "vLLM is faster on a CPU with AVX-512, and much faster on a GPU")


def _space(name: str, where: str, free: int, least: int, hint: str) -> Check:
    detail = f"{size(free)} free{where}"
    return Check(name, "ok", detail) if free >= least else Check(name, "warning", detail, hint)


def memory() -> Check:
    """Free memory, within the container's limit if there is one."""
    hint = f"vLLM needs {size(LEAST_MEMORY)} and the model's weights: end other programs, {OR_ENDPOINT}"
    return _space("memory", "", free_memory(PROC), LEAST_MEMORY, hint)


def shared_memory() -> Check:
    """Free space in /dev/shm."""
    hint = "vLLM's processes talk through it: start the container with --shm-size 2g or --ipc=host"
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        free = 0
    return _space("shared memory", " in /dev/shm", free, LEAST_SHARED_MEMORY, hint)


def disk(here: Path) -> Check:
    """Free space for tables and evidence."""
    if not os.access(here, os.W_OK):
        return Check("disk space", "warning", f"{here} cannot be written", "Give --out in a folder that can be")
    hint = "Make room for the evidence, or give --out on another disk"
    return _space("disk space", " here", shutil.disk_usage(here).free, LEAST_DISK, hint)


def nvidia_gpus() -> tuple[list[Gpu], str]:
    """Return the GPUs that CUDA may use, and in a line why there are none (empty: there is no nvidia-smi)."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return [], ""
    query = [command, "--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            query, capture_output=True, text=True, errors="replace", timeout=GPU_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return [], f"nvidia-smi did not answer within {GPU_TIMEOUT_S:g} s"
    except OSError as error:
        return [], f"nvidia-smi cannot be run: {error.strerror}"
    rows = [line.rsplit(", ", 3) for line in done.stdout.splitlines()]
    if done.returncode or not rows or any(len(row) != 4 for row in rows):
        said = " ".join((done.stdout + done.stderr).split())
        return [], f"nvidia-smi failed: {said[:200] or f'exit code {done.returncode}'}"
    gpus = [Gpu(name, _mebibytes(total), _mebibytes(free), driver) for name, total, free, driver in rows]
    visible = _visible(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return visible, "" if visible else "hidden by CUDA_VISIBLE_DEVICES"


def _visible(gpus: list[Gpu], chosen: str | None) -> list[Gpu]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES leaves; all where it is not set or names them by UUID."""
    numbers = [] if chosen is None else [part.strip() for part in chosen.split(",")]
    if chosen is None or not all(re.fullmatch(r"-?\d*", number) for number in numbers):
        return gpus
    return [gpus[int(number)] for number in numbers if number.isdigit() and int(number) < len(gpus)]


def gpu(gpus: Sequence[Gpu], trouble: str) -> Check:
    """The GPUs of `nvidia_gpus`, and whether vLLM finds the memory that it takes by default."""
    if not gpus:
        hint = f"vLLM takes the CPU, which suits small models: use a machine with a GPU for others, {OR_ENDPOINT}"
        return Check("GPU", "warning", trouble or "no NVIDIA GPU (there is no nvidia-smi)", hint)
    kinds = Counter((gpu.name, gpu.total) for gpu in gpus)
    listed = ", ".join(f"{count} × {name} ({size(total)})" for (name, total), count in kinds.items())
    detail = f"{listed}, driver {gpus[0].driver}"
    share, free = min(((gpu.free / gpu.total, gpu.free) for gpu in gpus if gpu.total), default=(1.0, 0))
    if share < 0.9:  # what vLLM takes unless it is told otherwise
        hint = f"End what uses it, or give vLLM less: --engine-arg gpu_memory_utilization={max(0.05, share - 0.05):.2f}"
        return Check("GPU", "warning", f"{detail}; only {size(free)} of one free", hint)
    return Check("GPU", "ok", detail)


def room_for_weights(gpus: Sequence[Gpu]) -> int:
    """Return the bytes that a model's weights may take: the largest GPU's memory, else free memory; 0: unknown."""
    return max((gpu.total for gpu in gpus), default=free_memory(PROC))


def file_system(here: Path) -> Check:
    """Whether evidence (SQLite with shared memory) is safe in this folder: on a local disk, that is."""
    kind, depth = "unknown", 0
    for line in _read(PROC / "self" / "mounts").splitlines():
        _, mounted, name, *_ = line.split(" ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), mounted))
        if here.is_relative_to(point) and len(point.parts) >= depth:  # a later mount hides an earlier one
            kind, depth = name, len(point.parts)
    if _NETWORK_FILE_SYSTEM.fullmatch(kind):
        hint = "Tables and their evidence (SQLite) need a local disk: give --out on one; images may stay"
        return Check("file system", "warning", f"{kind}, a network file system", hint)
    if kind in ("tmpfs", "ramfs"):
        return Check("file system", "warning", f"{kind}, gone after a restart", "Give --out on a disk")
    return Check("file system", "ok", kind)


def open_files() -> Check:
    """How many files this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = ["unlimited" if limit == resource.RLIM_INFINITY else f"{limit:,}" for limit in (soft, hard)]
    detail = f"{shown[0]} (may be raised to {shown[1]})"
    if soft != resource.RLIM_INFINITY and soft < LEAST_OPEN_FILES:
        return Check("open files", "warning", detail, f"Raise the limit before a run: ulimit -n {LEAST_OPEN_FILES}")
    return Check("open files", "ok", detail)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _mebibytes(text: str) -> int:
    return int(text) << 20 if text.strip().isdigit() else 0  # `[N/A]` where memory is shared with the CPU
