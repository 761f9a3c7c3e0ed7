"""The model as workers load it, and on how many GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagllm_cli.engines.options import ModelOptions
from tagllm_cli.errors import UsageError
from tagllm_cli.pipeline.label.ray.options import gpus_per_worker, on_workers


def test_a_worker_has_the_gpus_of_one_copy_and_none_for_a_server_or_a_recording() -> None:
    assert gpus_per_worker(ModelOptions("qwen")) == 1
    arguments = {"tensor_parallel_size": "4", "pipeline_parallel_size": "2"}
    assert gpus_per_worker(ModelOptions("qwen", engine_args=arguments)) == 8
    assert gpus_per_worker(ModelOptions("qwen", endpoints=("http://host:8000",))) == 0
    assert gpus_per_worker(ModelOptions(replay=Path("answers.jsonl"))) == 0


def test_vllm_does_not_ask_ray_for_more_machines() -> None:
    assert "distributed_executor_backend" not in on_workers(ModelOptions("qwen")).engine_args
    several = on_workers(ModelOptions("qwen", engine_args={"tensor_parallel_size": "2"}))
    assert several.engine_args["distributed_executor_backend"] == "mp"


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert on_workers(ModelOptions("model")).model == str(tmp_path / "model")
    assert on_workers(ModelOptions("org/model")).model == "org/model"
    assert on_workers(ModelOptions(replay=Path("answers.jsonl"))).replay == tmp_path / "answers.jsonl"


def test_what_is_for_one_machine_is_refused() -> None:
    for model, option in ((ModelOptions(record=Path("r.jsonl")), "--record"), (ModelOptions("qwen", gpus=2), "--gpus")):
        with pytest.raises(UsageError, match=option):
            on_workers(model)
