"""In-process vLLM for all the cells of the ablation: each cell starts with empty caches and pays for its own tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import PIL.Image

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.local.engine import EngineSettings, InProcessEngine
from tagllm_cli.records import DecodedImage, Request
from tests.support.shared_engine import SharedEngine

_WARM_UP = tuple(Request("", f"Is the number {number} visible?", max_tokens=8, top_logprobs=20) for number in range(64))


def vllm_engine(model: Path, log_file: Path) -> SharedEngine:
    """Return in-process vLLM on a model folder as every user gets it by default, not started."""
    engine = InProcessEngine(EngineSettings(str(model), log_file=log_file))

    async def warm_up() -> None:
        # The first batches compile and fill pools: no cell is to pay for that.
        await ask_all(engine, DecodedImage(PIL.Image.new("RGB", (224, 224)), "warm-up"), _WARM_UP)

    async def forget() -> None:
        llm: Any = engine._llm  # no user needs a cold cache, so the engine offers none
        if not await llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept its prefix cache: requests of the last job are still running")
        await llm.reset_mm_cache()
        await llm.reset_encoder_cache()

    return SharedEngine(engine, warm_up, forget)
