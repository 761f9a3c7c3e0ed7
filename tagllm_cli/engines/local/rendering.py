"""Render requests as inputs of vLLM's engine: chat template, image placeholder, tokens, pixels.

vLLM's renderer does it, as in `LLM.chat`, so that every multimodal model gets its own form. A text is rendered and
tokenized once for all images (a run asks the same few questions about every image), and an image is preprocessed once
for all texts (its `uuid` is the key of vLLM's cache).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from tagllm_cli.engines.base import CHAT_TEMPLATE_KWARGS
from tagllm_cli.records import DecodedImage, Request

_TEXTS_KEPT = 16_384


class PromptRenderer:
    """Renders an image and a request as the input of `AsyncLLM.generate`.

    Args:
        renderer: vLLM's renderer for the loaded model (`AsyncLLM.renderer`).
    """

    def __init__(self, renderer: Any) -> None:
        from vllm.renderers import ChatParams

        self._renderer = renderer
        self._chat = ChatParams(
            chat_template_kwargs={
                "add_generation_prompt": True,
                "continue_final_message": False,
                "tokenize": type(renderer).__name__ == "MistralRenderer",  # its template returns token ids only
                **CHAT_TEMPLATE_KWARGS,
            }
        )
        # The chat template adds the special tokens.
        self._tokens = renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
        self._texts: OrderedDict[tuple[str, str, bool], dict[str, Any]] = OrderedDict()

    async def render(self, decoded_image: DecodedImage | None, request: Request) -> Any:
        """Return the engine's input for one request. Raises vLLM's errors (ValueError and others)."""
        prompt = await self._text(decoded_image, request)
        if decoded_image is not None and request.with_image:
            if prompt["multi_modal_data"].keys() != {"image"}:
                # A model that takes an image as something else, as chunks of a video, say: nothing is shared.
                _, (rendered,) = await self._renderer.render_chat_async(
                    [conversation(decoded_image, request)], self._chat, self._tokens
                )
                return rendered
            images = {
                "multi_modal_data": {"image": [decoded_image.pixels]},
                "multi_modal_uuids": {"image": [decoded_image.uuid]},
            }
            prompt = {**prompt, **images}
        return await self._renderer.process_for_engine_async(dict(prompt), time.time())

    async def _text(self, decoded_image: DecodedImage | None, request: Request) -> dict[str, Any]:
        """Return the rendered and tokenized request; image and uuid are empty under vLLM's names for them."""
        key = (request.system, request.text, request.with_image)
        known = self._texts.get(key)
        if known is not None:
            self._texts.move_to_end(key)
            return known
        _, prompt = await self._renderer.render_messages_async(conversation(decoded_image, request), self._chat)
        tokens = dict(await self._renderer.tokenize_prompt_async(prompt, self._tokens))
        if "multi_modal_data" in tokens:  # keep the names, not the first image
            tokens["multi_modal_data"] = dict.fromkeys(tokens["multi_modal_data"])
        self._texts[key] = tokens
        if len(self._texts) > _TEXTS_KEPT:
            self._texts.popitem(last=False)
        return tokens


def conversation(decoded_image: DecodedImage | None, request: Request) -> list[dict[str, Any]]:
    """Return the canonical messages: system if there is any, then the user's image before the text."""
    messages: list[dict[str, Any]] = []
    if request.system:
        messages.append({"role": "system", "content": request.system})
    content: Any = request.text
    if decoded_image is not None and request.with_image:
        image = {"type": "image_pil", "image_pil": decoded_image.pixels, "uuid": decoded_image.uuid}
        content = [image, {"type": "text", "text": request.text}]
    return [*messages, {"role": "user", "content": content}]
