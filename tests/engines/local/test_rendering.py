"""Prompts that are put together from a text and an image, against vLLM's own of both; no engine, no weights.

The tests of the families (`test_families.py`) compare all of them; these have one of each kind.
"""

from __future__ import annotations

import asyncio
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tagllm_cli.engines.local.prepared import PreparedImage
from tagllm_cli.engines.local.rendering import PromptRenderer, conversation, engine_keeps_features, pixels_part
from tagllm_cli.records import DecodedImage, Request
from tests.families.registry import built

pytestmark = [pytest.mark.live, pytest.mark.filterwarnings("ignore")]  # vLLM and Transformers warn of themselves

SIZES = [(640, 480), (224, 224), (27, 29), (1, 1), (1400, 20)]
TEXTS = [
    Request("You label images.", "Is a cat visible? Answer yes or no."),
    Request("", "Which of: cat, dog?"),
    Request("You label images.\n\n", "\n\nIs a dog visible?"),
]


@cache
def renderer_of(family: str, **arguments: Any) -> Any:
    """vLLM's renderer of a family's small model."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.renderers import renderer_from_config
    from vllm.usage.usage_lib import UsageContext

    given = {"load_format": "dummy", "max_model_len": 8192, "limit_mm_per_prompt": {"image": 1}, **arguments}
    config = AsyncEngineArgs(model=str(built(family)), **given).create_engine_config(UsageContext.LLM_CLASS)
    return renderer_from_config(config)


def noise(size: tuple[int, int], uuid: str) -> DecodedImage:
    pixels = np.random.default_rng(len(uuid)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return DecodedImage(PIL.Image.fromarray(pixels), uuid)


def with_prompts(renderer: Any, work: Any, **options: Any) -> Any:
    """Await `work(prompts)` of a prompt renderer."""

    async def body() -> Any:
        prompts = PromptRenderer(renderer, {}, **options)
        try:
            return await work(prompts)
        finally:
            prompts.close()

    return asyncio.run(body())


async def vllms_own(prompts: PromptRenderer, image: DecodedImage, request: Request) -> Any:
    messages = conversation(request, pixels_part(image))
    _, [rendered] = await prompts._renderer.render_chat_async([messages], prompts._chat, prompts._tokens)
    return rendered


def features(prompt: Any) -> dict[str, Any] | None:
    [[item]] = prompt["mm_kwargs"].values()
    return None if item is None else {name: element.data for name, element in item.items()}


def spans(prompt: Any) -> list[tuple[int, int, Any]]:
    [found] = prompt["mm_placeholders"].values()
    return [(each.offset, each.length, None if each.is_embed is None else each.is_embed.tolist()) for each in found]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "idefics3"])
def test_a_prompt_is_what_vllm_makes_of_text_and_image(family: str):
    async def compare(prompts: PromptRenderer) -> None:
        for size in SIZES:
            prepared = PreparedImage()
            for place, request in enumerate(TEXTS):
                ours = await prompts.about(noise(size, f"{family} {size}"), prepared, request)
                theirs = await vllms_own(prompts, noise(size, f"{family} {size}"), request)
                assert ours["prompt_token_ids"] == theirs["prompt_token_ids"], (size, request)
                assert spans(ours) == spans(theirs)
                assert ours["mm_hashes"] == theirs["mm_hashes"]
                sent, expected = features(ours), features(theirs)  # vLLM's own way sends them once, too
                assert (sent is None) == (expected is None) == (place > 0)
                if sent is not None and expected is not None:
                    assert sent.keys() == expected.keys()
                    assert all(bool((sent[name] == expected[name]).all()) for name in sent)

    with_prompts(renderer_of(family), compare)


def test_images_that_are_prepared_at_the_same_time_are_the_same():
    images = [noise((200 + 10 * number, 300), "x" * number) for number in range(12)]

    async def together(prompts: PromptRenderer) -> list[Any]:
        return list(await asyncio.gather(*(prompts.render(image, TEXTS[0]) for image in images)))

    async def in_turn(prompts: PromptRenderer) -> list[Any]:
        return [await prompts.render(image, TEXTS[0]) for image in images]

    renderer = renderer_of("qwen2_5_vl")
    for one, other in zip(
        with_prompts(renderer, together, threads=4), with_prompts(renderer, in_turn, threads=1), strict=True
    ):
        assert one["prompt_token_ids"] == other["prompt_token_ids"]
        assert bool((features(one)["pixel_values"] == features(other)["pixel_values"]).all())  # type: ignore[index]


def test_an_engine_that_keeps_nothing_gets_the_features_each_time():
    async def three(prompts: PromptRenderer) -> list[bool]:
        prepared = PreparedImage()
        rendered = [await prompts.about(noise((64, 48), "kept"), prepared, request) for request in TEXTS]
        assert not prepared.is_sent
        return [features(each) is not None for each in rendered]

    assert with_prompts(renderer_of("qwen2_5_vl", mm_processor_cache_gb=0), three) == [True] * 3


def test_an_image_with_several_places_in_a_prompt_is_left_to_vllm(monkeypatch: pytest.MonkeyPatch):
    renderer = renderer_of("qwen2_5_vl")
    shown = noise((64, 48), "two places")

    def twice(rendered: Any) -> Any:
        [modality] = rendered["mm_placeholders"]
        return {**rendered, "mm_placeholders": {modality: rendered["mm_placeholders"][modality] * 2}}

    async def both(prompts: PromptRenderer) -> list[Any]:
        prepared, rendered = PreparedImage(), prompts._rendered

        async def found(image: DecodedImage, request: Request) -> Any:
            return twice(await rendered(image, request))

        monkeypatch.setattr(prompts, "_rendered", found)
        return [await prompts.about(shown, prepared, request) for request in TEXTS[:2]]

    one, other = with_prompts(renderer, both)
    assert features(one) is not None
    assert features(other) is not None


@pytest.mark.parametrize(
    ("cache_gb", "kind", "copies", "is_moe", "keeps"),
    [
        (4, "lru", 1, False, True),
        (4, "lru", 1, True, True),
        (4, "lru", 8, False, True),
        (4, "lru", 8, True, False),
        (0, "lru", 1, False, False),
        (4, "shm", 1, False, False),
    ],
)
def test_which_engines_keep_the_features(cache_gb: float, kind: str, copies: int, is_moe: bool, keeps: bool):
    kinds = SimpleNamespace(mm_processor_cache_gb=cache_gb, mm_processor_cache_type=kind)
    config = SimpleNamespace(
        model_config=SimpleNamespace(multimodal_config=kinds, is_moe=is_moe),
        parallel_config=SimpleNamespace(data_parallel_size=copies),
    )
    assert engine_keeps_features(config) is keeps
