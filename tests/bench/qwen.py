"""Qwen2.5-VL without weights, small or in its real sizes; photographs for it; answers by rule, as its own are noise."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from tagllm_cli.engines.local.engine import InProcessEngine
from tagllm_cli.records import DecodedImage, Request, Response
from tagllm_cli.vocabulary.load import load_vocabulary

Json = dict[str, Any]

# Qwen2.5-VL-7B-Instruct's config.json, where the small model's is another.
REAL_TEXT: Json = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
}
REAL_VISION: Json = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 3584,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
LIST_TOKENS = 8  # what a real answer to a list question takes: two or three names
# Of so many names that are listed, one is proposed: about four of COCO's 80 labels, two or three of VOC's 20.
ONE_OF = {"coco": 20, "voc": 8}
_PROMPTS = Path(__file__).parents[2] / "prompts"


def write_qwen(folder: Path, *, is_small: bool) -> Path:
    """Write Qwen2.5-VL's files, to be loaded with load_format=dummy; return the folder.

    The tokenizer knows the words of the prompts and of the vocabularies, nearly all of them as one token, as the real
    one does.
    """
    from tests.families.registry import build

    build("qwen2_5_vl", folder)
    ids, size = _teach_words(folder)
    config: Json = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"vocab_size": size} if is_small else REAL_TEXT
    if not is_small:
        config["vision_config"] |= REAL_VISION
    start, end = ids["<|endoftext|>"], ids["<|im_end|>"]
    config |= {"bos_token_id": start, "eos_token_id": end}
    for name in ("vision_start", "vision_end"):
        config[f"{name}_token_id"] = ids[f"<|{name}|>"]
    for name in ("image", "video"):
        config[f"{name}_token_id"] = ids[f"<|{name}_pad|>"]
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    generation = {"bos_token_id": start, "eos_token_id": [end, start]}
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    return folder


def _teach_words(folder: Path) -> tuple[Mapping[str, int], int]:
    """Train the folder's tokenizer anew, on our prompts and vocabularies; return its tokens and their number."""
    from tokenizers import AddedToken, Tokenizer, pre_tokenizers, trainers

    path = folder / "tokenizer.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    special = [each["content"] for each in written["added_tokens"]]
    written |= {"added_tokens": []}
    written["model"] |= {"vocab": {}, "merges": []}
    core = Tokenizer.from_str(json.dumps(written))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=20_000, show_progress=False, initial_alphabet=alphabet, min_frequency=2)
    names = [name for each in ("coco", "voc", "scenes") for name in load_vocabulary(each).names]
    texts = [each.read_text(encoding="utf-8") for each in sorted(_PROMPTS.glob("*.yaml"))]
    core.train_from_iterator([*texts, ", ".join(names), *names, "system user assistant helpful"] * 4, trainer)
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    core.save(str(path))
    return core.get_vocab(), core.get_vocab_size()


def write_photographs(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write so many different JPEG files of this width and height, unless they are there; return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:05}.jpg"
        if not path.exists():
            path.write_bytes(photograph(number, size))
    return folder


def photograph(seed: int, size: tuple[int, int]) -> bytes:
    """Return a JPEG file of about the bytes of a photograph: large shapes, fine noise."""
    random = np.random.default_rng(seed)
    shapes = PIL.Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(size, 3)
    noise = random.integers(-12, 13, (size[1], size[0], 3), dtype=np.int16)
    pixels = PIL.Image.fromarray(np.clip(np.asarray(shapes) + noise, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def short(request: Request) -> Request:
    """Return the request as it is computed: a list ends after LIST_TOKENS, as a real answer would."""
    if request.top_logprobs:
        return request
    # With log-probabilities an answer counts that begins with its end, or says nothing.
    return replace(request, max_tokens=LIST_TOKENS, top_logprobs=1)


def ruled(image: DecodedImage | None, request: Request, response: Response, one_of: int) -> Response:
    """Return a response with another answer to a list question, by a rule; a failed one as it is.

    The rule proposes one of so many names that are listed, by a hash of image and name.
    """
    listed = re.search(r"Categories: (.*)$", f"{request.system}\n{request.text}", re.MULTILINE)
    if response.failure is not None or listed is None or request.top_logprobs:
        return response
    uuid = "" if image is None else image.uuid
    names = [name for name in listed.group(1).split(", ") if _hash(uuid, name) % one_of == 0]
    return replace(response, text=", ".join(names) or "none", finish="stop", first_logprobs={})


def _hash(*parts: str) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), "little")


class RuledEngine(InProcessEngine):
    """vLLM in this process with every token computed; what a list question is answered is replaced by `ruled`."""

    one_of = ONE_OF["coco"]

    async def ask(
        self, decoded_image: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        """Ask, and replace the answers to list questions."""
        asked = {short(request): request for request in requests}
        async with aclosing(super().ask(decoded_image, list(asked))) as answered:
            async for each, response in answered:
                yield asked[each], ruled(decoded_image, asked[each], response, self.one_of)
