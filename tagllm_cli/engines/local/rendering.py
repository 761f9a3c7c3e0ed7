"""Render requests as inputs of vLLM's engine: chat template, tokens, and the features of the image.

vLLM's own renderer prepares one image at a time, and looks at it again for each request. Here an image is prepared once
for all requests about it, in one of several threads with a copy of vLLM's renderer each (its processors release the
interpreter's lock where they compute). What a text is around an image is the same for all images, and what an image is
within a text is the same for all texts: a prompt is put together from the two.

The engine keeps the features of an image under its key (`mm_hashes`), so that they travel once.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import PIL.Image

from tagllm_cli.engines.local.cores import usable_cores
from tagllm_cli.engines.local.prepared import Frame, PreparedImage, form_in, frame_in
from tagllm_cli.records import DecodedImage, Request

_TEXTS_KEPT = 16_384
_TAIL_TOKENS = 16
_MOST_THREADS = 8  # a fifth of an image's time is spent in Python itself, one thread at a time
# A thread that has computed outside the interpreter's lock waits this long, and not Python's 5 ms, for one that runs
# Python: a quarter more images/s on 2 cores.
_SWITCH_S = 0.0005
_ONE_THREAD = ("kimi_k25",)  # its processor ends the process where two threads compute (numba's work queue)
_PROBE_SIZE, _PROBE_CACHE_GB = (64, 64), 0.25


class PromptRenderer:
    """Renders an image and a request as the input of `AsyncLLM.generate`.

    Args:
        renderer: vLLM's renderer for the loaded model (`AsyncLLM.renderer`).
        template_kwargs: variables for the chat template.
        threads: images that are prepared at a time; None: one per core, up to 8.
    """

    def __init__(self, renderer: Any, template_kwargs: Mapping[str, Any], threads: int | None = None) -> None:
        from vllm.renderers import ChatParams

        self._renderer = renderer
        # Mistral's tokenizer has no template: it writes the tokens itself, those of an image by the image's size.
        self._is_mistral = type(renderer).__name__ == "MistralRenderer"
        self._chat = ChatParams(
            chat_template_kwargs={
                "add_generation_prompt": True,
                "continue_final_message": False,
                "tokenize": self._is_mistral,
                **({} if self._is_mistral else template_kwargs),
            }
        )
        # The chat template adds the special tokens.
        self._tokens = renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
        self._texts: OrderedDict[tuple[str, str, bool], dict[str, Any]] = OrderedDict()
        self._frames: OrderedDict[tuple[str, str], Frame | None] = OrderedDict()
        self._framing = asyncio.Lock()
        self._probe = DecodedImage(PIL.Image.new("RGB", _PROBE_SIZE, "gray"), f"probe-{id(self)}")
        self._engine_keeps = engine_keeps_features(renderer.config)
        is_alone = renderer.config.model_config.hf_config.model_type in _ONE_THREAD
        threads = 1 if is_alone else threads or min(_MOST_THREADS, usable_cores())
        sys.setswitchinterval(min(_SWITCH_S, sys.getswitchinterval()))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="prepare-image")
        self._of_thread = threading.local()

    async def about(self, image: DecodedImage, prepared: PreparedImage, request: Request) -> Any:
        """Return the engine's input for a request about an image. Raises vLLM's errors (ValueError and others).

        Args:
            image: the image.
            prepared: what was prepared of it for earlier requests.
            request: the request.
        """
        frame = await self._frame(request)
        if frame is None:
            return await self._rendered(image, request)
        form = prepared.forms.get(frame.probe)
        if form is None:
            rendered = await self._rendered(image, request)
            form = form_in(rendered, frame)
            if form is None:
                return rendered
            prepared.forms[frame.probe] = form
            if not prepared.rendered:
                prepared.rendered = {name: value for name, value in rendered.items() if name != "prompt"}
        return prepared.input(frame, form, engine_keeps=self._engine_keeps)

    async def render(self, image: DecodedImage | None, request: Request) -> Any:
        """Return the engine's input for one request. Raises vLLM's errors (ValueError and others).

        Args:
            image: the image; None where the request has none.
            request: the request.
        """
        if image is None or not request.with_image:
            prompt = await self._text(None, request)
            return await self._renderer.process_for_engine_async(dict(prompt), time.time())
        return await self.about(image, PreparedImage(), request)

    async def tail(self, request: Request) -> str:
        """Return the end of a request's rendered text, where the model goes on. Raises as `render` does."""
        tokens = (await self._text(None, request))["prompt_token_ids"]
        return str(self._renderer.get_tokenizer().decode(tokens[-_TAIL_TOKENS:]))

    def close(self) -> None:
        """Prepare no more images."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _frame(self, request: Request) -> Frame | None:
        """Return what is around an image in a request; None where an image has no one place in it.

        Found with a small image, which a renderer looks at once for all texts.
        """
        key = (request.system, request.text)
        if key not in self._frames:
            async with self._framing:  # many images ask for the same texts at the same time
                if key not in self._frames:
                    _keep(self._frames, key, frame_in(await self._rendered(self._probe, request)))
        self._frames.move_to_end(key)
        return self._frames[key]

    async def _rendered(self, image: DecodedImage, request: Request) -> Any:
        """Return the engine's input with features, made by the renderer of a thread of the pool."""
        prompt = await self._prompt(image, request)

        def process() -> Any:
            renderer = self._probing if image is self._probe else self._preparing
            if prompt["multi_modal_data"].keys() == {"image"}:
                pixels = {"multi_modal_data": {"image": [image.pixels]}, "multi_modal_uuids": {"image": [image.uuid]}}
                return renderer.process_for_engine({**prompt, **pixels}, time.time())
            # A model that takes an image as something else, as chunks of a video, say.
            _, (rendered,) = renderer.render_chat([conversation(request, pixels_part(image))], self._chat, self._tokens)
            return rendered

        return await asyncio.get_running_loop().run_in_executor(self._pool, process)

    @property
    def _preparing(self) -> Any:
        """This thread's renderer, which gives an image's features each time."""
        if not hasattr(self._of_thread, "renderer"):
            self._of_thread.renderer = self._copy(cache_gb=0)
        return self._of_thread.renderer

    @cached_property
    def _probing(self) -> Any:
        """The renderer of the probe, which it looks at once; of one thread at a time."""
        return self._copy(cache_gb=_PROBE_CACHE_GB)

    def _copy(self, cache_gb: float) -> Any:
        """Return a copy of vLLM's renderer with a tokenizer of its own: fast ones fail where two threads use one."""
        config = copy.copy(self._renderer.config)
        config.model_config = copy.copy(config.model_config)
        kinds = config.model_config.multimodal_config = copy.copy(config.model_config.multimodal_config)
        kinds.mm_processor_cache_gb, kinds.mm_processor_cache_type = cache_gb, "lru"
        return type(self._renderer)(config, copy.deepcopy(self._renderer.tokenizer))

    async def _prompt(self, image: DecodedImage, request: Request) -> dict[str, Any]:
        """Return the tokenized request with a place for the image."""
        if not self._is_mistral:
            return await self._text(image, request)
        part = {"type": "image_url", "image_url": {"url": await asyncio.to_thread(data_url, image.pixels)}}
        return await self._tokenize(conversation(request, part))

    async def _text(self, image: DecodedImage | None, request: Request) -> dict[str, Any]:
        """Return the rendered and tokenized request; image and uuid are empty under vLLM's names for them."""
        key = (request.system, request.text, image is not None)
        known = self._texts.get(key)
        if known is not None:
            self._texts.move_to_end(key)
            return known
        part = None if image is None else pixels_part(image)
        tokens = await self._tokenize(conversation(request, part))
        if "multi_modal_data" in tokens:  # keep the names, not the first image
            tokens["multi_modal_data"] = dict.fromkeys(tokens["multi_modal_data"])
        _keep(self._texts, key, tokens)
        return tokens

    async def _tokenize(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        _, prompt = await self._renderer.render_messages_async(messages, self._chat)
        return dict(await self._renderer.tokenize_prompt_async(prompt, self._tokens))


def engine_keeps_features(config: Any) -> bool:
    """Return whether vLLM's engines of this configuration keep an image's features for later requests.

    Copies of a model with experts work in step, and keep none; those of other models do not know of one another.
    """
    kinds = config.model_config.multimodal_config
    is_kept = kinds.mm_processor_cache_gb > 0 and getattr(kinds, "mm_processor_cache_type", "lru") == "lru"
    return is_kept and (config.parallel_config.data_parallel_size == 1 or not config.model_config.is_moe)


def _keep(kept: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    kept[key] = value
    if len(kept) > _TEXTS_KEPT:
        kept.popitem(last=False)


def conversation(request: Request, image_part: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the canonical messages: system if there is any, then the user's image before the text."""
    messages: list[dict[str, Any]] = []
    if request.system:
        messages.append({"role": "system", "content": request.system})
    content: Any = request.text
    if image_part is not None:
        content = [image_part, {"type": "text", "text": request.text}]
    return [*messages, {"role": "user", "content": content}]


def pixels_part(image: DecodedImage) -> dict[str, Any]:
    """Return an image as a message part of vLLM's own, which takes pixels as they are."""
    return {"type": "image_pil", "image_pil": image.pixels, "uuid": image.uuid}


def data_url(pixels: PIL.Image.Image) -> str:
    """Return pixels as the data URL of a PNG."""
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
