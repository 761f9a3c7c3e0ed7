"""Render requests as inputs of vLLM's engine: chat template, image placeholder, tokens, pixels.

vLLM's renderer does it, as in `LLM.chat`, so that every multimodal model gets its own form. A text is rendered and
tokenized once for all images (a run asks the same few questions about every image), and an image is preprocessed once
for all texts (its `uuid` is the key of vLLM's cache).
"""

from __future__ import annotations

import base64
import io
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import PIL.Image

from tagllm_cli.records import DecodedImage, Request

_TEXTS_KEPT = 16_384
_TAIL_TOKENS = 16


class PromptRenderer:
    """Renders an image and a request as the input of `AsyncLLM.generate`.

    Args:
        renderer: vLLM's renderer for the loaded model (`AsyncLLM.renderer`).
        template_kwargs: variables for the chat template.
    """

    def __init__(self, renderer: Any, template_kwargs: Mapping[str, Any]) -> None:
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
        self._part: tuple[str, str] = ("", "")  # uuid and data URL of the last image

    async def render(self, image: DecodedImage | None, request: Request, uuid: str | None = None) -> Any:
        """Return the engine's input for one request. Raises vLLM's errors (ValueError and others).

        Args:
            image: the image; None where the request has none.
            request: the request.
            uuid: the image's key in vLLM's cache; None: `image.uuid`.
        """
        if image is None or not request.with_image:
            return await self._prepare(await self._text(None, request))
        uuid = uuid or image.uuid
        prompt = await (self._mistral(image, request) if self._is_mistral else self._text(image, request))
        if prompt["multi_modal_data"].keys() != {"image"}:
            # A model that takes an image as something else, as chunks of a video, say: nothing is shared.
            messages = conversation(request, pixels_part(image, uuid))
            _, (rendered,) = await self._renderer.render_chat_async([messages], self._chat, self._tokens)
            return rendered
        pixels = {"multi_modal_data": {"image": [image.pixels]}, "multi_modal_uuids": {"image": [uuid]}}
        return await self._prepare({**prompt, **pixels})

    async def tail(self, request: Request) -> str:
        """Return the end of a request's rendered text, where the model goes on. Raises as `render` does."""
        tokens = (await self._text(None, request))["prompt_token_ids"]
        return str(self._renderer.get_tokenizer().decode(tokens[-_TAIL_TOKENS:]))

    async def _prepare(self, prompt: Mapping[str, Any]) -> Any:
        return await self._renderer.process_for_engine_async(dict(prompt), time.time())

    async def _text(self, image: DecodedImage | None, request: Request) -> dict[str, Any]:
        """Return the rendered and tokenized request; image and uuid are empty under vLLM's names for them."""
        key = (request.system, request.text, image is not None)
        known = self._texts.get(key)
        if known is not None:
            self._texts.move_to_end(key)
            return known
        part = None if image is None else pixels_part(image, image.uuid)
        tokens = await self._tokenize(conversation(request, part))
        if "multi_modal_data" in tokens:  # keep the names, not the first image
            tokens["multi_modal_data"] = dict.fromkeys(tokens["multi_modal_data"])
        self._texts[key] = tokens
        if len(self._texts) > _TEXTS_KEPT:
            self._texts.popitem(last=False)
        return tokens

    async def _mistral(self, image: DecodedImage, request: Request) -> dict[str, Any]:
        if self._part[0] != image.uuid:
            self._part = (image.uuid, data_url(image.pixels))
        return await self._tokenize(conversation(request, {"type": "image_url", "image_url": {"url": self._part[1]}}))

    async def _tokenize(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        _, prompt = await self._renderer.render_messages_async(messages, self._chat)
        return dict(await self._renderer.tokenize_prompt_async(prompt, self._tokens))


def conversation(request: Request, image_part: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the canonical messages: system if there is any, then the user's image before the text."""
    messages: list[dict[str, Any]] = []
    if request.system:
        messages.append({"role": "system", "content": request.system})
    content: Any = request.text
    if image_part is not None:
        content = [image_part, {"type": "text", "text": request.text}]
    return [*messages, {"role": "user", "content": content}]


def pixels_part(image: DecodedImage, uuid: str) -> dict[str, Any]:
    """Return an image as a message part of vLLM's own, which takes pixels as they are."""
    return {"type": "image_pil", "image_pil": image.pixels, "uuid": uuid}


def data_url(pixels: PIL.Image.Image) -> str:
    """Return pixels as the data URL of a PNG."""
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
