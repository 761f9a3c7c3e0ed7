"""How many image tokens vLLM keeps: those of the images in flight, and never fewer than by its own choice."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tagllm_cli.engines.local.encoder_cache import keep_encoder_outputs


@pytest.mark.parametrize(("hidden", "own", "kept"), [(2048, 8192, 65_536), (8192, 32_768, 32_768)])
def test_more_images_are_kept_than_fill_a_step(hidden: int, own: int, kept: int) -> None:
    model = SimpleNamespace(get_hidden_size=lambda: hidden)
    scheduler = SimpleNamespace(encoder_cache_size=own)
    keep_encoder_outputs(SimpleNamespace(model_config=model, scheduler_config=scheduler))
    assert scheduler.encoder_cache_size == kept
