"""A server on loopback that misbehaves by script: alone, with made-up answers, or as a proxy in front of a real server.

    with FaultyProxy(lambda number, path: reset() if number == 2 else None) as proxy:
        ...  # proxy.url; proxy.seen

It runs in a thread of its own, so that it serves this process and others. HTTP/1.1, one request per connection.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(frozen=True)
class Fault:
    """What happens instead of an answer.

    Args:
        status: HTTP status; 0: none is sent.
        headers: sent with the status.
        body: sent with the status.
        keep: share of a real answer's body that is sent before the connection ends, None: no real answer.
        wait_s: seconds before the real answer (only there).
    """

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    keep: float | None = None
    wait_s: float = 0.0


def refuse(status: int, message: str = "no", **headers: str) -> Fault:
    """An error answer in OpenAI's form; `retry_after="1"` becomes the header Retry-After."""
    body = json.dumps({"error": {"message": message, "code": status}}).encode()
    return Fault(status, tuple((name.replace("_", "-"), value) for name, value in headers.items()), body)


def reset() -> Fault:
    """The connection is reset instead of an answer."""
    return Fault()


def half_json() -> Fault:
    """Status 200, a content length that is kept, and a body that ends in the middle."""
    return Fault(200, (("Content-Type", "application/json"),), b'{"choices": [{"message": {"content": "ca')


def cut_off() -> Fault:
    """A real answer whose connection is reset in the middle of the body."""
    return Fault(keep=0.5)


def slow(seconds: float) -> Fault:
    """A real answer, late."""
    return Fault(keep=1.0, wait_s=seconds)


@dataclass(frozen=True)
class ImageInfo:
    """One request as it arrived: number from 1 among the questions (0: not a question), monotonic time."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    time: float = field(default_factory=time.monotonic)

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


def completion(text: str, logprobs: dict[str, float] | None = None) -> dict[str, Any]:
    """A chat completion as vLLM's server writes it."""
    first = [
        {"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in (logprobs or {}).items()
    ]
    content = [{**first[0], "top_logprobs": first}] if first else []
    return {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
                "logprobs": {"content": content} if first else None,
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 64}},
    }


class FaultyProxy:
    """The server; a context manager.

    Args:
        fault: what goes wrong with question `number` (from 1, in order of arrival) to `path`; None: nothing. Requests
            for the list of models are not counted and reach it as number 0.
        answer: the made-up server's answer to a question's JSON.
        models: the made-up server's models.
        upstream: address of a real server (without /v1) that answers instead.
    """

    def __init__(
        self,
        fault: Callable[[int, str], Fault | None] = lambda number, path: None,
        *,
        answer: Callable[[Any], dict[str, Any]] = lambda question: completion("cat"),
        models: tuple[str, ...] = ("demo",),
        upstream: str | None = None,
    ) -> None:
        self.info: list[ImageInfo] = []
        self._fault = fault
        self._answer = answer
        self._models = models
        self._upstream = upstream
        self._numbers = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._client: httpx.AsyncClient | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        """The address, without /v1."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def questions(self) -> list[ImageInfo]:
        """What was asked, in order of arrival."""
        return [info for info in self.info if info.number]

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        self.up()
        return self

    def __exit__(self, *unused: object) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def up(self) -> None:
        """Listen, on the same port as before."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def down(self) -> None:
        """Reset every connection and stop listening."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()

    async def _listen(self) -> None:
        self._client = httpx.AsyncClient(timeout=600) if self._upstream else None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._converse(reader, writer)
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            _abort(writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, path, headers, body = await _read_request(reader)
        info = ImageInfo(next(self._numbers) if method == "POST" else 0, method, path, headers, body)
        self.info.append(info)
        fault = self._fault(info.number, path)
        if fault is not None and fault.keep is None:
            if fault.status == 0:
                _abort(writer)
                return
            writer.write(_response(fault.status, fault.headers, fault.body))
            await writer.drain()
            return
        if fault is not None:
            await asyncio.sleep(fault.wait_s)
        response = _response(*await self._real(info))
        if fault is not None and fault.keep is not None and fault.keep < 1:
            head, _, rest = response.partition(b"\r\n\r\n")
            writer.write(head + b"\r\n\r\n" + rest[: int(len(rest) * fault.keep)])
            await writer.drain()
            _abort(writer)
            return
        writer.write(response)
        await writer.drain()

    async def _real(self, info: ImageInfo) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
        if self._upstream is not None and self._client is not None:
            kept = {name: value for name, value in info.headers.items() if name in ("authorization", "content-type")}
            answer = await self._client.request(
                info.method, self._upstream + info.path, content=info.body, headers=kept
            )
            return answer.status_code, (("Content-Type", "application/json"),), answer.content
        if info.path == "/v1/models":
            models = [{"id": name, "object": "model", "owned_by": "vllm"} for name in self._models]
            return 200, (), json.dumps({"object": "list", "data": models}).encode()
        if info.path == "/v1/chat/completions":
            return 200, (), json.dumps(self._answer(info.json)).encode()
        return 404, (), b'{"detail":"Not Found"}'


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return method, path, headers, await reader.readexactly(int(headers.get("content-length", 0)))


def _response(status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers)]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


def _abort(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()
