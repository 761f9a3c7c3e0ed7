"""Pixtral in Mistral's own format: params.json and mistral_common's tokenizer; no config.json, no chat template."""

from __future__ import annotations

import shutil
from pathlib import Path

import mistral_common

from tests.families.files import write_json

_TEKKEN = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"


def write_pixtral(folder: Path) -> None:
    """Write Pixtral-12B-2409, small: a token for 16 x 16 pixels, up to 1,024 on the longer side."""
    shutil.copyfile(_TEKKEN, folder / "tekken.json")
    vision = {
        "hidden_size": 64,
        "num_channels": 3,
        "image_size": 1024,
        "patch_size": 16,
        "rope_theta": 10000.0,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_token_id": 10,
        "image_break_token_id": 12,
        "image_end_token_id": 13,
        "adapter_bias": True,
    }
    params = {
        "dim": 128,
        "n_layers": 2,
        "head_dim": 64,
        "hidden_dim": 256,
        "n_heads": 2,
        "n_kv_heads": 1,
        "rope_theta": 1e9,
        "norm_eps": 1e-5,
        "vocab_size": 131072,
        "max_position_embeddings": 32768,
        "vision_encoder": vision,
    }
    write_json(folder, "params.json", params)
    # By this name vLLM knows the format. A file of weights without any: the length of its header, and the header.
    (folder / "consolidated.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
