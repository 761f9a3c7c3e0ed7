"""The largest image that vLLM has to expect: of the Qwen-VL family it would profile itself with one of 12.8 megapixels.

That takes minutes on a CPU and gigabytes on a GPU, for an image that is never sent: all are within the pixel budget.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tagllm_cli.engines.local.model_files import local_files
from tagllm_cli.records import MOST_ASPECT

# Model types whose processor takes this bound and makes both sides multiples of 28 or 32 pixels.
_FAMILY = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
_ROUNDED_UP_BY = 16  # at most, per side


def pixel_bound(model: str, parsed: Mapping[str, Any], max_pixels: int | None) -> dict[str, Any]:
    """Return `mm_processor_kwargs` with a bound so high that nothing that is sent is shrunk; empty: none is needed.

    It changes no answer, and is no part of the model's identity.

    Args:
        model: folder or hub name.
        parsed: engine arguments that the user gave; their `mm_processor_kwargs` stand.
        max_pixels: the pixel budget (width x height) of the images that will be sent; None: unknown.
    """
    folder = local_files(model, parsed)
    if max_pixels is None or "mm_processor_kwargs" in parsed or folder is None or not folder.is_dir():
        return {}
    if _read(folder / "config.json").get("model_type") not in _FAMILY:
        return {}
    least, most = _own_bounds(_read(folder / "preprocessor_config.json"))
    short = math.sqrt(max_pixels / MOST_ASPECT)  # thin images gain most by rounding
    bound = math.ceil((short + _ROUNDED_UP_BY) * (short * MOST_ASPECT + _ROUNDED_UP_BY))
    if least is None or most is None or not least <= bound < most:
        return {}
    return {"size": {"shortest_edge": least, "longest_edge": bound}}  # pixels, for all that they are called edges


def _own_bounds(processor: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the least and the most pixels of a processor, which older files call otherwise."""
    given = processor.get("size")
    size: Mapping[str, Any] = given if isinstance(given, dict) else {}
    return (
        processor.get("min_pixels") or size.get("shortest_edge"),
        processor.get("max_pixels") or size.get("longest_edge"),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
