"""A model behind its evidence: every response is recorded, and a recorded request is not sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import TypeVar

from tagllm_cli.engines.base import Engine
from tagllm_cli.pipeline.concepts.settings import Model
from tagllm_cli.pipeline.label.asking import ask_until_complete
from tagllm_cli.records import DecodedImage, Request, Response, request_context, request_key
from tagllm_cli.sources.decode import IMAGING_VERSION
from tagllm_cli.store.evidence import Evidence

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class UnansweredError(Exception):
    """A request failed (a timeout, say): nothing is decided, and the next run sends it again."""


class CachedModel:
    """A model whose responses are evidence. The engine starts with the first request that is not recorded.

    Args:
        model: the model that is asked.
        evidence: where responses are recorded; committed after every call.
        max_pixels: pixel budget of the images, part of a request's identity.
    """

    def __init__(self, model: Model, evidence: Evidence, max_pixels: int) -> None:
        self._model, self._evidence = model, evidence
        self._context = request_context(model.digest, IMAGING_VERSION, max_pixels)
        self._engine: Engine | None = None
        self._starting = asyncio.Lock()
        self.asked = 0

    @property
    def name(self) -> str:
        """The model's name, for the `author` of cards."""
        return self._model.name

    async def ask(self, request: Request) -> Response:
        """Return the response to a request without an image. Raises UnansweredError where it failed."""
        [response] = await self.ask_all([request])
        if response.failure is not None:
            raise UnansweredError(str(response.failure))
        return response

    async def ask_all(
        self, requests: Sequence[Request], decoded_image: DecodedImage | None = None, fingerprint: bytes = b""
    ) -> list[Response]:
        """Return one response per request, in order; a single failed request is a `Response.failure`.

        Args:
            requests: all about the same image, or about none.
            decoded_image: that image.
            fingerprint: 16-byte hash of its file's bytes.

        Raises:
            ModelError, EndpointError: the engine cannot start.
            EngineDiedError, EndpointError: nothing more can be asked.
        """
        keys = [
            request_key(request.digest(self._context), fingerprint if request.with_image else b"")
            for request in requests
        ]
        known = self._evidence.answered(keys)
        lacking = [(key, request) for key, request in zip(keys, requests, strict=True) if key not in known]
        if lacking:
            engine = await self._started()
            keys_of = {request: key for key, request in lacking}
            try:
                async with aclosing(ask_until_complete(engine, decoded_image, list(keys_of))) as answered:
                    async for request, response in answered:
                        self._evidence.record(keys_of[request], response)
            finally:  # also where another task's error ends this one
                self._evidence.commit()
            self.asked += len(lacking)
        # Read back in any case, so that a run that was interrupted decides from the same values.
        return [response for response in self._evidence.responses(keys) if response is not None]

    async def _started(self) -> Engine:
        async with self._starting:
            if self._engine is None:
                engine = self._model.engine()
                try:
                    await engine.start()
                except BaseException:
                    await engine.close()
                    raise
                self._engine = engine
            return self._engine

    async def close(self) -> None:
        """Close the engine, if it was started."""
        if self._engine is not None:
            await self._engine.close()


async def gather_limited(
    work: Callable[[_Item], Awaitable[_Result]], items: Iterable[_Item], limit: int
) -> list[_Result]:
    """Run `work` for every item, `limit` at a time; results in the items' order. The first error cancels the rest."""
    semaphore = asyncio.Semaphore(limit)
    has_failed = False

    async def one(item: _Item) -> _Result:
        nonlocal has_failed
        async with semaphore:
            if has_failed:  # what begins now would be asked in vain
                await asyncio.Future()
            try:
                return await work(item)
            except BaseException:
                has_failed = True
                raise

    tasks = [asyncio.create_task(one(item)) for item in items]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
