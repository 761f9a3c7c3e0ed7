"""Fetch one image from a web server, whatever the server does: slow, broken, endless, a page instead of the image."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import email.utils
import re
import socket
import threading
import time
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tagllm_cli.records import Failure
from tagllm_cli.sources import read
from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.storage.certificates import ssl_context
from tagllm_cli.sources.storage.url_secrets import reveal
from tagllm_cli.text import public_text, public_url

if TYPE_CHECKING:
    import aiohttp

READERS = 32  # threads that may wait in `fetch` at a time
PER_HOST = 8  # requests to one host at a time
TOTAL_S = 90.0  # for one image, all attempts together, once its turn at the host has come

_CONNECT_S, _SILENCE_S = 10.0, 30.0
_REDIRECTS = 10
_WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # before each further attempt
_LOST_IMAGES = 3  # that are given up before a host gets one attempt for each further image, until it answers again
_SNIFFED = 64  # bytes that tell a web page from an image
_PAGES = re.compile(r"text/html|application/(xhtml\+xml|json)|text/(xml|plain)|application/xml", re.IGNORECASE)
_ENCODED = re.compile(r"[!#-;=?-\[\]_a-z~%]+")  # a URL that can be sent as it is: a signature covers its spelling
_KINDS = {401: "forbidden", 403: "forbidden", 407: "forbidden", 404: "vanished", 410: "vanished"}


def fetch(url: str) -> bytes:
    """Return the bytes that an http(s) URL leads to; `url` may be without the secrets that `hide` took out of it.

    Transient failures (no connection, 408, 425, 429, 5xx; not an unknown host) are tried again within TOTAL_S, as the
    server's Retry-After says, and not where the host has failed for several images and answered none since.
    Raises ReadFailure: `vanished` (404, 410), `forbidden` (401, 403), `unreachable`, `too_large` (more than
    MAX_FILE_BYTES, which are not read), `not_an_image` (a web page or JSON), `unreadable` (redirects without end,
    another status), `bad_name` (no URL). For threads: all share one event loop.
    """
    return _Loop.get().run(url)


class _TransientError(Exception):
    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s


class _Loop:
    """The event loop of all fetches, in a thread of its own, with one session."""

    _only: _Loop | None = None
    _lock = threading.Lock()

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fetch", daemon=True)
        self._session: aiohttp.ClientSession | None = None
        self._lost: Counter[str] = Counter()  # images given up, by host, since it last answered
        self._hosts: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()
        self._thread.start()
        atexit.register(self._close)

    @classmethod
    def get(cls) -> _Loop:
        with cls._lock:
            if cls._only is None:
                cls._only = cls()
            return cls._only

    def run(self, url: str) -> bytes:
        return asyncio.run_coroutine_threadsafe(self._fetch(url), self._loop).result()

    async def _fetch(self, url: str) -> bytes:
        from yarl import URL

        full = reveal(url)
        try:
            target = URL(full, encoded=_ENCODED.fullmatch(full) is not None)
            host = target.host
        except (ValueError, UnicodeError):
            host = None
        if not host or target.scheme not in ("http", "https"):
            raise ReadFailure("bad_name", f"{public_url(url)} is no URL of a web server")
        turn = self._hosts.setdefault(host, asyncio.Semaphore(PER_HOST))
        async with turn:
            place = f"{host}:{target.port}"
            waits_s = _WAITS_S if self._lost[place] < _LOST_IMAGES else ()
            try:
                data = await self._attempts(target, public_url(url), waits_s)
            except ReadFailure as failure:
                self._lost[place] = self._lost[place] + 1 if failure.kind == "unreachable" else 0
                raise
            self._lost[place] = 0
            return data

    async def _attempts(self, target: object, shown: str, waits_s: Sequence[float]) -> bytes:
        deadline = time.monotonic() + TOTAL_S
        reason = ""
        for wait_s in (*waits_s, None):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            try:
                async with asyncio.timeout(left_s):
                    return await self._attempt(target, shown)
            except _TransientError as error:
                reason, asked_s = error.reason, error.wait_s
            except TimeoutError:
                reason, asked_s = reason or f"no answer within {TOTAL_S:.0f} s", None
            if wait_s is None or time.monotonic() + max(wait_s, asked_s or 0.0) >= deadline:
                break
            await asyncio.sleep(max(wait_s, asked_s or 0.0))
        raise ReadFailure("unreachable", f"{reason}: {shown}")

    async def _attempt(self, target: object, shown: str) -> bytes:
        import aiohttp

        try:
            async with self._opened().get(target, max_redirects=_REDIRECTS) as response:  # type: ignore[arg-type]
                _check_status(response, shown)
                return await _body(response, shown)
        except aiohttp.TooManyRedirects:
            raise ReadFailure("unreadable", f"redirected without end: {shown}") from None
        except (aiohttp.InvalidURL, aiohttp.RedirectClientError):
            raise ReadFailure("unreadable", f"redirected to what is no address: {shown}") from None
        except TimeoutError:
            raise _TransientError("the server is silent") from None
        except (aiohttp.ClientError, OSError) as error:
            if _is_unknown_host(error):
                raise ReadFailure("unreachable", f"{_said(error)}: {shown}") from None
            raise _TransientError(_said(error)) from None

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=ssl_context(), ttl_dns_cache=300),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": "image/*, */*;q=0.1", "Accept-Encoding": "identity", "User-Agent": "tagllm"},
                trust_env=True,
            )
        return self._session

    def _close(self) -> None:
        with contextlib.suppress(Exception):
            if self._session is not None:
                asyncio.run_coroutine_threadsafe(self._session.close(), self._loop).result(1.0)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(1.0)
            self._loop.close()


def _check_status(response: aiohttp.ClientResponse, shown: str) -> None:
    status = response.status
    if status < 300:
        return
    said = f"HTTP {status} {response.reason or ''}".rstrip()
    if status in (408, 425, 429) or status >= 500:
        raise _TransientError(said, _retry_after_s(response.headers.get("Retry-After", "")))
    raise ReadFailure(_KINDS.get(status, "unreadable"), public_text(f"{said}: {shown}"))


async def _body(response: aiohttp.ClientResponse, shown: str) -> bytes:
    limit = read.MAX_FILE_BYTES
    declared = response.content_length or 0
    if declared > limit:
        raise ReadFailure("too_large", f"{declared} bytes, more than {limit}: {shown}")
    data = bytearray()
    is_sniffed = False
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > limit:
            raise ReadFailure("too_large", f"more than {limit} bytes: {shown}")
        if not is_sniffed and len(data) >= _SNIFFED:
            _refuse_page(bytes(data[:1024]), response, shown)
            is_sniffed = True
    if not is_sniffed:
        _refuse_page(bytes(data), response, shown)
    return bytes(data)


def _refuse_page(start: bytes, response: aiohttp.ClientResponse, shown: str) -> None:
    """Raise ReadFailure where the server says that it sends a page, and the bytes do not begin like an image."""
    if not _PAGES.match(response.content_type) or not start:
        return
    from tagllm_cli.sources.formats import recognize  # Pillow

    found = recognize(start)
    if isinstance(found, Failure) and found.kind == "not_an_image":
        what = found.message if found.message in ("a web page", "JSON") else response.content_type
        message = f"the server sent {what} instead of an image (HTTP {response.status}): {shown}"
        raise ReadFailure("not_an_image", message)


def _retry_after_s(text: str) -> float | None:
    """Return the seconds that Retry-After asks for, as a number or a date; None where it says nothing."""
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _is_unknown_host(error: Exception) -> bool:
    """Tell whether a resolver that works knows no such host: a dead link, of which lists of URLs have many."""
    cause = getattr(error, "os_error", None)
    return isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME


def _said(error: Exception) -> str:
    certificate = getattr(error, "certificate_error", None)
    if certificate is not None:
        return public_text(f"its certificate is not trusted: {getattr(certificate, 'verify_message', certificate)}")
    inner = getattr(error, "os_error", None) or error
    words = getattr(inner, "strerror", None) or str(inner)
    return public_text(words) or type(error).__name__
