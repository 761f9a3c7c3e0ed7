"""Gemma 3: every image becomes 896 x 896 pixels and 256 tokens."""

from __future__ import annotations

from pathlib import Path

from tests.families.files import HALF_COLORS, TEXT_MODEL, VISION_MODEL, write_json, write_model
from tests.families.tokenizers import byte_fallback, size_of

_NAMED = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
# The system message is put before the first message of the user.
_CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% if messages[0]['content'] is string %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% else %}{% set first = messages[0]['content'][0]['text'] + '\n\n' %}{% endif %}"
    "{% set loop_messages = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set loop_messages = messages %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ first if loop.first else '' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}"
    "{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}<start_of_image>"
    "{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def write_gemma3(folder: Path) -> None:
    """Write Gemma 3 4B-it, small: five layers of six see 1,024 tokens only."""
    special = ["<start_of_turn>", "<end_of_turn>", *_NAMED.values()]
    ids = byte_fallback(
        folder,
        special,
        eos_token="<eos>",
        bos_token="<bos>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=_NAMED,
        **_NAMED,
    )
    ends = [ids["<eos>"], ids["<end_of_turn>"]]
    text = {
        "model_type": "gemma3_text",
        **TEXT_MODEL,
        "num_hidden_layers": 6,
        "head_dim": 64,
        "vocab_size": size_of(folder),
        "sliding_window": 1024,
        "query_pre_attn_scalar": 64,
        "max_position_embeddings": 131072,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    }
    vision = {
        "model_type": "siglip_vision_model",
        **VISION_MODEL,
        "image_size": 896,
        "patch_size": 14,
        "vision_use_head": False,
    }
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": text,
        "vision_config": vision,
        "mm_tokens_per_image": 256,
        "boi_token_index": ids["<start_of_image>"],
        "eoi_token_index": ids["<end_of_image>"],
        "image_token_index": ids["<image_soft_token>"],
        "eos_token_id": ends,
        "bos_token_id": ids["<bos>"],
        "pad_token_id": ids["<pad>"],
    }
    image = {
        "size": {"height": 896, "width": 896},
        "resample": 2,
        "image_seq_length": 256,
        **HALF_COLORS,
        "do_pan_and_scan": None,
        "image_processor_type": "Gemma3ImageProcessor",
        "processor_class": "Gemma3Processor",
    }
    write_json(folder, "preprocessor_config.json", image)
    write_json(folder, "processor_config.json", {"image_seq_length": 256, "processor_class": "Gemma3Processor"})
    sampling = {"do_sample": True, "top_k": 64, "top_p": 0.95}
    write_json(folder, "generation_config.json", {"eos_token_id": ends, **sampling})
    write_model(folder, config, _CHAT_TEMPLATE)
