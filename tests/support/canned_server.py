"""A server on loopback in a process of its own that answers every question with the same completion, fast.

    with canned_server() as url:
        ...

It reads a question's length and nothing else of it, so that what is measured is the client.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

_LENGTH = b"content-length:"


@contextmanager
def canned_server(delay_s: float = 0.0, owned_by: str = "somebody") -> Iterator[str]:
    """Yield the address of a server whose answers take `delay_s` seconds each, until the context ends."""
    command = [sys.executable, "-m", "tests.support.canned_server", str(delay_s), owned_by]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


class _Canned(asyncio.Protocol):
    def __init__(self, delay_s: float, listed: bytes, answered: bytes) -> None:
        self._delay_s, self._listed, self._answered = delay_s, listed, answered
        self._buffer = b""
        self._missing = 0
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
            if self._missing <= 0:
                self._missing = 0
                self._answer()
            return
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        self._buffer = b""
        if head.startswith(b"GET"):
            self._transport.write(self._listed)
            return
        length = head.lower().partition(_LENGTH)[2].partition(b"\r\n")[0]
        self._missing = int(length) - len(body)
        if not self._missing:
            self._answer()

    def _answer(self) -> None:
        if self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self._transport.write, self._answered)
        else:
            self._transport.write(self._answered)


def _response(content: dict[str, Any]) -> bytes:
    body = json.dumps(content).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


async def _serve(delay_s: float, owned_by: str) -> None:
    from tests.support.faulty_proxy import completion

    listed = _response({"object": "list", "data": [{"id": "canned", "owned_by": owned_by}]})
    answered = _response(completion("yes", {"yes": -0.1, "no": -2.5, **{f"t{i}": -9.0 - i for i in range(18)}}))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(partial(_Canned, delay_s, listed, answered), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]), sys.argv[2]))
