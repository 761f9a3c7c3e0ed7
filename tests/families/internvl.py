"""InternVL3-hf: up to 12 tiles of 448 x 448 pixels by the image's aspect, and the whole; 256 tokens each."""

from __future__ import annotations

from pathlib import Path

from tests.families.files import IMAGENET_COLORS, VISION_MODEL, write_json, write_model
from tests.families.qwen import chat_template, qwen2_text
from tests.families.tokenizers import byte_level

_SIDE = {"height": 448, "width": 448}
_NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


def write_internvl(folder: Path) -> None:
    """Write InternVL3-8B-hf, small."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *_NAMED.values()]
    ids = byte_level(
        folder, special, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=_NAMED, **_NAMED
    )
    vision = {
        "model_type": "internvl_vision",
        **VISION_MODEL,
        "image_size": [448, 448],
        "patch_size": [14, 14],
        "attention_bias": True,
        "norm_type": "layer_norm",
        "use_absolute_position_embeddings": True,
        "layer_scale_init_value": 0.1,
        "use_qk_norm": False,
        "use_mean_pooling": True,
    }
    config = {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "text_config": qwen2_text(folder, ids),
        "vision_config": vision,
        "image_token_id": ids["<IMG_CONTEXT>"],
        "image_seq_length": 256,
        "downsample_ratio": 0.5,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": False,
    }
    # The file says not to cut, and the processor's class cuts all the same.
    image = {
        "crop_to_patches": False,
        "min_patches": 1,
        "max_patches": 12,
        "size": _SIDE,
        "resample": 3,
        **IMAGENET_COLORS,
        "do_convert_rgb": True,
        "image_processor_type": "GotOcr2ImageProcessorFast",
        "processor_class": "InternVLProcessor",
    }
    write_json(folder, "preprocessor_config.json", image)
    video = {"size": _SIDE, "video_processor_type": "InternVLVideoProcessor"}
    write_json(folder, "video_preprocessor_config.json", video)
    write_json(folder, "processor_config.json", {"image_seq_length": 256, "processor_class": "InternVLProcessor"})
    write_model(folder, config, chat_template("<IMG_CONTEXT>\n"))
