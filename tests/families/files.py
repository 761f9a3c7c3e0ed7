"""What the builders share: writing files, and the sizes that all the small models have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]

# A text model and a vision model that load in a second. Nothing here decides how many tokens an image takes.
TEXT_MODEL: Json = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
VISION_MODEL: Json = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}

CLIP_COLORS: Json = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
IMAGENET_COLORS: Json = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF_COLORS: Json = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def write_json(folder: Path, name: str, value: Json) -> None:
    """Write one of the model's JSON files."""
    (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_model(folder: Path, config: Json, chat_template: str) -> None:
    """Write config.json, for bfloat16 weights, and the chat template."""
    write_json(folder, "config.json", {"dtype": "bfloat16", "torch_dtype": "bfloat16", **config})
    (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
