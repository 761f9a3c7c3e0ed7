"""Requests about images to a running `AsyncLLM`: one of an image's requests goes ahead, lost ones are asked again.

vLLM looks a request's prefix up once, when it is first admitted. An image that does not fit into the rest of a step's
encoder budget makes all its waiting requests be admitted just before it, and each then computes the image again: ten
times the work for models with many tokens per image (vLLM 0.24 to 0.33). So where an image is long, its first request
is answered before the others are sent; other images fill the engine meanwhile.

The features of an image travel with one request, and the engine keeps them for the others. Where that request never got
there, or the engine has dropped them since, the others are lost; they are asked again, and the features travel again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from tagllm_cli.engines.base import REFUSED_KINDS, EngineDiedError, check_response, failure_kind, merge_logprobs
from tagllm_cli.engines.local.errors import message_of
from tagllm_cli.engines.local.prepared import PreparedImage
from tagllm_cli.engines.local.rendering import PromptRenderer
from tagllm_cli.records import DecodedImage, Failure, Request, Response

_TRIES = 3
_IMAGES_KEPT = 1024  # more than are in flight, without pixels and features

Generate = Callable[[Any, Request, int | None], Awaitable[Response]]


class SharedImage:
    """An image while requests about it are in flight.

    Args:
        decoded: the image.

    Attributes:
        lead: held while a request goes ahead of the others.
        prepared: what is sent about it; None before the first request, and where the engine may lack its features.
        is_computed: no request has to go ahead any more.
    """

    def __init__(self, decoded: DecodedImage) -> None:
        self.decoded = decoded
        self.lead = asyncio.Lock()
        self.prepared: PreparedImage | None = None
        self.is_computed = False


class Asker:
    """Asks single requests.

    Args:
        prompts: the renderer of the model.
        generate: returns vLLM's response to a rendered request from one copy of the model; raises EngineDiedError, and
            any other exception for a request that is refused.
        long_image: number of image tokens from which on one request of an image goes ahead.
    """

    def __init__(self, prompts: PromptRenderer, generate: Generate, long_image: int) -> None:
        self._prompts, self._generate = prompts, generate
        self._long_image = long_image
        self._sent: OrderedDict[str, PreparedImage] = OrderedDict()  # by uuid: a run asks about an image in both stages

    async def respond(self, image: SharedImage | None, request: Request, rank: int | None) -> Response:
        """Return the response; a request that vLLM loses is asked again.

        Args:
            image: what the request is about; None for a request without an image.
            request: the request.
            rank: the copy of the model to ask (data parallelism), the same for all requests about an image; None: any.

        Raises:
            EngineDiedError: the engine's process is gone.
        """
        for _ in range(_TRIES):
            if image is None:
                response = await self._answer(self._alone(request, rank))
            else:
                response = await self._answer(self._about(image, request, rank))
            if not is_lost(response):
                break
        return response

    async def _answer(self, asked: Awaitable[Response]) -> Response:
        try:
            return await asked
        except EngineDiedError:
            raise
        except Exception as error:  # by vLLM, Transformers or the model's processor: this request only
            return Response(failure=Failure(failure_kind(str(error)), message_of(error)))

    async def _alone(self, request: Request, rank: int | None) -> Response:
        return await self._generate(await self._prompts.render(None, request), request, rank)

    async def _about(self, image: SharedImage, request: Request, rank: int | None) -> Response:
        async with image.lead:
            prepared = image.prepared = image.prepared or self._sent.get(image.decoded.uuid) or PreparedImage()
            has_features = not prepared.is_sent
            prompt = await self._prompts.about(image.decoded, prepared, request)
            if prepared.is_sent:
                self._keep(image.decoded.uuid, prepared)
            if not image.is_computed and image_tokens(prompt) >= self._long_image:
                response = await self._answer(self._generate(prompt, request, rank))
                self._note(image, prepared, has_features, response)
                image.is_computed = not is_lost(response)
                return response
            image.is_computed = True
        response = await self._answer(self._generate(prompt, request, rank))
        self._note(image, prepared, has_features, response)
        return response

    def _keep(self, uuid: str, prepared: PreparedImage) -> None:
        self._sent[uuid] = prepared
        self._sent.move_to_end(uuid)
        if len(self._sent) > _IMAGES_KEPT:
            self._sent.popitem(last=False)

    def _note(self, image: SharedImage, prepared: PreparedImage, has_features: bool, response: Response) -> None:
        """Forget what was prepared where the engine may lack the features, by the response to a request.

        A request that is refused before it reaches the engine does not take them there; one that is lost did not find
        them.
        """
        was_refused = response.failure is not None and response.failure.kind in REFUSED_KINDS
        if is_lost(response) or (has_features and was_refused):
            if image.prepared is prepared:
                image.prepared = None
            if self._sent.get(image.decoded.uuid) is prepared:
                del self._sent[image.decoded.uuid]


def image_tokens(prompt: Mapping[str, Any]) -> int:
    """Return how many tokens the images of an engine's input take; 0 where it does not say."""
    placeholders = prompt.get("mm_placeholders") or {}
    return sum(each.length for of_kind in placeholders.values() for each in of_kind)


def is_lost(response: Response) -> bool:
    """Return whether the engine ended a request without looking at it, so that it may succeed when asked again."""
    return response.failure is not None and response.failure.kind == "engine_error"


def read_outputs(request: Request, outputs: Sequence[Any]) -> Response:
    """Return the response in vLLM's `RequestOutput`s of a request; a failed one where they hold no answer.

    Token counts are vLLM's figures: `prompt_token_ids`, and `num_cached_tokens`, which its scheduler sets from the
    prefix cache.
    """
    if not outputs:
        return Response(failure=Failure("engine_error", "vLLM ended the request without an output"))
    output, completion = outputs[-1], outputs[-1].outputs[0]
    first = (completion.logprobs or [{}])[0]
    response = Response(
        text=completion.text,
        finish=completion.finish_reason or "abort",
        first_logprobs=merge_logprobs((entry.decoded_token or "", entry.logprob) for entry in first.values()),
        prompt_tokens=len(output.prompt_token_ids or ()),
        cached_tokens=output.num_cached_tokens or 0,
        output_tokens=len(completion.token_ids),
    )
    return check_response(request, response)
