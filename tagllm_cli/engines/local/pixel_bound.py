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

# Model types whose processor takes `max_pixels` and makes both sides multiples of 28 or 32 pixels.
_FAMILY = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
_ROUNDED_UP_BY = 16  # at most, per side


def pixel_bound(model: str, parsed: Mapping[str, Any], max_pixels: int | None) -> int | None:
    """Return `max_pixels` for the processor, so large that it never shrinks what is sent; None where none is needed.

    It changes no answer, and is no part of the model's identity.

    Args:
        model: folder or hub name.
        parsed: engine arguments that the user gave; their `mm_processor_kwargs` stand.
        max_pixels: the pixel budget (width x height) of the images that will be sent; None: unknown.
    """
    folder = local_files(model, parsed)
    if max_pixels is None or "mm_processor_kwargs" in parsed or folder is None or not folder.is_dir():
        return None
    if _read(folder / "config.json").get("model_type") not in _FAMILY:
        return None
    short = math.sqrt(max_pixels / MOST_ASPECT)  # thin images gain most by rounding
    bound = math.ceil((short + _ROUNDED_UP_BY) * (short * MOST_ASPECT + _ROUNDED_UP_BY))
    return bound if bound < _own_bound(folder) else None


def _own_bound(folder: Path) -> float:
    processor = _read(folder / "preprocessor_config.json")
    size = processor.get("size")
    own = processor.get("max_pixels") or (size.get("longest_edge") if isinstance(size, dict) else None)
    return own if isinstance(own, int) else math.inf


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
