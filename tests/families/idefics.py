"""Idefics3 and SmolVLM2: the image is enlarged, cut into squares, and added as a whole; text lies between them."""

from __future__ import annotations

from pathlib import Path

from tests.families.files import HALF_COLORS, TEXT_MODEL, VISION_MODEL, write_json, write_model
from tests.families.tokenizers import byte_level, size_of

_MOST_ROWS = 6
_PATCH = 14
_CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}"
    "{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def write_idefics3(folder: Path) -> None:
    """Write Idefics3-8B-Llama3, small: squares of 364 pixels, up to 1,456 on the longer side, 169 tokens each."""
    _write(folder, "Idefics3", "idefics3_vision", square=364, longest_edge=1456, scale=2)


def write_smolvlm2(folder: Path) -> None:
    """Write SmolVLM2-2.2B-Instruct, small: squares of 378 pixels, up to 1,512 on the longer side, 81 tokens each."""
    _write(folder, "SmolVLM", "smolvlm_vision", square=378, longest_edge=1512, scale=3)


def _write(folder: Path, name: str, vision_type: str, *, square: int, longest_edge: int, scale: int) -> None:
    cells = [f"<row_{row}_col_{col}>" for row in range(1, _MOST_ROWS + 1) for col in range(1, _MOST_ROWS + 1)]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<image>"]
    special += ["<end_of_utterance>", "<global-img>", *cells]
    ids = byte_level(folder, special, eos_token="<end_of_utterance>", bos_token="<|im_start|>", pad_token="<|im_end|>")
    ends = {
        "eos_token_id": ids["<end_of_utterance>"],
        "bos_token_id": ids["<|im_start|>"],
        "pad_token_id": ids["<|im_end|>"],
    }
    text = {
        "model_type": "llama",
        **TEXT_MODEL,
        "head_dim": 64,
        "vocab_size": size_of(folder),
        "max_position_embeddings": 16384,
        "rope_theta": 273768.0,
        **ends,
    }
    vision = {"model_type": vision_type, **VISION_MODEL, "image_size": square, "patch_size": _PATCH}
    config = {
        "architectures": [f"{name}ForConditionalGeneration"],
        "model_type": name.lower(),
        "text_config": text,
        "vision_config": vision,
        "scale_factor": scale,
        "image_token_id": ids["<image>"],
        "tie_word_embeddings": False,
        **ends,
    }
    image = {
        "do_image_splitting": True,
        "size": {"longest_edge": longest_edge},
        "max_image_size": {"longest_edge": square},
        "resample": 1,
        **HALF_COLORS,
        "do_pad": True,
        "do_convert_rgb": True,
        "image_processor_type": f"{name}ImageProcessor",
        "processor_class": f"{name}Processor",
    }
    write_json(folder, "preprocessor_config.json", image)
    length = (square // _PATCH // scale) ** 2
    write_json(folder, "processor_config.json", {"image_seq_len": length, "processor_class": f"{name}Processor"})
    write_model(folder, config, _CHAT_TEMPLATE)
