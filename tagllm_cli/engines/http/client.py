"""HTTP requests to one server: what was sent back, or why nothing was. What that means is judged elsewhere."""

from __future__ import annotations

import io
import os
import resource
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from tagllm_cli.engines.http.address import Address, scrub
from tagllm_cli.engines.http.api_base import base_urls, clean_api_key, key_headers
from tagllm_cli.engines.http.proxies import Proxy, find_proxy
from tagllm_cli.errors import EndpointError

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

MOST_BODY = 4 << 20  # bytes of one response, decompressed; an answer of thousands of names is a hundredth of it
CONNECT_S = 10.0
_KEEP_S = 3.0  # an idle connection is kept: less than servers keep it (vLLM: 5 s), who would close it under a request
_REDIRECTS = (301, 302, 303, 307, 308)
_KEEPS_METHOD = (307, 308)
_MOST_REDIRECTS = 5
_OPEN_FILES = 65_536
_LARGE_BODY = 1 << 20  # bytes; sent in pieces, so that other requests get their turn


class RetryableError(Exception):
    """A transient failure; `wait_s` is the server's Retry-After in seconds, if it sent one."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class TooLargeError(Exception):
    """The body of a response has more than MOST_BODY bytes."""


class HttpResponse(NamedTuple):
    """Status, headers, body, and the address after redirects, which is None where there was no redirect."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    redirected_to: str | None


class Client:
    """Sends requests to one server.

    Args:
        address: of the server.
        api_key: sent with every request; never logged, printed or put into an error.
        timeout_s: timeout of one response in seconds, the server's queue included.

    Raises:
        EndpointError: the key cannot be sent, or the address holds credentials of its own.
    """

    def __init__(self, address: Address, api_key: str | None, timeout_s: float) -> None:
        key = clean_api_key(api_key)
        if key and address.authorization:
            raise EndpointError(
                f"the address of {address.url} holds a user name or password, and an API key is set: "
                "only one of them can be sent",
                "Take it out of the address, or unset TAGLLM_API_KEY (of an LLM's own server: TAGLLM_LLM_API_KEY).",
            )
        self._address = address
        self.has_key = bool(key or address.authorization)
        self._credentials = key_headers(base_urls(address.url)[0], key)
        if address.authorization:
            self._credentials = {"Authorization": address.authorization}
        self._secrets = (*((key,) if key else ()), *address.secrets)
        self._timeout_s = timeout_s
        self._proxy: Proxy | None = None
        self._ssl: ssl.SSLContext | bool = True
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Prepare connections; none is made yet. Raises EndpointError where the environment's proxy or CA is no use."""
        import aiohttp

        _allow_open_files()
        self._proxy = find_proxy(self._address.url)
        if self._address.url.startswith("https") or (self._proxy and self._proxy.url.startswith("https")):
            self._ssl = _ssl_context()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_S, ssl=self._ssl),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "gzip, deflate", "User-Agent": "tagllm"},
        )

    async def close(self) -> None:
        """Close the connections; what is in flight is cancelled."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def send(
        self, method: str, url: str, body: bytes | None = None, timeout_s: float | None = None
    ) -> HttpResponse:
        """Send one request and return the response, whatever its status.

        Args:
            method: GET or POST.
            url: below the server's address, without its query.
            body: JSON.
            timeout_s: of this response in seconds; None: that of the client.

        Raises:
            RetryableError: there was no response, or not a whole one.
            TooLargeError: the response is larger than MOST_BODY.
            EndpointError: `url` is no address, or a POST was redirected into a GET.
        """
        import aiohttp
        from yarl import URL

        if self._session is None:
            raise RuntimeError("the engine was not started")
        timeout_s = timeout_s or self._timeout_s
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S)
        try:
            return await self._follow(self._session, method, URL(self._address.with_query(url)), body, timeout)
        except (aiohttp.InvalidURL, UnicodeError):
            raise EndpointError(
                f"{self._address.url} is not an address, or is redirected to what is none",
                "Give it as http://HOST:PORT/v1.",
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            from tagllm_cli.engines.http.connection_errors import explain

            reason = explain(error, self._address.host, self._proxy, timeout_s)
            raise RetryableError(self.scrub(reason)) from None

    async def _follow(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: URL,
        body: bytes | None,
        timeout: aiohttp.ClientTimeout,
    ) -> HttpResponse:
        """Send a request and follow its redirects. Credentials go to no other host, and never from https to http."""
        from yarl import URL

        headers = {"Content-Type": "application/json"} if body else {}
        headers |= self._credentials
        asked = url
        for _ in range(_MOST_REDIRECTS):
            data = io.BytesIO(body) if body and len(body) > _LARGE_BODY else body
            async with session.request(
                method,
                url,
                data=data,
                headers=headers,
                proxy=self._proxy.url if self._proxy else None,
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                location = response.headers.get("Location") if response.status in _REDIRECTS else None
                if location is None:
                    content = await _read(response.content)
                    final = None if url is asked else str(url)
                    return HttpResponse(response.status, response.headers, content, final)
            target = url.join(URL(location))
            if method == "POST" and response.status not in _KEEPS_METHOD:
                raise EndpointError(
                    f"{self._address.url} redirects requests to {_bare(target)}, which loses their content",
                    "Give the address of the API itself with --endpoint, https included where it is meant.",
                )
            if target.host != asked.host or (asked.scheme, target.scheme) == ("https", "http"):
                headers = {name: value for name, value in headers.items() if name not in self._credentials}
            url = target
        raise RetryableError("too many redirects")

    def scrub(self, message: str) -> str:
        """Return a server's message without the API key and the secrets of the address: some servers repeat them."""
        return scrub(message, self._secrets)


async def _read(stream: aiohttp.StreamReader) -> bytes:
    pieces = []
    size = 0
    async for piece in stream.iter_any():
        size += len(piece)
        if size > MOST_BODY:
            raise TooLargeError(f"the answer has more than {MOST_BODY >> 20} MB")
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _bare(url: URL) -> str:
    return str(url.with_user(None).with_query(None).with_fragment(None))


def _ssl_context() -> ssl.SSLContext:
    """Return a context that trusts the CAs that the environment names, else those of the system and of certifi.

    Raises:
        EndpointError: the file or folder that the environment names cannot be used.
    """
    named = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR")
    for variable in named:
        if path := os.environ.get(variable):
            try:
                if os.path.isdir(path):
                    return ssl.create_default_context(capath=path)
                return ssl.create_default_context(cafile=path)
            except OSError as error:  # ssl.SSLError included
                raise EndpointError(
                    f"{variable} names {path}, which holds no certificates that can be read: {error.strerror}",
                    "Give a PEM file with the certificates of the CAs to trust, or unset it.",
                ) from None
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _allow_open_files() -> None:
    """Raise the soft limit of open files: every request in flight has a connection, and the limit is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
