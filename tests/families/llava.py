"""LLaVA-OneVision: tiles of 384 x 384 pixels by the image's size, scaled down where there are more than nine."""

from __future__ import annotations

from pathlib import Path

from tests.families.files import HALF_COLORS, VISION_MODEL, write_json, write_model
from tests.families.qwen import qwen2_text
from tests.families.tokenizers import byte_level

_SIDE = 384
_TILES = 6
_ASPECT = "anyres_max_9"
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} \n"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}<image>\n{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_llava_onevision(folder: Path) -> None:
    """Write LLaVA-OneVision-Qwen2-7B-ov-hf, small."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    ids = byte_level(folder, special, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    grid = [[_SIDE * rows, _SIDE * cols] for cols in range(1, _TILES + 1) for rows in range(1, _TILES + 1)]
    vision = {
        "model_type": "siglip_vision_model",
        **VISION_MODEL,
        "image_size": _SIDE,
        "patch_size": 14,
        "vision_use_head": False,
    }
    config = {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "model_type": "llava_onevision",
        "text_config": qwen2_text(folder, ids),
        "vision_config": vision,
        "image_token_index": ids["<image>"],
        "video_token_index": ids["<video>"],
        "image_grid_pinpoints": grid,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": _ASPECT,
        "tie_word_embeddings": False,
    }
    common = {
        "size": {"height": _SIDE, "width": _SIDE},
        **HALF_COLORS,
        "resample": 3,
        "processor_class": "LlavaOnevisionProcessor",
    }
    image = {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "image_grid_pinpoints": grid,
        "do_pad": True,
        **common,
    }
    processor = {
        "num_image_tokens": 729,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": _ASPECT,
        "image_token": "<image>",
        "video_token": "<video>",
        "processor_class": "LlavaOnevisionProcessor",
    }
    write_json(folder, "preprocessor_config.json", image)
    video = {"video_processor_type": "LlavaOnevisionVideoProcessor", **common}
    write_json(folder, "video_preprocessor_config.json", video)
    write_json(folder, "processor_config.json", processor)
    write_model(folder, config, _CHAT_TEMPLATE)
