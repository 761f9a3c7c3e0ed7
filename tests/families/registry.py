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
from typing import NamedTuple

from tests.families.gemma import write_gemma3
from tests.families.idefics import write_idefics3, write_smolvlm2
from tests.families.internvl import write_internvl
from tests.families.llava import write_llava_onevision
from tests.families.mistral import write_pixtral
from tests.families.qwen import write_qwen2_5_vl, write_qwen3_vl, write_qwen3_vl_thinking


class Family(NamedTuple):
    """One family.

    Args:
        model: the model whose files are imitated.
        write: writes the small model into a folder.
        note: what its users should know.
    """

    model: str
    write: Callable[[Path], None]
    note: str = ""


FAMILIES: Mapping[str, Family] = {
    "qwen2_5_vl": Family("Qwen2.5-VL-7B-Instruct", write_qwen2_5_vl, "a token for 28 x 28 pixels"),
    "qwen3_vl": Family("Qwen3-VL-8B-Instruct", write_qwen3_vl, "a token for 32 x 32 pixels, 64 or more per image"),
    "qwen3_vl_thinking": Family(
        "Qwen3-VL-8B-Thinking", write_qwen3_vl_thinking, "only answers after thinking aloud: take the Instruct variant"
    ),
    "internvl": Family("InternVL3-8B-hf", write_internvl, "the image's shape decides, not its size"),
    "gemma3": Family(
        "gemma-3-4b-it", write_gemma3, "on a CPU vLLM lets image tokens see only what is before them: answers differ"
    ),
    "idefics3": Family("Idefics3-8B-Llama3", write_idefics3, "small square images are the dearest"),
    "smolvlm2": Family("SmolVLM2-2.2B-Instruct", write_smolvlm2, "needs `pip install num2words`"),
    "llava_onevision": Family("llava-onevision-qwen2-7b-ov-hf", write_llava_onevision, "large images are the dearest"),
    "pixtral": Family("Pixtral-12B-2409", write_pixtral, "Mistral's own files and tokenizer; so is Mistral Small 3"),
}


def build(family: str, folder: Path) -> Path:
    """Write the small model of a family into `folder`, which is made if necessary, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    FAMILIES[family].write(folder)
    return folder


@cache
def built(family: str) -> Path:
    """Return the folder of a family's small model, written once per process and removed at its end."""
    return build(family, Path(_temporary_folder().name) / family)


@cache
def _temporary_folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="families-")
