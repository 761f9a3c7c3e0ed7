"""The model families that people load, through real vLLM and their real processors; random weights answer nothing.

One start per family. What needs no engine, token counts and templates, is tested in tests/families.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.local.asker import image_tokens
from tagllm_cli.engines.local.engine import EngineSettings
from tagllm_cli.engines.local.image_tokens import load_counter
from tagllm_cli.engines.local.rendering import PromptRenderer, conversation, pixels_part
from tagllm_cli.errors import ModelError
from tagllm_cli.labeling.plan import DEFAULT_MAX_PIXELS
from tagllm_cli.records import DecodedImage, Request, Response
from tagllm_cli.sources.decode import decode
from tests.families.registry import FAMILIES, build
from tests.support.image_files import encode
from tests.support.live import QUICK_START, LiveEngine, running

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("no_engine")]

SYSTEM = "You label images."
BLOCK = 32  # tokens that the prefix cache keeps together on a CPU
WARM_UP = Request(SYSTEM, "yes or no?", with_image=False, max_tokens=1)
RUN = [name for name in FAMILIES if name != "qwen3_vl_thinking"]
MORE_ARGS = {"idefics3": {"max_model_len": "4000"}}


def question(number: int) -> Request:
    return Request(SYSTEM, f"Is thing {number} visible in the image? Answer yes or no.", max_tokens=1, top_logprobs=20)


def picture(width: int, height: int, seed: int = 0, mode: str = "RGB") -> DecodedImage:
    """A picture of noise as a run gets it: decoded, within the pixel budget."""
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    _, decoded = decode(
        encode(PIL.Image.fromarray(noise).convert("L" if mode == "I;16" else "RGB").convert(mode), "PNG"),
        DEFAULT_MAX_PIXELS,
    )
    assert decoded is not None
    return decoded


def odd_pictures() -> list[DecodedImage]:
    sizes = [(640, 480), (224, 224), (1, 1), (27, 29), (1001, 1001), (3000, 20), (300, 1), (1, 5000), (3000, 2000)]
    return [picture(*size) for size in sizes] + [picture(64, 48, mode=mode) for mode in ("L", "RGBA", "1", "I;16")]


@pytest.fixture(scope="module", params=RUN)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, live: Any) -> Iterator[LiveEngine]:
    """The family's small model in this process."""
    live.close()
    folder = build(request.param, tmp_path_factory.mktemp(request.param))
    arguments = {**QUICK_START, "load_format": "dummy", "max_num_seqs": "64", **MORE_ARGS.get(request.param, {})}
    settings = EngineSettings(str(folder), arguments, max_pixels=DEFAULT_MAX_PIXELS, log_file=folder / "vllm.log")
    with running(settings) as engine:
        engine.ask(None, [WARM_UP])
        yield engine


def failures(responses: Sequence[Response]) -> list[Any]:
    return [response.failure for response in responses]


def test_every_picture_is_answered(family: LiveEngine):
    pictures = odd_pictures()

    async def everything() -> list[list[Response]]:
        return list(await asyncio.gather(*(ask_all(family.engine, each, [question(1)]) for each in pictures)))

    answers = family.run(everything())
    assert [failures(responses) for responses in answers] == [[None]] * len(pictures)
    assert all(response.output_tokens == 1 and response.first_logprobs for each in answers for response in each)


def test_an_image_takes_as_many_tokens_as_a_dry_run_says(family: LiveEngine, request: pytest.FixtureRequest):
    renderer, name = family.engine._llm.renderer, request.node.callspec.params["family"]
    prompts, counter = PromptRenderer(renderer, {}), load_counter(family.engine.settings.model, {})

    async def tokens(shown: DecodedImage, key: str) -> tuple[int, int]:
        """Return the tokens of a rendered question, and those of the image among them."""
        ours = await prompts.render(replace(shown, uuid=key), question(3))
        if name != "pixtral":  # vLLM's own way refuses pixels there
            messages = conversation(question(3), pixels_part(replace(shown, uuid=f"{key}-theirs")))
            _, [theirs] = await renderer.render_chat_async([messages], prompts._chat, prompts._tokens)
            assert ours["prompt_token_ids"] == theirs["prompt_token_ids"]
        # Gemma's text begins with a line break, which makes one token with those that end the image.
        assert abs(len(ours["prompt_token_ids"]) - counter.text(question(3)) - image_tokens(ours)) <= (name == "gemma3")
        return len(ours["prompt_token_ids"]), image_tokens(ours)

    for size in ((224, 224), (640, 480), (1156, 867), (1, 1)):
        prompt, of_image = family.run(tokens(picture(*size), f"{name}-{size}"))
        assert of_image == counter.image(size), size
        [response] = family.ask(picture(*size, seed=7), [question(3)])
        assert response.prompt_tokens == prompt


def test_an_image_is_computed_once(family: LiveEngine, request: pytest.FixtureRequest):
    images, requests = 4, [question(number) for number in range(8)]
    size = (224, 224) if request.node.callspec.params["family"] == "idefics3" else (640, 480)
    pictures = [picture(*size, seed=100 + number) for number in range(images)]
    prompts = PromptRenderer(family.engine._llm.renderer, {})

    async def everything() -> list[list[Response]]:
        return list(await asyncio.gather(*(ask_all(family.engine, each, requests) for each in pictures)))

    async def shared() -> int:
        """Return how many tokens two requests about an image begin with in common."""
        one, other = [(await prompts.render(picture(*size), each))["prompt_token_ids"] for each in requests[:2]]
        return next(place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)

    answers = family.run(everything())
    assert [failures(responses) for responses in answers] == [[None] * len(requests)] * images
    blocks = family.run(shared()) // BLOCK * BLOCK
    for responses in answers:
        assert sum(response.cached_tokens >= blocks for response in responses) >= len(requests) - 1
    cached, prompt = (
        sum(getattr(response, name) for responses in answers for response in responses)
        for name in ("cached_tokens", "prompt_tokens")
    )
    assert cached / prompt > 0.8 or blocks < 300  # of short prompts, much is in the block that differs


@pytest.mark.parametrize("family", ["idefics3"], indirect=True)
@pytest.mark.parametrize("place", [0, 3])
def test_a_request_that_is_too_long_for_its_image_fails_alone(family: LiveEngine, place: int):
    requests = [question(number) for number in range(6)]
    requests[place] = Request(SYSTEM, "cat " * 1500, max_tokens=1, top_logprobs=20)
    pictures = [picture(224, 224, seed=200 + 10 * place + number) for number in range(6)]

    async def everything() -> list[list[Response]]:
        return list(await asyncio.gather(*(ask_all(family.engine, each, requests) for each in pictures)))

    for responses in family.run(everything()):
        kinds = [response.failure and response.failure.kind for response in responses]
        assert kinds == ["too_long" if number == place else None for number in range(6)]


@pytest.mark.parametrize("family", ["qwen3_vl"], indirect=True)
def test_a_model_that_only_answers_after_reasoning_is_refused(family: LiveEngine, tmp_path: Path):
    template = (build("qwen3_vl_thinking", tmp_path) / "chat_template.jinja").read_text()
    prompts = PromptRenderer(family.engine._llm.renderer, {})
    prompts._chat = replace(prompts._chat, chat_template=template)  # all that differs between the two models
    with pytest.raises(ModelError, match="answers only after reasoning: its prompt ends in <think>"):
        family.run(family.engine._try_out(prompts))
