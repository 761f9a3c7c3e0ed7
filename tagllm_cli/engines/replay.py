"""Recorded responses: exact runs without a model, for tests and for inspecting a run.

A recording is a JSON Lines file, one response a line, keyed by the image's content and everything about the request
that decides its response. It holds no file name.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from tagllm_cli.engines.base import Engine, ForwardingEngine, Usage, check_decoded_image, check_response
from tagllm_cli.engines.identity import ModelIdentity, served_identity
from tagllm_cli.engines.options import ModelOptions
from tagllm_cli.errors import UsageError
from tagllm_cli.records import DecodedImage, Failure, Request, Response, request_key

_CAPACITY = 256
_NOT_RECORDED = Failure("not_recorded", "the recording has no response to this request")


def identify_recording(options: ModelOptions) -> ModelIdentity:
    """Return the identity of a recording's model: `model_id`, else `recording`."""
    return served_identity(options.model_id or "recording")


def make_replay_engine(options: ModelOptions, log_file: Path, pinned: ModelIdentity | None) -> ReplayEngine:
    """Return the engine of the recording `options.replay`. Raises UsageError where it cannot be read."""
    assert options.replay is not None
    return ReplayEngine(load_recording(options.replay))


def recording_key(decoded_image: DecodedImage | None, request: Request) -> bytes:
    """Return the 16-byte key of a response: the request, and the image's `uuid` if the request is about it."""
    shown = decoded_image.uuid if decoded_image is not None and request.with_image else ""
    return request_key(request.digest(b""), shown.encode())


def load_recording(path: Path) -> dict[bytes, Response]:
    """Return the responses of a recording by `recording_key`; the first one of a request counts, as in the evidence.

    A last line without its line break (the recording process was killed) is ignored.

    Raises:
        UsageError: the file cannot be read, or is not a recording.
    """
    responses: dict[bytes, Response] = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "Give a file that --record wrote.") from None
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry = json.loads(line)
            responses.setdefault(bytes.fromhex(entry.pop("key")), Response(**entry))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UsageError(
                f"{path}, line {number}: not a recorded response", "Give a file that --record wrote."
            ) from None
    return responses


class ReplayEngine:
    """Engine that replays recorded responses.

    Args:
        responses: by `recording_key`.
        delay_s: seconds that each `ask` waits before it responds.
    """

    version = "replay"
    capacity = _CAPACITY
    gpus: int | None = None
    trouble: str | None = None

    def __init__(self, responses: Mapping[bytes, Response], delay_s: float = 0.0) -> None:
        self._responses = responses
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
        for request in requests:
            recorded = self._responses.get(recording_key(decoded_image, request), Response(failure=_NOT_RECORDED))
            response = check_response(request, recorded)
            self._usage = self._usage.plus(response)
            yield request, response

    def usage(self) -> Usage:
        """Return the recorded tokens of the responses given."""
        return self._usage

    async def close(self) -> None:
        """Nothing to release."""


class RecordingEngine(ForwardingEngine):
    """Engine that passes another one's responses on and appends them to a recording; failures are not recorded.

    Args:
        engine: the engine that responds.
        path: JSON Lines file, appended to.
    """

    def __init__(self, engine: Engine, path: Path) -> None:
        super().__init__(engine)
        self._path = path
        self._file: TextIO | None = None

    async def start(self) -> None:
        """Open the recording and start the other engine. Raises UsageError where the file cannot be written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{self._path} cannot be written: {error.strerror}", "Choose another --record.") from None
        await super().start()

    async def ask(
        self, decoded_image: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        """Yield the other engine's responses, each recorded first."""
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

    async def close(self) -> None:
        """Close the recording and the other engine."""
        if self._file is not None:
            self._file.close()
            self._file = None
        await super().close()
