"""What `make bench-gpu` measures, each in a process of its own: our two ways, and `LLM.generate`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import PIL.Image

from tagllm_cli.engines.base import Usage
from tagllm_cli.engines.factory import ModelOptions
from tagllm_cli.engines.local.arguments import parse_engine_args
from tagllm_cli.engines.local.asker import read_outputs
from tagllm_cli.engines.local.engine import EngineSettings, InProcessEngine
from tagllm_cli.labeling.candidates import Candidates
from tagllm_cli.labeling.disambiguate import Disambiguate
from tagllm_cli.labeling.plan import DEFAULT_MAX_PIXELS, PlanOptions
from tagllm_cli.labeling.replan import new_plan
from tagllm_cli.labeling.rows import proposals
from tagllm_cli.labeling.templates import load_templates
from tagllm_cli.records import DecodedImage, Item, Request, Response
from tagllm_cli.sources.base import list_images
from tagllm_cli.sources.decode import decode
from tagllm_cli.sources.registry import open_source
from tagllm_cli.vocabulary.cards import cards_of
from tagllm_cli.vocabulary.load import load_vocabulary
from tests.bench.passes import Labeling, shared
from tests.bench.qwen import ONE_OF, RuledEngine, ruled, short

SIZE = (1152, 864)  # a megapixel; Qwen2.5-VL makes a token of 28 x 28 pixels
IMAGE_TOKENS = 41 * 31
VOCABULARY = "coco"


def ours(task: dict[str, Any]) -> dict[str, Any]:
    """Label in one pass and in two, with one engine."""
    engine = RuledEngine(_settings(task))
    kept = shared(engine, SIZE)
    began = time.monotonic()
    try:
        kept.run(kept.prepare())
        start = time.monotonic() - began
        model = ModelOptions(task["model"], engine_args=task["arguments"])
        labeling = Labeling(task["images"], VOCABULARY, model, kept, Path(task["out"]) / "tables")
        ways = {
            "run": {**asdict(labeling.one_pass()), "passes": 1},
            "two passes": {**asdict(labeling.two_passes()), "passes": 2},
        }
        return {"device": _device(), "vllm": engine.version, "start": start, "ways": ways}
    finally:
        kept.close()


def raw(task: dict[str, Any]) -> dict[str, Any]:
    """Give the requests of one pass to `LLM.generate`, then those of a naive script."""
    import vllm
    from transformers import AutoTokenizer

    parsed = parse_engine_args(task["arguments"])
    began = time.monotonic()
    # What `tagllm` runs with, so that only the streaming differs.
    defaults = InProcessEngine(_settings(task))._defaults(parsed)
    llm = vllm.LLM(task["model"], **{**defaults, **parsed})
    start = time.monotonic() - began
    tokenizer = AutoTokenizer.from_pretrained(task["model"])

    def prompt(request: Request, pixels: PIL.Image.Image, uuid: str | None) -> dict[str, Any]:
        user = [{"type": "image"}, {"type": "text", "text": request.text}]
        messages = [{"role": "system", "content": request.system}, {"role": "user", "content": user}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        uuids = {} if uuid is None else {"multi_modal_uuids": {"image": uuid}}
        return {"prompt": text, "multi_modal_data": {"image": pixels}, **uuids}

    def generate(asked: Sequence[tuple[Request, PIL.Image.Image, str | None]], images: int) -> dict[str, Any]:
        prompts = [prompt(*each) for each in asked]
        llm.reset_prefix_cache()
        began = time.monotonic()
        outputs = llm.generate(prompts, [_sampling(request) for request, _, _ in asked], use_tqdm=False)
        seconds = time.monotonic() - began
        usage, failed = Usage(), 0
        for (request, _, _), output in zip(asked, outputs, strict=True):
            response = read_outputs(request, [output])
            usage, failed = usage.plus(response), failed + (response.failure is not None)
        return {"images": images, "failed": failed, "seconds": seconds, "passes": 1, **asdict(usage)}

    pictures, one_pass, naive = _requests(task)
    warm_up = DecodedImage(PIL.Image.new("RGB", SIZE), "warm-up")
    generate([(short(request), warm_up.pixels, "warm-up") for request in one_pass[0]], 1)
    ways = {
        "generate": generate(
            [
                (short(request), image.pixels, image.uuid)
                for image, requests in zip(pictures, one_pass, strict=True)
                for request in requests
            ],
            len(pictures),
        ),
        "naive": generate(
            [(request, image.pixels, None) for image in pictures[: task["naive"]] for request in naive],
            len(pictures[: task["naive"]]),
        ),
    }
    return {"device": _device(), "vllm": f"vllm {vllm.__version__}", "start": start, "ways": ways}


def _requests(task: dict[str, Any]) -> tuple[list[DecodedImage], list[list[Request]], list[Request]]:
    """Return the images, what both stages ask about each by the rule's answers, and yes/no about every label."""
    vocabulary, templates = load_vocabulary(VOCABULARY), load_templates()
    options = PlanOptions("candidates", vocabulary, templates, model="bench", model_digest=bytes(16))
    first = Candidates(new_plan(options))
    second = Disambiguate(new_plan(replace(options, stage="labels")), cards_of(vocabulary))
    source = open_source(task["images"])
    pictures, asked = [], []
    for image in list_images(source):
        data = source.read(image)
        assert isinstance(data, bytes)
        info, picture = decode(data, DEFAULT_MAX_PIXELS)
        assert picture is not None
        item = Item(image, info)
        lists = first.requests(item)
        row = first.row(item, [ruled(picture, request, Response("-"), ONE_OF[VOCABULARY]) for request in lists])
        pictures.append(picture)
        asked.append([*lists, *second.requests(replace(item, proposed=proposals(row)))])
    return pictures, asked, [templates["verify"].request(20, name=name) for name in vocabulary.names]


def _sampling(request: Request) -> Any:
    from vllm import SamplingParams

    return SamplingParams(temperature=0, max_tokens=request.max_tokens, logprobs=request.top_logprobs or None)


def _settings(task: dict[str, Any]) -> EngineSettings:
    log = Path(task["out"]) / "vllm.log"
    return EngineSettings(task["model"], task["arguments"], max_pixels=DEFAULT_MAX_PIXELS, log_file=log)


def _device() -> str:
    from vllm.platforms import current_platform

    return str(current_platform.get_device_name() or "a CPU")
