"""Answers recorded once and given again: exact runs without a model, for tests and for looking into a run.

A recording is a JSON Lines file, one answer a line, keyed by the picture's content and everything about the question
that decides its answer. It names no file and no path.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from tagllm_cli.engines.base import Counters, Engine, check_pictures
from tagllm_cli.errors import UsageError
from tagllm_cli.records import Failure, Picture, Reply, Request, request_key

_CAPACITY = 256


def recording_key(picture: Picture | None, request: Request) -> bytes:
    """Return the 16-byte key of an answer: the question, and the picture's `uuid` if it is shown."""
    shown = picture.uuid if picture is not None and request.with_image else ""
    return request_key(request.digest(b""), shown.encode())


def load_recording(path: Path) -> dict[bytes, Reply]:
    """Return the answers of a recording; of two answers to a question the first counts, as in the evidence.

    A last line without its end (the recorder was killed) is left out.

    Raises:
        UsageError: no such file, or not a recording.
    """
    answers: dict[bytes, Reply] = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "Give a recording of answers.") from None
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry = json.loads(line)
            answers.setdefault(bytes.fromhex(entry.pop("key")), Reply(**entry))
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

    def __init__(self, answers: Mapping[bytes, Reply], delay_s: float = 0.0) -> None:
        self._answers = answers
        self._delay_s = delay_s
        self._counters = Counters()

    async def start(self) -> None:
        """Nothing to load."""

    async def ask(self, picture: Picture | None, requests: Sequence[Request]) -> list[Reply]:
        """Return the recorded replies; what is not recorded is a failure of kind `not_recorded`."""
        check_pictures(picture, requests)
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        missing = Reply(failure=Failure("not_recorded", "this question was not asked when the answers were recorded"))
        replies = [self._answers.get(recording_key(picture, request), missing) for request in requests]
        for reply in replies:
            self._counters = self._counters.plus(reply)
        return replies

    def counters(self) -> Counters:
        """Return the recorded tokens of what was asked."""
        return self._counters

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

    async def ask(self, picture: Picture | None, requests: Sequence[Request]) -> list[Reply]:
        """Return the engine's replies, written down."""
        replies = await self._engine.ask(picture, requests)
        if self._file is None:
            raise RuntimeError("the engine was not started")
        for request, reply in zip(requests, replies, strict=True):
            if reply.failure is None:
                entry = asdict(reply)
                del entry["failure"]
                line = json.dumps({"key": recording_key(picture, request).hex(), **entry}, ensure_ascii=False)
                self._file.write(line + "\n")
        self._file.flush()
        return replies

    def counters(self) -> Counters:
        """Return the counters of the engine that answers."""
        return self._engine.counters()

    async def close(self) -> None:
        """Close the recording and the engine that answers."""
        if self._file is not None:
            self._file.close()
            self._file = None
        await self._engine.close()
