"""A real vLLM inside a worker on Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import one_object, tagllm
from tests.support.live import IMAGES, MODEL, QUICK_START

pytestmark = [pytest.mark.live, pytest.mark.slow]

PICTURES = 4


@pytest.mark.usefixtures("no_engine")
def test_a_worker_loads_the_model_and_a_run_without_ray_has_nothing_left_to_ask(
    tmp_path: Path, ray_cluster: Any
) -> None:
    arguments = [f"--engine-arg={name}={value}" for name, value in {**QUICK_START, "max_num_seqs": "16"}.items()]
    arguments = [each for each in arguments if "executor" not in each]  # as a user types it: vLLM has its own process
    words = ["candidates", str(IMAGES), "--vocab", "scenes", "--limit", str(PICTURES), "--model", str(MODEL)]
    words += ["--out", str(tmp_path / "c.parquet"), "--json", *arguments]
    done = tagllm([*words, "--ray", ray_cluster.address, "--ray-workers", "1"])
    assert done.exit_code == 0, done.stderr
    found = one_object(done.stdout)
    assert (found["rows"]["ok"], found["asked"]["images"]) == (PICTURES, PICTURES)
    assert found["asked"]["requests"] > PICTURES
    again = one_object(tagllm(words).stdout)
    assert (again["rows"], again["asked"]["requests"]) == (found["rows"], 0)
