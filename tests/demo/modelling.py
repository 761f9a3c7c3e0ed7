"""The demo model's shape, tokenizer and files: a 6-million-parameter Idefics3 that unmodified vLLM loads.

Everything is in Hugging Face layout. The picture becomes 49 image tokens (224 x 224 pixels, patches of 16, pixel
shuffle 2); the text model is a small Llama with tied embeddings.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SIDE = 224
IMAGE_TOKENS = 49
WIDTH = 256
VOCABULARY = 3072
PAD, IMAGE, FAKE, GLOBAL, END = "<pad>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL = (PAD, FAKE, GLOBAL, IMAGE, END, SYSTEM, USER, ASSISTANT)
IMAGE_TEXT = FAKE + GLOBAL + IMAGE * IMAGE_TOKENS + FAKE

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<end_of_utterance>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer(words: Iterable[str], size: int = VOCABULARY) -> Any:
    """Byte-level BPE in which nearly every word of `words` is one token.

    Any text can be encoded and comes back unchanged, except that one leading space is dropped: each stretch of text
    between special tokens starts with a space, so that a name is the same token first in an answer and inside a list.

    Args:
        words: texts to learn the vocabulary from; what occurs more often gets shorter encodings.
        size: number of tokens, special tokens and the 256 bytes included.

    Returns:
        A `transformers` fast tokenizer with the chat template.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(words, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=END, additional_special_tokens=list(SPECIAL[1:4] + SPECIAL[5:])
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def load_tokenizer(folder: Path) -> Any:
    """A tokenizer that `save_pretrained` wrote."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder)


def build_model(tokenizer: Any) -> Any:
    """An untrained `Idefics3ForConditionalGeneration` (float32) for a tokenizer of `build_tokenizer`."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    text = {
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 512,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64,
        "max_position_embeddings": 8192, "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
        "pad_token_id": pad, "bos_token_id": None, "eos_token_id": end,
    }  # fmt: skip
    vision = {
        "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 3,
        "image_size": SIDE, "patch_size": 16,
    }  # fmt: skip
    config = Idefics3Config(
        text_config=text, vision_config=vision, scale_factor=2, tie_word_embeddings=True, pad_token_id=pad,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE), eos_token_id=end, bos_token_id=None,
    )  # fmt: skip
    model = Idefics3ForConditionalGeneration(config)
    model.generation_config.update(eos_token_id=end, pad_token_id=pad, bos_token_id=None)
    return model


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Writes model (bfloat16 safetensors), tokenizer and processor into `folder`, which is replaced as a whole."""
    import torch
    from transformers import Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    images = Idefics3ImageProcessorPil(
        do_resize=False, do_image_splitting=False, size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE},
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    processor = Idefics3Processor(images, tokenizer, image_seq_len=IMAGE_TOKENS, chat_template=CHAT_TEMPLATE)
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(fresh)
    processor.save_pretrained(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
