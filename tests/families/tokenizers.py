"""Small tokenizers of the two kinds that the families have: byte-level BPE, and BPE with byte fallback (Gemma)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.families.files import write_json

_VOCABULARY = 600
_LEARNED_FROM = (
    "yes no Yes No none person dog cat car traffic light teddy bear",
    "You label images. Look at the whole image.",
    "Which of these categories are visible in the image? Answer only with names from the list.",
    "Category: mouse. Is it visible in the image? Answer yes or no.",
)
# How Qwen2 and its relatives cut a text into words.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GEMMA_FIRST = ("<pad>", "<eos>", "<bos>", "<unk>")


def byte_level(folder: Path, special: Sequence[str], **settings: Any) -> dict[str, int]:
    """Write a byte-level tokenizer as Qwen, SmolLM and Llama 3 have one, and return the id of each special token.

    `settings` go into tokenizer_config.json.
    """
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    _train(core, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    return _write(folder, core, special, settings)


def byte_fallback(folder: Path, special: Sequence[str], **settings: Any) -> dict[str, int]:
    """Write a tokenizer as Gemma has one, `<pad>`, `<eos>`, `<bos>` and `<unk>` first; else as `byte_level`."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    _train(core, special_tokens=[*_GEMMA_FIRST, *(f"<0x{byte:02X}>" for byte in range(256))])
    core.add_tokens([AddedToken("\n" * count, normalized=False) for count in (1, 2, 3, 4)])  # vLLM looks them up
    return _write(folder, core, [*_GEMMA_FIRST, *special], settings)


def _train(core: Tokenizer, **settings: Any) -> None:
    trainer = trainers.BpeTrainer(vocab_size=_VOCABULARY, show_progress=False, **settings)
    core.train_from_iterator(_LEARNED_FROM * 4, trainer)


def _write(folder: Path, core: Tokenizer, special: Sequence[str], settings: dict[str, Any]) -> dict[str, int]:
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    core.save(str(folder / "tokenizer.json"))
    write_json(
        folder,
        "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 131072, **settings},
    )
    ids: dict[str, int] = core.get_vocab()
    return {token: ids[token] for token in special}


def size_of(folder: Path) -> int:
    """Return the number of tokens of the tokenizer in `folder`."""
    return Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
