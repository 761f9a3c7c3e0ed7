"""Answers recorded once and given again: exact runs without a model, for tests and for looking into a run.

A recording is a JSON Lines file, one answer a line, keyed by the picture's content and everything about the question
that decides its answer. It names no file and no path.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from tagllm_cli.engines.base import Engine, Usage, check_decoded_image
from tagllm_cli.errors import UsageError
from tagllm_cli.records import DecodedImage, Failure, Request, Response, request_key

_CAPACITY = 256


def recording_key(decoded_image: DecodedImage | None, request: Request) -> bytes:
    """Return the 16-byte key of an answer: the question, and the picture's `uuid` if it is shown."""
    shown = decoded_image.uuid if decoded_image is not None and request.with_image else ""
    return request_key(request.digest(b""), shown.encode())


def load_recording(path: Path) -> dict[bytes, Response]:
    """Return the answers of a recording; of two answers to a question the first counts, as in the evidence.

    A last line without its end (the recorder was killed) is left out.

    Raises:
        UsageError: no such file, or not a recording.
    """
    answers: dict[bytes, Response] = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "Give a recording of answers.") from None
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry = json.loads(line)
            answers.setdefault(bytes.fromhex(entry.pop("key")), Response(**entry))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UsageError(f"{path}, line {number}: not a recorded answer", "Give a recording of answers.") from None
    return answers


class ReplayEngine:
    """An `Engine` that knows some answers by heart.

    Args:
        answers: by `recording_key`.
        delay_s: seconds that each `ask` takes, as a model would take some.
    """

    version = "replay"
    capacity = _CAPACITY

    def __init__(self, answers: Mapping[bytes, Response], delay_s: float = 0.0) -> None:
        self._answers = answers
        self._delay_s = delay_s
        self._usage = Usage()

    async def start(self) -> None:
        """Nothing to load."""

    async def ask(
        self, decoded_image: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        """Yield the recorded responses; what is not recorded is a failure of kind `not_recorded`."""
        check_decoded_image(decoded_image, requests)
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        missing = Response(
            failure=Failure("not_recorded", "this question was not asked when the answers were recorded")
        )
        for request in requests:
            response = self._answers.get(recording_key(decoded_image, request), missing)
            self._usage = self._usage.plus(response)
            yield request, response

    def usage(self) -> Usage:
        """Return the recorded tokens of what was asked."""
        return self._usage

    async def close(self) -> None:
        """Nothing to end."""


class RecordingEngine:
    """Another engine whose answers are written down on the way; failures are not.

    Args:
        engine: the one that answers.
        path: JSON Lines file, appended to.
    """

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self._path = path
        self._file: TextIO | None = None

    @property
    def version(self) -> str:
        """The version of the engine that answers."""
        return self._engine.version

    @property
    def capacity(self) -> int:
        """The capacity of the engine that answers."""
        return self._engine.capacity

    async def start(self) -> None:
        """Open the recording and start the engine that answers. Raises UsageError where nothing can be written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{self._path} cannot be written: {error.strerror}", "Choose another --record.") from None
        await self._engine.start()

    async def ask(
        self, decoded_image: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        """Yield the engine's responses, each recorded first."""
        if self._file is None:
            raise RuntimeError("the engine was not started")
        async with aclosing(self._engine.ask(decoded_image, requests)) as answered:
            async for request, response in answered:
                if response.failure is None:
                    entry = asdict(response)
                    del entry["failure"]
                    line = json.dumps({"key": recording_key(decoded_image, request).hex(), **entry}, ensure_ascii=False)
                    self._file.write(line + "\n")
                    self._file.flush()
                yield request, response

    def usage(self) -> Usage:
        """Return the counters of the engine that answers."""
        return self._engine.usage()

    async def close(self) -> None:
        """Close the recording and the engine that answers."""
        if self._file is not None:
            self._file.close()
            self._file = None
        await self._engine.close()
