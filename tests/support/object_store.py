"""An S3 server on loopback (moto), started once per process, that counts requests and fails on demand.

store = object_store()                 # also sets AWS_ENDPOINT_URL and keys for this process and its children
root = store.bucket({"shards/0.tar": data})     # "s3://bucket-1"
store.requests.clear()
...
assert store.opened(root) == []        # no object was read; store.requests counts ("GET", "bucket-1/shards/0.tar")
with store.failing(expired_after(3)): ...
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

# What moto finds the handler by may not hold a line end, as keys may; it takes the key from the raw request.
_LINE_END = "\ue00a"

# Returned instead of moto's response: status, S3's code of the error, headers.
Refusal = tuple[int, str]
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test-key-id",
    "AWS_SECRET_ACCESS_KEY": "test-secret-key",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class ObjectStore:
    """The server; `url` is its address, `requests` counts (method, "bucket/key"); a listing is ("LIST", "bucket")."""

    def __init__(self, backend: Any) -> None:
        self.url = ""
        self.backend = backend
        self.requests: Counter[tuple[str, str]] = Counter()
        self._names = itertools.count(1)
        self._fault: Callable[[str, str], Refusal | None] | None = None
        self._cut: Callable[[str, str], bool] | None = None

    def bucket(self, files: Mapping[str, bytes] | None = None) -> str:
        """Make a bucket with these objects and return its URL; its name is new."""
        name = f"bucket-{os.getpid()}-{next(self._names)}"
        self.backend.create_bucket(name, "us-east-1")
        for key, data in (files or {}).items():
            self.upload(f"s3://{name}/{key}", data)
        return f"s3://{name}"

    def upload(self, url: str, data: bytes) -> None:
        """Put an object in place, without a request: a thousand of them take half a second."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        self.backend.put_object(bucket, key, data)

    def delete(self, url: str) -> None:
        """Remove an object."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        self.backend.delete_object(bucket, key)

    def opened(self, root: str) -> list[str]:
        """Return the keys below a bucket or folder of which bytes were read since `requests` was cleared."""
        start = root.removeprefix("s3://").rstrip("/") + "/"
        return sorted(
            path[len(start) :] for method, path in self.requests if method == "GET" and path.startswith(start)
        )

    @contextlib.contextmanager
    def failing(self, fault: Callable[[str, str], Refusal | None]) -> Iterator[None]:
        """Refuse requests inside the block: `fault(method, "bucket/key")` returns (status, code) or None."""
        self._fault = fault
        try:
            yield
        finally:
            self._fault = None

    @contextlib.contextmanager
    def cutting(self, cut: Callable[[str, str], bool]) -> Iterator[None]:
        """Break the connection in the middle of the bodies for which `cut(method, "bucket/key")` is true."""
        self._cut = cut
        try:
            yield
        finally:
            self._cut = None

    def wrap(self, application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """Return the WSGI application that counts and fails before it asks this one."""

        def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            path = unquote(urlsplit(environ.get("RAW_URI") or environ["PATH_INFO"]).path).lstrip("/")
            method = environ["REQUEST_METHOD"]
            if method == "GET" and "list-type=" in environ["QUERY_STRING"]:
                method, path = "LIST", path.rstrip("/")
            self.requests[method, path] += 1
            refusal = self._fault(method, path) if self._fault else None
            if refusal is not None:
                return _refuse(*refusal, method, start_response)
            environ["PATH_INFO"] = environ["PATH_INFO"].replace("\n", _LINE_END.encode().decode("latin-1"))
            body = application(environ, start_response)
            if self._cut and self._cut(method, path):
                return _half(body)
            return body

        return serve


def expired_after(count: int) -> Callable[[str, str], Refusal | None]:
    """Let credentials expire after so many requests, as S3 says it."""
    served = itertools.count()
    return lambda method, path: (400, "ExpiredToken") if next(served) >= count else None


@functools.cache
def object_store() -> ObjectStore:
    """Start the server, once per process, and point this process and its children to it."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends
    from moto.server import DomainDispatcherApplication, create_backend_app  # type: ignore[attr-defined]
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *args: Any, **options: Any) -> None:
            pass

        def log(self, *args: Any, **options: Any) -> None:
            pass

    store = ObjectStore(s3_backends[DEFAULT_ACCOUNT_ID]["aws"])
    application = store.wrap(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    server.daemon_threads = True  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    store.url = f"http://127.0.0.1:{server.server_port}"
    os.environ.update(ENVIRONMENT, AWS_ENDPOINT_URL=store.url)
    return store


def _refuse(status: int, code: str, method: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = b"" if method == "HEAD" else f"<Error><Code>{code}</Code><Message>{code} said</Message></Error>".encode()
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    start_response(f"{status} Refused", headers)
    return [body]


def _half(body: Iterable[bytes]) -> Iterator[bytes]:
    data = b"".join(body)
    yield data[: len(data) // 2]
    raise ConnectionResetError("cut on purpose")
