"""A web server on loopback that serves files, with ranges or without, and misbehaves on request.

with WebServer({"/a.jpg": data}) as web:
    web.on("/b.jpg", Reply(500), Reply(429, {"Retry-After": "1"}), None)   # None: serve the file; the last reply stays
    ...
    assert web.count("/b.jpg") == 3
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Reply:
    """What is sent instead of a file.

    Args:
        status: HTTP status.
        headers: more headers.
        body: the whole body.
        cut: the connection is reset after so many bytes of the body (or of the file, where `status` is 0).
        wait_s: seconds before the response.
        endless: the body is repeated until the client hangs up, without Content-Length.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    wait_s: float = 0.0
    endless: bool = False


def redirect(location: str) -> Reply:
    """A redirect to another address."""
    return Reply(302, {"Location": location})


def cut_file(after: int) -> Reply:
    """The file, its connection reset after so many bytes."""
    return Reply(0, cut=after)


@dataclass(frozen=True)
class Request:
    """A request that arrived: `target` is path and query as sent."""

    method: str
    target: str
    headers: Mapping[str, str]
    time: float


class WebServer:
    """The server; a context manager.

    Args:
        files: contents by path ("/a.jpg"; percent-decoded, without the query).
        ranges: whether parts of files are sent; otherwise a Range is ignored.
    """

    def __init__(self, files: Mapping[str, bytes] | None = None, *, ranges: bool = True) -> None:
        self.files = dict(files or {})
        self.ranges = ranges
        self.requests: list[Request] = []
        self.at_once = self.most_at_once = 0
        self.sent = 0
        self._replies: dict[str, list[Reply | None]] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.web = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """The address, without a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def on(self, path: str, *replies: Reply | None) -> None:
        """Send these replies to the next requests for a path, in order; the last one stays. None: the file."""
        self._replies[path] = list(replies)

    def count(self, path: str, method: str = "GET") -> int:
        """Return how many requests for a path have arrived."""
        return sum(unquote(urlsplit(each.target).path) == path and each.method == method for each in self.requests)

    def __enter__(self) -> WebServer:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def next_reply(self, path: str) -> Reply | None:
        """Return what to send to a request for this path."""
        with self._lock:
            replies = self._replies.get(path, [None])
            return replies.pop(0) if len(replies) > 1 else replies[0]

    def count_connection(self, change: int) -> None:
        """Note that a response begins (1) or ends (-1)."""
        with self._lock:
            self.at_once += change
            self.most_at_once = max(self.most_at_once, self.at_once)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    web: WebServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        web = self.server.web
        path = unquote(urlsplit(self.path).path)
        web.requests.append(Request(self.command, self.path, dict(self.headers), time.monotonic()))
        web.count_connection(1)
        try:
            reply = web.next_reply(path)
            if reply is not None and reply.status:
                self._send_reply(reply)
            elif path not in web.files:
                self._send(404, b"not here", {"Content-Type": "text/plain"})
            else:
                self._send_file(web.files[path], None if reply is None else reply.cut)
        finally:
            web.count_connection(-1)

    do_HEAD = do_GET

    def _send_reply(self, reply: Reply) -> None:
        time.sleep(reply.wait_s)
        if not reply.endless:
            self._send(reply.status, reply.body, reply.headers, reply.cut)
            return
        self.close_connection = True
        self._head(reply.status, {**reply.headers, "Connection": "close"})
        while self.command == "GET":
            self.server.web.sent += self.wfile.write(reply.body)

    def _send_file(self, data: bytes, cut: int | None) -> None:
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        if self.headers.get("If-Match", tag) != tag:
            self._send(412, b"changed")
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.server.web.ranges else None
        if found is None:
            self._send(200, data, {"ETag": tag}, cut)
            return
        start, end = int(found[1]), min(len(data), int(found[2] or len(data)) + 1)
        if start >= len(data):
            self._send(416, b"")
            return
        headers = {"ETag": tag, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
        self._send(206, data[start:end], headers, cut)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None, cut: int | None = None) -> None:
        self._head(status, {**(headers or {}), "Content-Length": str(len(body))})
        if self.command == "HEAD":
            return
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
