"""Defaults for a machine without a GPU: float32 where bfloat16 is emulated, unless the user or the memory decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.engines.identity import model_identity
from tagllm_cli.engines.local.cpu import cpu_defaults, emulates_bfloat16
from tagllm_cli.engines.local.memory import GIB

OLD = "processor : 0\nflags\t\t: fpu sse2 avx avx2 fma\nbogomips : 1\nprocessor : 1\nflags\t\t: fpu avx avx2\n"


@pytest.fixture
def cpuinfo(tmp_path: Path) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text(OLD)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16"}))
    (folder / "model.safetensors").write_bytes(bytes(1000))
    return folder


@pytest.mark.parametrize(
    ("flags", "emulates"),
    [
        ("flags\t\t: fpu sse2 avx avx2 fma", True),
        ("flags\t\t: fpu avx2 avx512f avx512bw", False),
        ("flags\t\t: fpu avx2 avx512f avx512_bf16", False),
        ("flags\t\t: fpu avx2 amx_bf16 amx_tile", False),
        ("Features\t: fp asimd bf16", False),
        ("", False),
    ],
)
def test_only_x86_without_avx512_and_amx_emulates_bfloat16(tmp_path: Path, flags: str, emulates: bool):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    assert emulates_bfloat16(tmp_path / "cpuinfo") is emulates
    assert not emulates_bfloat16(tmp_path / "missing")


def defaults(model: Path, cpuinfo: Path, free: int = 64 * GIB, **parsed: Any) -> dict[str, Any]:
    before = dict(parsed)
    found = cpu_defaults(str(model), parsed, cpuinfo=cpuinfo, free=free)
    assert parsed == before
    return found


@pytest.mark.parametrize(
    ("cores", "parsed", "backend"),
    [(2, {}, "uni"), (4, {}, "uni"), (16, {}, None), (2, {"tensor_parallel_size": 2}, None)],
)
def test_on_few_cores_the_model_runs_uncompiled_in_the_engines_process(
    model: Path,
    cpuinfo: Path,
    cores: int,
    parsed: dict[str, Any],
    backend: str | None,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("CXX", "g++")
    found = cpu_defaults(str(model), parsed, cpuinfo=cpuinfo, free=64 * GIB, cores=cores)
    assert found.get("distributed_executor_backend") == backend
    assert found["enforce_eager"] is (cores <= 4)


def test_float32_is_the_default_there_unless_the_user_gives_a_type(model: Path, cpuinfo: Path):
    assert defaults(model, cpuinfo)["dtype"] == "float32"
    assert "dtype" not in defaults(model, cpuinfo, dtype="bfloat16")
    assert "dtype" not in defaults(model, cpuinfo, dtype="auto")
    cpuinfo.write_text("flags : avx512f\n")
    assert "dtype" not in defaults(model, cpuinfo)


def test_a_quantized_model_keeps_its_type(model: Path, cpuinfo: Path):
    assert "dtype" not in defaults(model, cpuinfo, quantization="fp8")
    (model / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "awq"}}))
    assert "dtype" not in defaults(model, cpuinfo)


def test_weights_that_would_not_fit_twice_keep_their_type(model: Path, cpuinfo: Path):
    with (model / "model.safetensors").open("wb") as file:
        file.truncate(4 * GIB)
    assert "dtype" not in defaults(model, cpuinfo, free=11 * GIB)
    assert defaults(model, cpuinfo, free=12 * GIB)["dtype"] == "float32"
    assert defaults(model, cpuinfo, free=14 * GIB)["kv_cache_memory_bytes"] == 3 * GIB // 2
    (model / "model.safetensors").unlink()
    assert "dtype" not in defaults(model, cpuinfo)


def test_the_default_type_is_no_part_of_the_models_identity(model: Path, cpuinfo: Path, tmp_path: Path):
    before = model_identity(str(model), {}, cache_dir=tmp_path / "cache")
    defaults(model, cpuinfo)
    assert model_identity(str(model), {}, cache_dir=tmp_path / "cache") == before
    assert model_identity(str(model), {"dtype": "float32"}, cache_dir=tmp_path / "cache") != before


def test_a_cache_size_in_vllms_own_variable_stays(model: Path, cpuinfo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    assert "kv_cache_memory_bytes" not in defaults(model, cpuinfo)
