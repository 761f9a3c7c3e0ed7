"""Asking a model nothing twice: every answer is evidence, and what is on record is not asked again."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import TypeVar

from tagllm_cli.engines.base import Engine
from tagllm_cli.pipeline.concepts.settings import Model
from tagllm_cli.records import DecodedImage, Request, Response, request_key
from tagllm_cli.sources.decode import IMAGING_VERSION
from tagllm_cli.store.evidence import Evidence

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class UnansweredError(Exception):
    """A question got no answer (a time-out, say): nothing is settled, and the next run asks again."""


class Respondent:
    """A model behind its record. It is loaded when a question is not on record, and not before.

    Args:
        model: whom to ask.
        evidence: where answers are kept; committed after every one, since each was paid for.
        max_pixels: pixel budget of the pictures shown, part of what is asked.
    """

    def __init__(self, model: Model, evidence: Evidence, max_pixels: int) -> None:
        self._model, self._evidence = model, evidence
        state = hashlib.blake2b(model.digest, digest_size=16)
        state.update(f"imaging {IMAGING_VERSION} pixels {max_pixels}".encode())
        self._context = state.digest()
        self._engine: Engine | None = None
        self._starting = asyncio.Lock()
        self.asked = 0

    @property
    def name(self) -> str:
        """The model's name, as a card's author."""
        return self._model.name

    async def say(self, request: Request) -> Response:
        """Return the answer to one question without a picture. Raises UnansweredError where none comes."""
        [response] = await self.answer([request])
        if response.failure is not None:
            raise UnansweredError(str(response.failure))
        return response

    async def answer(
        self, requests: Sequence[Request], decoded_image: DecodedImage | None = None, fingerprint: bytes = b""
    ) -> list[Response]:
        """Return one reply per request; what fails alone is a `Response.failure`.

        Args:
            requests: all about the same picture, or without one.
            picture: what they are about.
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
            async with aclosing(engine.ask(decoded_image, list(keys_of))) as answered:
                async for request, response in answered:
                    self._evidence.record(keys_of[request], response)
            self._evidence.commit()
            self.asked += len(lacking)
        # From the record in any case: what is read again after an interruption is what was decided from before it.
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
        """End the engine, if one was started."""
        if self._engine is not None:
            await self._engine.close()


async def together(work: Callable[[_Item], Awaitable[_Result]], items: Iterable[_Item], at_once: int) -> list[_Result]:
    """Do the work for every item, so many at a time; results in the items' order. The first error cancels the rest."""
    room = asyncio.Semaphore(at_once)

    async def one(item: _Item) -> _Result:
        async with room:
            return await work(item)

    tasks = [asyncio.create_task(one(item)) for item in items]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
