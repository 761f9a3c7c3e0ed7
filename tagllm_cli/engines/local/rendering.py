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
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import PIL.Image

from tagllm_cli.records import DecodedImage, Request

_TEXTS_KEPT = 16_384
_TAIL_TOKENS = 16
_MOST_THREADS = 8  # a fifth of an image's time is spent in Python itself, one thread at a time
_PROBE_SIZE = (64, 64)


class Frame(NamedTuple):
    """The tokens of a text around an image.

    Args:
        head: before the image.
        probe: of the probe image in this text. Where they differ between texts, those of other images do, too: Gemma's
            line breaks make one token with those of the text.
        tail: after the image.
    """

    head: list[int]
    probe: tuple[int, ...]
    tail: list[int]


class Form(NamedTuple):
    """The tokens of an image in texts whose frames have the same probe, and vLLM's `PlaceholderRange` of them."""

    tokens: list[int]
    span: Any


class PreparedImage:
    """An image as vLLM's processor leaves it, from its first request on.

    Attributes:
        rendered: the engine's input of its first request, with the features until they are sent.
        forms: its tokens, by the frame's probe.
        is_sent: whether a request has taken the features along; later ones do without.
        lock: held while a request about it is rendered.
    """

    def __init__(self) -> None:
        self.rendered: Mapping[str, Any] = {}
        self.forms: dict[tuple[int, ...], Form] = {}
        self.is_sent = False
        self.lock = asyncio.Lock()

    def input(self, frame: Frame, form: Form, *, engine_keeps: bool) -> dict[str, Any]:
        """Return the input for a text; with the features, unless they were sent to an engine that keeps them."""
        [modality] = self.rendered["mm_placeholders"]
        prompt = {
            **self.rendered,
            "prompt_token_ids": [*frame.head, *form.tokens, *frame.tail],
            "mm_placeholders": {modality: [replace(form.span, offset=len(frame.head))]},
            "arrival_time": time.time(),
        }
        if engine_keeps:
            self.is_sent = True
            self.rendered = {**self.rendered, "mm_kwargs": {modality: [None]}}  # the features are megabytes
        return prompt


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
        self._config = _without_cache(renderer.config)
        self._pool = ThreadPoolExecutor(threads or min(_MOST_THREADS, _cores()), thread_name_prefix="prepare-image")
        self._own = threading.local()

    async def about(self, image: DecodedImage, prepared: PreparedImage, request: Request) -> Any:
        """Return the engine's input for a request about an image. Raises vLLM's errors (ValueError and others).

        Args:
            image: the image.
            prepared: what was prepared of it for earlier requests; its lock is held.
            request: the request.
        """
        frame = await self._frame(request)
        if frame is None:
            return await self._rendered(image, request)
        form = prepared.forms.get(frame.probe)
        if form is None:
            rendered = await self._rendered(image, request)
            form = _form(rendered, frame)
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

        Found with a small image, by vLLM's own renderer, which looks at it once for all texts.
        """
        key = (request.system, request.text)
        if key not in self._frames:
            async with self._framing:  # many images ask for the same texts at the same time
                if key not in self._frames:
                    _keep(self._frames, key, _frame(await self._rendered_probe(request)))
        self._frames.move_to_end(key)
        return self._frames[key]

    async def _rendered_probe(self, request: Request) -> Any:
        prompt = await self._prompt(self._probe, request)
        if _is_plain(prompt):
            return await self._renderer.process_for_engine_async({**prompt, **_pixels(self._probe)}, time.time())
        messages = conversation(request, pixels_part(self._probe))
        _, (rendered,) = await self._renderer.render_chat_async([messages], self._chat, self._tokens)
        return rendered

    async def _rendered(self, image: DecodedImage, request: Request) -> Any:
        """Return the engine's input with features, as a copy of vLLM's renderer makes it in a thread of the pool."""
        prompt = await self._prompt(image, request)

        def process() -> Any:
            renderer = self._renderer_of_thread()
            if _is_plain(prompt):
                return renderer.process_for_engine({**prompt, **_pixels(image)}, time.time())
            # A model that takes an image as something else, as chunks of a video, say.
            messages = conversation(request, pixels_part(image))
            _, (rendered,) = renderer.render_chat([messages], self._chat, self._tokens)
            return rendered

        return await asyncio.get_running_loop().run_in_executor(self._pool, process)

    def _renderer_of_thread(self) -> Any:
        """Return this thread's renderer, with a tokenizer and a processor of its own, and without a cache."""
        if not hasattr(self._own, "renderer"):
            # Fast tokenizers fail where two threads use one.
            self._own.renderer = type(self._renderer)(self._config, copy.deepcopy(self._renderer.tokenizer))
        return self._own.renderer

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


def _frame(rendered: Mapping[str, Any]) -> Frame | None:
    """Return what is around the image in an engine's input; None where it has no one place in it."""
    if rendered.get("type") != "multimodal":
        return None
    spans = [span for of_kind in rendered["mm_placeholders"].values() for span in of_kind]
    if len(spans) != 1:
        return None
    tokens, start, end = rendered["prompt_token_ids"], spans[0].offset, spans[0].offset + spans[0].length
    return Frame(tokens[:start], tuple(tokens[start:end]), tokens[end:])


def _form(rendered: Mapping[str, Any], frame: Frame) -> Form | None:
    """Return an image's tokens in an engine's input; None where other tokens than the frame's are around them."""
    found = _frame(rendered)
    if found is None or (found.head, found.tail) != (frame.head, frame.tail):
        return None
    [[span]] = rendered["mm_placeholders"].values()
    return Form(list(found.probe), span)


def engine_keeps_features(config: Any) -> bool:
    """Return whether vLLM's engines of this configuration keep an image's features for later requests.

    Copies of a model with experts work in step, and keep none; those of other models do not know of one another.
    """
    kinds = config.model_config.multimodal_config
    is_kept = kinds.mm_processor_cache_gb > 0 and getattr(kinds, "mm_processor_cache_type", "lru") == "lru"
    return is_kept and (config.parallel_config.data_parallel_size == 1 or not config.model_config.is_moe)


def _without_cache(config: Any) -> Any:
    """Return vLLM's configuration for a renderer that gives an image's features each time."""
    config, config.model_config = copy.copy(config), copy.copy(config.model_config)
    config.model_config.multimodal_config = copy.copy(config.model_config.multimodal_config)
    config.model_config.multimodal_config.mm_processor_cache_gb = 0
    return config


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_plain(prompt: Mapping[str, Any]) -> bool:
    """Return whether the model takes an image as an image."""
    return bool(prompt["multi_modal_data"].keys() == {"image"})


def _pixels(image: DecodedImage) -> dict[str, Any]:
    return {"multi_modal_data": {"image": [image.pixels]}, "multi_modal_uuids": {"image": [image.uuid]}}


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
