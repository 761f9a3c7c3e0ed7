"""(2) again, for a model that cuts each image into tiles: thousands of tokens per image, several images in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

IMAGES, QUESTIONS = 6, 8
SIDE = 224  # for Idefics3 among the dearest: 2,913 tokens


def tiling(folder: Path, child: Callable[..., dict[str, Any]], say: Callable[[str, str, str, bool], None]) -> None:
    """Print the prompt tokens that Idefics3 with tiles computes over the least: each image's prefix once, the texts."""
    found = child("tiles", str(folder / "idefics3"))
    share = found["computed"] / found["least"]
    say("(2) the same for Idefics3 with tiles, 2,913 tokens per image", f"{share:.3f}", "<= 1.05", share <= 1.05)


def tiles(folder: str) -> dict[str, Any]:
    """Ask yes/no questions about several images at once; return the prompt tokens computed, and the least possible."""
    from tagllm_cli.engines.base import ask_all
    from tagllm_cli.engines.local.engine import EngineSettings, InProcessEngine
    from tagllm_cli.engines.local.rendering import PromptRenderer
    from tagllm_cli.labeling.templates import load_templates
    from tagllm_cli.records import DecodedImage
    from tests.families.registry import build

    model = build("idefics3", Path(folder))
    arguments = {"load_format": "dummy", "enforce_eager": "true", "kv_cache_memory_bytes": str(1 << 30)}
    requests = [load_templates()["verify"].request(20, name=f"thing {number}") for number in range(QUESTIONS)]
    noise = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    images = [DecodedImage(Image.fromarray(pixels), f"noise-{number}") for number, pixels in enumerate(noise)]

    async def ask() -> dict[str, Any]:
        engine = InProcessEngine(EngineSettings(str(model), arguments, log_file=model / "vllm.log"))
        try:
            await engine.start()
            prompts = PromptRenderer(engine._llm.renderer, {})
            tokens = [(await prompts.render(images[0], request))["prompt_token_ids"] for request in requests]
            await asyncio.gather(*(ask_all(engine, image, requests) for image in images))
        finally:
            await engine.close()
        prefix = next(place for place, (a, b) in enumerate(zip(*tokens[:2], strict=False)) if a != b)
        least = IMAGES * (prefix + sum(len(each) - prefix for each in tokens))
        return {"computed": engine.usage().prompt_tokens - engine.usage().cached_tokens, "least": least}

    return asyncio.run(ask())
