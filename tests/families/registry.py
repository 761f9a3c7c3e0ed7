"""The model families that people load, and a small model of each, without weights: load it with load_format=dummy.

The files have the hub's layout, and every size that decides how many tokens an image takes is the real one (patch,
merge, tile, crop and pixel limits), so that the real processors do with an image what they do for the real model. The
text and vision models inside are tiny and random: they answer nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.families.gemma import write_gemma3
from tests.families.idefics import write_idefics3, write_smolvlm2
from tests.families.internvl import write_internvl
from tests.families.llava import write_llava_onevision
from tests.families.mistral import write_pixtral
from tests.families.qwen import write_qwen2_5_vl, write_qwen3_vl, write_qwen3_vl_thinking

FAMILIES: Mapping[str, Callable[[Path], None]] = {
    "qwen2_5_vl": write_qwen2_5_vl,
    "qwen3_vl": write_qwen3_vl,
    "qwen3_vl_thinking": write_qwen3_vl_thinking,
    "internvl": write_internvl,
    "gemma3": write_gemma3,
    "idefics3": write_idefics3,
    "smolvlm2": write_smolvlm2,
    "llava_onevision": write_llava_onevision,
    "pixtral": write_pixtral,
}


def build(family: str, folder: Path) -> Path:
    """Write the small model of a family into `folder`, which is made if necessary, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    FAMILIES[family](folder)
    return folder


@cache
def built(family: str) -> Path:
    """Return the folder of a family's small model, written once per process and removed at its end."""
    return build(family, Path(_temporary_folder().name) / family)


@cache
def _temporary_folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="families-")
