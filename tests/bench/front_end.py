"""(12) images/s that one client prepares for a model with Qwen2.5-VL's processor; the engine answers at once."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image

from tagllm_cli.engines.local.asker import Asker, SharedImage
from tagllm_cli.engines.local.rendering import PromptRenderer
from tagllm_cli.labeling.plan import DEFAULT_MAX_PIXELS
from tagllm_cli.records import DecodedImage, Request, Response
from tagllm_cli.sources.decode import decode

SIZE = (1152, 864)  # a megapixel
FILES, IMAGES, AT_ONCE, QUESTIONS = 12, 96, 16, 10
LONG_IMAGE = 512  # of the default step of 8,192 tokens, a sixteenth
ROUNDS = 3
START_S = 60  # until two clients at once have imported and warmed up


def front_end(child: Callable[..., dict[str, Any]], say: Callable[[str, str, str, bool], None]) -> None:
    """Print what one and two cores prepare, and what vLLM's own way does with both, with one torch thread or two.

    Two clients with a core each share nothing: no way of one client to use the second core can be worth more.
    """
    ways = ("ours 0", "ours 0,1", "vllm 0,1 1", "vllm 0,1 2")
    one, two, theirs, threads = (child("prepared", *way.split())["per_second"] for way in ways)
    begin = str(time.time() + START_S)
    with ThreadPoolExecutor(2) as clients:
        both = [clients.submit(child, "prepared", "ours", core, "1", begin) for core in "01"]
        apart = sum(client.result()["per_second"] for client in both)
    what = f"(12) images/s prepared on 2 cores ({two:.1f}) over 1 core ({one:.1f})"
    say(what, f"{two / one:.2f}", ">= 1.8", two / one >= 1.8)
    what = f"(12) the same over two clients with a core each ({apart:.1f}, {apart / one:.2f} of one)"
    say(what, f"{two / apart:.2f}", ">= 0.9", two / apart >= 0.9)
    what = f"(12) the same over vLLM's own way ({theirs:.1f}; with 2 torch threads {threads:.1f})"
    say(what, f"{two / theirs:.2f}", ">= 1.8", two / theirs >= 1.8)


def prepared(way: str, cores: str, torch_threads: str = "1", begin: str = "0") -> dict[str, Any]:
    """Decode JPEG files, and render requests about them, on these cores; return the best rate of some rounds.

    `begin` is the time before which no round begins, in seconds since 1970.
    """
    if hasattr(os, "sched_setaffinity"):
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, [available[int(core)] for core in cores.split(",")])
    os.environ["OMP_NUM_THREADS"] = torch_threads
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.renderers import renderer_from_config
    from vllm.usage.usage_lib import UsageContext

    from tests.families.registry import built

    arguments = AsyncEngineArgs(model=str(built("qwen2_5_vl")), load_format="dummy", max_model_len=8192)
    renderer = renderer_from_config(arguments.create_engine_config(UsageContext.LLM_CLASS))
    prompts = PromptRenderer(renderer, {})
    files = [photograph(seed) for seed in range(FILES)]
    ask = with_vllm(renderer, prompts) if way == "vllm" else with_asker(prompts)
    asyncio.run(drive(ask, files, "warm-up", AT_ONCE))
    time.sleep(max(0.0, float(begin) - time.time()))
    return {"per_second": max(asyncio.run(drive(ask, files, f"round {number}")) for number in range(ROUNDS))}


async def drive(ask: Callable[[DecodedImage], Any], files: list[bytes], name: str, images: int = IMAGES) -> float:
    """Decode and ask about so many images, some at a time; return images per second."""
    numbers = iter(range(images))
    loop = asyncio.get_running_loop()

    async def some() -> None:
        for number in numbers:
            _, image = await loop.run_in_executor(threads, decode, files[number % len(files)], DEFAULT_MAX_PIXELS)
            assert image is not None
            await ask(replace(image, uuid=f"{name}, {number}"))

    with ThreadPoolExecutor(4) as threads:
        began = time.monotonic()
        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
        return images / (time.monotonic() - began)


def requests() -> list[Request]:
    """The questions about an image."""
    return [
        Request("You label images.", f"Is thing {number} visible in the image? Answer yes or no.", max_tokens=1)
        for number in range(QUESTIONS)
    ]


def with_asker(prompts: PromptRenderer) -> Callable[[DecodedImage], Any]:
    """Ask as `candidates` does, of an engine that answers at once."""

    async def answer(prompt: Any, request: Request, rank: int | None) -> Response:
        assert len(prompt["prompt_token_ids"]) > 1000
        return Response("no")

    asker = Asker(prompts, answer, LONG_IMAGE)

    async def ask(image: DecodedImage) -> None:
        shared = SharedImage(image)
        responses = await asyncio.gather(*(asker.respond(shared, request, None) for request in requests()))
        assert all(response.failure is None for response in responses)

    return ask


def with_vllm(renderer: Any, prompts: PromptRenderer) -> Callable[[DecodedImage], Any]:
    """Ask as vLLM's own client does: each request is given the image, and one thread prepares all of them."""

    async def render(image: DecodedImage, request: Request) -> None:
        prompt = await prompts._text(image, request)  # tokenized once per text, as with ours
        pixels = {"multi_modal_data": {"image": [image.pixels]}, "multi_modal_uuids": {"image": [image.uuid]}}
        await renderer.process_for_engine_async({**prompt, **pixels}, time.time())

    async def ask(image: DecodedImage) -> None:
        await asyncio.gather(*(render(image, request) for request in requests()))

    return ask


def photograph(seed: int) -> bytes:
    """Return a JPEG file of about the size of a photograph's: large shapes, fine noise."""
    random = np.random.default_rng(seed)
    shapes = PIL.Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(SIZE, 3)
    noise = random.normal(0, 6, (SIZE[1], SIZE[0], 3))
    pixels = PIL.Image.fromarray(np.clip(np.asarray(shapes) + noise, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
