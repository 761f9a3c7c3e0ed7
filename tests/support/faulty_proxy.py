"""A server on loopback that fails by script: alone, with made-up responses, or as a proxy in front of a real server.

    with FaultyProxy(lambda number, path: reset() if number == 2 else None) as proxy:
        ...  # proxy.url; proxy.questions; proxy.images (those that a made-up vLLM keeps; may be cleared)

It runs in its own thread, so that it serves this process and others. HTTP/1.1; a connection is kept
until a fault ends it.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp

IMAGE_MISSED = "Cache miss for image at index 0 but data is not provided."  # vLLM's words


@dataclass(frozen=True)
class Fault:
    """What is sent instead of the real response, or what becomes of that.

    Args:
        status: HTTP status; 0: none is sent.
        headers: sent with the status.
        body: sent with the status.
        keep: share of the real response's body that is sent before the connection ends; None: no real response.
        wait_s: seconds before the response.
        drip_s: seconds over which it is sent, in small pieces.
        edit: what is sent in place of the real response, head and body, for which `keep` must be 1.
        then: what follows it: the connection goes on, is closed or reset, or stays open in silence.
    """

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    keep: float | None = None
    wait_s: float = 0.0
    drip_s: float = 0.0
    edit: Callable[[bytes], bytes] | None = None
    then: Literal["go on", "close", "reset", "hang"] = "go on"


WHOLE = Fault(keep=1.0)


def refuse(status: int, message: str = "no", **headers: str) -> Fault:
    """An error in OpenAI's form; `retry_after="1"` becomes the header Retry-After."""
    body = json.dumps({"error": {"message": message, "code": status}}).encode()
    return Fault(status, tuple((name.replace("_", "-"), value) for name, value in headers.items()), body)


def error_in_200(message: str, code: int | str | None = None) -> Fault:
    """Status 200 with an error and no completion, as gateways send it."""
    error = {"message": message} if code is None else {"message": message, "code": code}
    return Fault(200, (), json.dumps({"id": "g-1", "error": error}).encode())


def complete(content: Any, logprobs: Any = None, **choice: Any) -> Fault:
    """A completion with any content: null, a list of parts. See `completion`."""
    return Fault(200, (), json.dumps(completion(content, logprobs, **choice)).encode())


def redirect(location: str, status: int = 301) -> Fault:
    """A redirect to another address."""
    return Fault(status, (("Location", location),))


def reset() -> Fault:
    """The connection is reset."""
    return Fault()


def half_json() -> Fault:
    """Status 200, a content length that is kept, and a body that ends in the middle."""
    return Fault(200, (("Content-Type", "application/json"),), b'{"choices": [{"message": {"content": "ca')


def cut_off() -> Fault:
    """The real response, its connection reset in the middle of the body."""
    return Fault(keep=0.5)


def slow(seconds: float) -> Fault:
    """The real response, late."""
    return Fault(keep=1.0, wait_s=seconds)


def first(fault: Fault, times: int = 1) -> Callable[[int, str], Fault | None]:
    """Let the first `times` questions fail."""
    return lambda number, path: fault if 1 <= number <= times else None


@dataclass(frozen=True)
class Received:
    """One request: number from 1 among the questions (0: not a question), monotonic time of arrival."""

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


def completion(
    content: Any, logprobs: dict[str, float] | None = None, *, finish: str = "stop", **message: Any
) -> dict[str, Any]:
    """A chat completion as vLLM's server writes it; `message` are further fields of the message, such as reasoning."""
    first = [
        {"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in (logprobs or {}).items()
    ]
    return {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish,
                "logprobs": {"content": [{**first[0], "top_logprobs": first}]} if first else None,
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 64}},
    }


