"""`--gpus`: how many copies of the model, on a machine with a program that answers like nvidia-smi."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.engines.local.engine import EngineSettings, InProcessEngine, rank_of
from tagllm_cli.engines.local.gpus import GpuCount, gpu_arguments
from tagllm_cli.errors import ModelError
from tests.support.live import MODEL


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with four GPUs."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nfor gpu in 0 1 2 3; do echo 'NVIDIA H100 80GB HBM3, 81559, 81000, 580.10'; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without nvidia-smi."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("wanted", "parsed", "copies"),
    [
        ("all", {}, 4),
        (3, {}, 3),
        (1, {}, None),
        ("all", {"tensor_parallel_size": 2}, 2),
        ("all", {"tensor_parallel_size": 4}, None),
        (4, {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, None),
        ("all", {"data_parallel_size": 4}, 4),
        (None, {"data_parallel_size": 7}, None),
    ],
)
def test_one_copy_of_the_model_per_group_of_gpus(wanted: GpuCount | None, parsed: dict[str, Any], copies: int | None):
    assert gpu_arguments(wanted, parsed) == ({} if copies is None else {"data_parallel_size": copies})


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("chosen", "copies"),
    [("2,3", 2), ("0, 1,2", 3), ("0,1,-1,2", 2), ("0,9,1", None), ("GPU-8a1b,GPU-77f0", 2), ("1", None)],
)
def test_only_visible_gpus_count(chosen: str, copies: int | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert gpu_arguments("all", {}) == ({} if copies is None else {"data_parallel_size": copies})


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("wanted", "parsed", "message", "hint"),
    [
        (5, {}, "this machine has 4 visible", "--gpus all"),
        (3, {"tensor_parallel_size": 2}, "a copy of the model takes 2 GPUs, and 3 are no multiple", "Use --gpus 2."),
        (1, {"tensor_parallel_size": 2}, "a copy of the model takes 2 GPUs, and 1 are no multiple", "smaller share"),
        (4, {"data_parallel_size": 2}, "makes 4 copies of the model, --engine-arg data_parallel_size=2", "Leave one"),
    ],
)
def test_what_cannot_be_is_said(wanted: GpuCount, parsed: dict[str, Any], message: str, hint: str):
    with pytest.raises(ModelError, match=message) as caught:
        gpu_arguments(wanted, parsed)
    assert hint in str(caught.value.hint)


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize("chosen", ["", "-1"])
def test_hidden_gpus_are_named_as_such(chosen: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    with pytest.raises(ModelError, match=f"CUDA_VISIBLE_DEVICES={chosen} hides the GPUs"):
        gpu_arguments("all", {})


async def start_and_close(settings: EngineSettings) -> None:
    engine = InProcessEngine(settings)
    try:
        await engine.start()
    finally:
        await engine.close()


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("wanted", ["all", 2])
def test_a_machine_without_a_gpu_is_told_before_anything_is_loaded(wanted: GpuCount):
    with pytest.raises(ModelError, match=f"--gpus {wanted}: no NVIDIA GPU"):
        asyncio.run(start_and_close(EngineSettings(str(MODEL), gpus=wanted)))


def test_images_are_spread_evenly_and_stay_with_one_copy():
    ranks = [rank_of(f"image-{number}", 4) for number in range(4000)]
    assert ranks == [rank_of(f"image-{number}", 4) for number in range(4000)]
    assert all(900 < ranks.count(rank) < 1100 for rank in range(4))
    assert rank_of("image-0", 1) is None
