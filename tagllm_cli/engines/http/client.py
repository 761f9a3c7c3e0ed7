"""HTTP requests to the servers: one attempt each, whose outcome counts for the server's health."""

from __future__ import annotations

import asyncio
import resource
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from tagllm_cli.engines.http.addresses import clean_api_key, without_secrets
from tagllm_cli.engines.http.bodies import read_error
from tagllm_cli.engines.http.pool import Pool, Server
from tagllm_cli.engines.http.protocol import is_retryable, retry_after
from tagllm_cli.errors import EndpointError

if TYPE_CHECKING:
    import httpx

_CONNECT_S = 10.0
_KEY_REFUSED = (401, 403)
_GATEWAY = (502, 503, 504)  # sent by what stands in front of a server that is down
_OPEN_FILES = 65_536


class RetryableError(Exception):
    """A transient failure; `wait_s` is the server's Retry-After in seconds, if it sent one."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class HttpResponse(NamedTuple):
    """Status, body, and the address after redirects, which is None where there was no redirect."""

    status: int
    body: bytes
    redirected_to: str | None


class Client:
    """Sends requests to the servers of a pool.

    Args:
        pool: keeps the servers' health.
        api_key: sent as a bearer token; never logged, printed or put into an error.
        timeout_s: timeout of one response in seconds, the server's queue included.
        max_wait_s: longest Retry-After that is obeyed, in seconds.

    Raises:
        EndpointError: the key cannot be sent.
    """

    def __init__(self, pool: Pool, api_key: str | None, timeout_s: float, max_wait_s: float) -> None:
        self._pool = pool
        self._api_key = clean_api_key(api_key)
        self._timeout_s, self._max_wait_s = timeout_s, max_wait_s
        self._http: httpx.AsyncClient | None = None

    def open(self) -> None:
        """Prepare connections; none is made yet."""
        import httpx

        _allow_open_files()
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._api_key}"} if self._api_key else {},
            timeout=httpx.Timeout(self._timeout_s, connect=_CONNECT_S, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            follow_redirects=True,
        )

    async def close(self) -> None:
        """Close the connections; what is in flight is cancelled."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def send(self, server: Server, method: str, url: str, body: bytes | None = None) -> HttpResponse:
        """Send one request; return a success or a refusal that another attempt would meet too.

        Raises:
            RetryableError: the server was not reached, or refuses for the moment.
            EndpointError: the key is refused, `url` is no address, or a POST was redirected into a GET.
        """
        import httpx

        if self._http is None:
            raise RuntimeError("the engine was not started")
        headers = {"Content-Type": "application/json"} if body else None
        try:
            response = await self._http.request(method, url, content=body, headers=headers)
        except (httpx.TransportError, httpx.DecodingError, httpx.TooManyRedirects) as error:
            self._pool.record_failure(server)
            raise RetryableError(type(error).__name__) from None
        except (httpx.InvalidURL, UnicodeError):
            raise EndpointError(f"{server.name} is not an address", "Give it as http://HOST:PORT/v1.") from None
        final = str(response.url)
        if response.request.method != method:
            raise EndpointError(
                f"{server.name} redirects requests to {without_secrets(final)}, which loses their content",
                "Give the address of the API itself with --endpoint, https included where it is meant.",
            )
        self._check(server, response)
        return HttpResponse(response.status_code, response.content, final if response.history else None)

    def _check(self, server: Server, response: httpx.Response) -> None:
        """Record what a status says about the server's health; raise for what is no answer to the request."""
        status = response.status_code
        if status in _KEY_REFUSED:
            what = "refuses the API key" if self._api_key else "wants an API key"
            raise EndpointError(f"{server.name} {what} (HTTP {status})", "Set TAGLLM_API_KEY.")
        if status in _GATEWAY:
            self._pool.record_failure(server)
        elif server.is_healthy:
            self._pool.record_success(server)
        if is_retryable(status):
            wait = retry_after(response.headers, time.time())
            if wait is not None:  # holds for all requests to this server
                loop_time = asyncio.get_running_loop().time()
                server.not_before = max(server.not_before, loop_time + min(wait, self._max_wait_s))
            raise RetryableError(f"HTTP {status}: {self.scrub(read_error(response.content))}", wait)

    def scrub(self, message: str) -> str:
        """Return a server's message without the API key: some servers repeat it."""
        return message.replace(self._api_key, "…") if self._api_key else message


def _allow_open_files() -> None:
    """Raise the soft limit of open files: every request in flight has a connection, and the limit is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