class FaultyProxy:
    """The server; a context manager.

    Args:
        fault: what goes wrong with question `number` (from 1, in order of arrival) to `path`; None: nothing. GET
            requests are not counted and come as number 0.
        answer: the made-up server's response to a question's JSON, or its fault.
        models: the made-up server's models.
        owned_by: what its list of models says about them; `vllm`: it has vLLM's `/version` too.
        upstream: address of a real server (without /v1) that responds instead.
        tls: speak https with this context.
    """

    def __init__(
        self,
        fault: Callable[[int, str], Fault | None] = lambda number, path: None,
        *,
        answer: Callable[[Any], dict[str, Any] | Fault] = lambda question: completion("cat"),
        models: tuple[str, ...] = ("demo",),
        owned_by: str = "vllm",
        upstream: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.received: list[Received] = []
        self.images: dict[str, Any] = {}
        self._fault = fault
        self._answer = answer
        self._models = models
        self._owned_by = owned_by
        self._upstream = upstream
        self._tls = tls
        self._numbers = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._client: aiohttp.ClientSession | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._running = asyncio.Event()
        self._running.set()
        self.port = 0

    @property
    def url(self) -> str:
        """The address, without /v1."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def questions(self) -> list[Received]:
        """The POST requests, in order of arrival."""
        return [each for each in self.received if each.number]

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

    def stop(self) -> None:
        """Accept connections and say nothing, as a stopped process."""
        self._loop.call_soon_threadsafe(self._running.clear)

    def go_on(self) -> None:
        """End what `stop` began."""
        self._loop.call_soon_threadsafe(self._running.set)

    async def _listen(self) -> None:
        self._client = aiohttp.ClientSession() if self._upstream else None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            # A connection that was accepted, and finds the server closed, would never be closed itself (CPython 3.11).
            for listening in self._server.sockets:
                self._loop.remove_reader(listening.fileno())
            await asyncio.sleep(0.002)
            self._server.close()
        for _ in range(5):  # a connection that is just being accepted is there some turns later
            for connection in list(self._connections):
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await asyncio.sleep(0.002)
        if self._client is not None:
            await self._client.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._converse(reader, writer):
                pass
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            _abort(writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection goes on."""
        method, path, headers, body = await _read_request(reader)
        received = Received(next(self._numbers) if method == "POST" else 0, method, path, headers, body)
        self.received.append(received)
        fault = self._fault(received.number, path)
        await self._running.wait()
        if fault is None:
            fault = WHOLE
        await asyncio.sleep(fault.wait_s)
        await self._running.wait()
        if fault.keep is None and fault.status == 0:
            _abort(writer)
            return False
        if fault.keep is None:
            response, then = http_response(fault.status, fault.headers, fault.body), fault.then
        else:
            response, then = http_response(*await self._real(received)), fault.then
            if fault.edit is not None:
                response = fault.edit(response)
            if fault.keep < 1:
                head, end, rest = response.partition(b"\r\n\r\n")
                response, then = head + end + rest[: int(len(rest) * fault.keep)], "reset"
        await _send(writer, response, fault.drip_s)
        if then == "reset":
            _abort(writer)
        elif then == "hang":
            await reader.read()
        return then == "go on"

    async def _real(self, received: Received) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
        if self._upstream is not None and self._client is not None:
            kept = {
                name: value for name, value in received.headers.items() if name in ("authorization", "content-type")
            }
            async with self._client.request(
                received.method, self._upstream + received.path, data=io.BytesIO(received.body), headers=kept
            ) as answer:
                return answer.status, (("Content-Type", "application/json"),), await answer.read()
        path = received.path.partition("?")[0]
        if path == "/v1/models":
            models = [{"id": name, "object": "model", "owned_by": self._owned_by} for name in self._models]
            return 200, (), json.dumps({"object": "list", "data": models}).encode()
        if path == "/version" and self._owned_by == "vllm":
            return 200, (), b'{"version": "0.32.0"}'
        if path == "/v1/chat/completions" and received.method == "POST":
            question = received.json
            if self._owned_by == "vllm" and not self._recall(question):
                return 400, (), json.dumps({"error": {"message": IMAGE_MISSED, "code": 400}}).encode()
            made_up = self._answer(question)
            if isinstance(made_up, Fault):
                return made_up.status, made_up.headers, made_up.body
            return 200, (), json.dumps(made_up).encode()
        return 404, (), b'{"detail":"Not Found"}'

    def _recall(self, question: Any) -> bool:
        """Keep the images of a question by their uuid, and put them in where only the uuid came; False: it is gone."""
        for message in question["messages"]:
            for part in message["content"] if isinstance(message["content"], list) else ():
                if "uuid" not in part:
                    continue
                if part["image_url"] is None:
                    part["image_url"] = self.images.get(part["uuid"])
                    if part["image_url"] is None:
                        return False
                else:
                    self.images[part["uuid"]] = part["image_url"]
        return True


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return method, path, headers, await reader.readexactly(int(headers.get("content-length", 0)))


def http_response(status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers)]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


async def _send(writer: asyncio.StreamWriter, response: bytes, drip_s: float) -> None:
    pieces = 20 if drip_s else 1
    size = max(1, -(-len(response) // pieces))
    for start in range(0, len(response), size):
        writer.write(response[start : start + size])
        await writer.drain()
        await asyncio.sleep(drip_s / pieces)


def _abort(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()
