"""The bound on pixels that Qwen-VL's processor gets: small for vLLM's profiling, never in the way of an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagllm_cli.engines.local.pixel_bound import pixel_bound
from tagllm_cli.labeling.plan import DEFAULT_MAX_PIXELS
from tagllm_cli.sources.decode import fit


def model(folder: Path, model_type: str, processor: dict[str, Any]) -> str:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


OWN: tuple[dict[str, Any], ...] = (
    {"min_pixels": 3136, "max_pixels": 12_845_056},
    {"size": {"longest_edge": 16_777_216, "shortest_edge": 3136}},
)


@pytest.mark.parametrize("processor", OWN)
@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"])
def test_a_qwen_is_told_the_largest_image(tmp_path: Path, model_type: str, processor: dict[str, Any]):
    size = pixel_bound(model(tmp_path, model_type, processor), {}, DEFAULT_MAX_PIXELS)["size"]
    assert size["shortest_edge"] == 3136
    assert DEFAULT_MAX_PIXELS < size["longest_edge"] < 1.3 * DEFAULT_MAX_PIXELS


def test_nothing_is_said_where_nothing_helps(tmp_path: Path):
    # Less than ours: the user's own choice.
    name = model(tmp_path, "qwen2_5_vl", {"min_pixels": 3136, "max_pixels": 1_000_000})
    assert pixel_bound(name, {}, DEFAULT_MAX_PIXELS) == {}
    assert pixel_bound(model(tmp_path, "qwen2_5_vl", {}), {}, DEFAULT_MAX_PIXELS) == {}
    assert pixel_bound(model(tmp_path, "qwen2_5_vl", {"size": 448}), {}, DEFAULT_MAX_PIXELS) == {}
    name = model(tmp_path, "qwen2_5_vl", OWN[0])
    assert pixel_bound(name, {"mm_processor_kwargs": {"max_pixels": 500_000}}, DEFAULT_MAX_PIXELS) == {}
    assert pixel_bound(name, {}, None) == {}
    assert pixel_bound(name, {}, 10) == {}  # below the processor's own least
    assert pixel_bound(model(tmp_path, "llava_onevision", OWN[0]), {}, DEFAULT_MAX_PIXELS) == {}
    (tmp_path / "config.json").write_text("[]")
    assert pixel_bound(str(tmp_path), {}, DEFAULT_MAX_PIXELS) == {}


sides = st.integers(1, 60_000)


@given(width=sides, height=sides, budget=st.integers(50_000, 4_000_000), factor=st.sampled_from([28, 32]))
def test_no_image_is_shrunk_a_second_time(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, budget: int, factor: int
):
    name = model(tmp_path_factory.getbasetemp(), "qwen2_5_vl", OWN[0])
    bound = pixel_bound(name, {}, budget)["size"]["longest_edge"]
    # What the processor makes of an image before it looks at its bound.
    rounded = [max(factor, round(side / factor) * factor) for side in fit((width, height), budget)]
    assert rounded[0] * rounded[1] <= bound
