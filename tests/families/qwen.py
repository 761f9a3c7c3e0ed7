"""Qwen2.5-VL, Qwen3-VL and Qwen3-VL-Thinking: images in their own size, a token for 28 x 28 or 32 x 32 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.families.files import CLIP_COLORS, HALF_COLORS, TEXT_MODEL, Json, write_json, write_model
from tests.families.tokenizers import byte_level, size_of

_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<think>",
    "</think>",
)
_DEFAULT_SYSTEM = (
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
)


def chat_template(image: str, *, default_system: bool = False, opening: str = "") -> str:
    """Return a ChatML template of the hub's structure, with `image` in the place of an image.

    `opening` begins the assistant's turn: an open think tag in a model that only answers after thinking aloud.
    """
    return (
        "{% for message in messages %}"
        + (_DEFAULT_SYSTEM if default_system else "")
        + "<|im_start|>{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}{% for content in message['content'] %}"
        "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
        + image
        + "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n" + opening + "{% endif %}"
    )


_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def qwen2_text(folder: Path, ids: Mapping[str, int]) -> Json:
    """Return the configuration of a small Qwen2 for the tokenizer in `folder`, whose special tokens have these ids."""
    return {
        "model_type": "qwen2",
        **TEXT_MODEL,
        "vocab_size": size_of(folder),
        "max_position_embeddings": 32768,
        "rope_theta": 1e6,
        "eos_token_id": ids["<|im_end|>"],
        "bos_token_id": ids["<|endoftext|>"],
    }


def write_qwen2_5_vl(folder: Path) -> None:
    """Write Qwen2.5-VL-7B-Instruct, small."""
    config = _config_of_all(folder, "Qwen2_5_VLForConditionalGeneration")
    config |= {
        "model_type": "qwen2_5_vl",
        **TEXT_MODEL,
        "vocab_size": size_of(folder),
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "sliding_window": 32768,
        "use_sliding_window": False,
        "max_window_layers": 28,
        "vision_config": {
            "model_type": "qwen2_5_vl",
            "depth": 2,
            "hidden_act": "silu",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "in_chans": 3,
            "out_hidden_size": TEXT_MODEL["hidden_size"],
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
    }
    preprocessor = {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        **CLIP_COLORS,
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    }
    write_json(folder, "preprocessor_config.json", preprocessor)
    write_model(folder, config, chat_template(_IMAGE, default_system=True))


def write_qwen3_vl(folder: Path) -> None:
    """Write Qwen3-VL-Instruct, small."""
    _write_qwen3_vl(folder, opening="")


def write_qwen3_vl_thinking(folder: Path) -> None:
    """Write Qwen3-VL-Thinking, small: the template opens the thinking itself, whatever it is told."""
    _write_qwen3_vl(folder, opening="<think>\n")


def _write_qwen3_vl(folder: Path, opening: str) -> None:
    config = _config_of_all(folder, "Qwen3VLForConditionalGeneration")
    text = {
        "model_type": "qwen3_vl_text",
        **TEXT_MODEL,
        "head_dim": 64,
        "vocab_size": size_of(folder),
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5e6,
        "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [12, 10, 10]},
        "hidden_act": "silu",
        "attention_bias": False,
        "eos_token_id": config["eos_token_id"],
        "bos_token_id": config["bos_token_id"],
    }
    vision = {
        "model_type": "qwen3_vl",
        "depth": 3,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "in_channels": 3,
        "out_hidden_size": TEXT_MODEL["hidden_size"],
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [0, 1],
    }
    config |= {"model_type": "qwen3_vl", "text_config": text, "vision_config": vision, "tie_word_embeddings": False}
    common = {
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        **HALF_COLORS,
        "processor_class": "Qwen3VLProcessor",
    }
    image = {
        "size": {"longest_edge": 16777216, "shortest_edge": 65536},
        "image_processor_type": "Qwen2VLImageProcessorFast",
        **common,
    }
    video = {
        "size": {"longest_edge": 25165824, "shortest_edge": 4096},
        "video_processor_type": "Qwen3VLVideoProcessor",
        **common,
    }
    write_json(folder, "preprocessor_config.json", image)
    write_json(folder, "video_preprocessor_config.json", video)
    write_model(folder, config, chat_template(_IMAGE, opening=opening))


def _config_of_all(folder: Path, architecture: str) -> Json:
    """Write tokenizer and generation settings, and return what the configurations of all of them have."""
    ids = byte_level(folder, _SPECIAL, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    start, end = ids["<|endoftext|>"], ids["<|im_end|>"]
    sampling = {"do_sample": True, "repetition_penalty": 1.05, "temperature": 0.7, "top_k": 20, "top_p": 0.8}
    write_json(folder, "generation_config.json", {"bos_token_id": start, "eos_token_id": [end, start], **sampling})
    return {
        "architectures": [architecture],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "eos_token_id": end,
        "bos_token_id": start,
    }
