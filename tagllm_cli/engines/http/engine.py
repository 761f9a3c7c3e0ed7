"""Running OpenAI-compatible servers, one or several: an image stays with one of them, trouble passes or is reported."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tagllm_cli.engines.base import Usage, as_answered, check_decoded_image, failure_kind
from tagllm_cli.engines.http import protocol as wire
from tagllm_cli.engines.http.pool import Home, Pool, Server
from tagllm_cli.errors import EndpointError
from tagllm_cli.records import DecodedImage, Failure, Request, Response

if TYPE_CHECKING:
    import httpx

_CONNECT_S = 10.0
_START_TRIES = 4
_KEY_REFUSED = (401, 403)
_PASSING = (408, 409, 425, 429)  # of the refusals (4xx), those that are about the moment, not about the request
_GATEWAY = (502, 503, 504)  # said by what stands in front of a server that is not there


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Which servers are asked, and with how much patience.

    Args:
        urls: addresses of OpenAI-compatible servers, with or without /v1.
        model: served name; None: what the servers serve, if that is one.
        api_key: sent as a bearer token; never logged, printed or put into an error.
        timeout_s: patience with one answer in seconds, the server's queue included.
        retries: how often a question is asked again after trouble that may pass.
        concurrency: requests in flight per server.
        backoff_s: first pause before a question is asked again; it doubles each time, with jitter.
        max_wait_s: no such pause is longer, whatever Retry-After says.
        pause_s: how long a server that cannot be reached is left out before it is tried again; doubles up to 30 s.
        give_up_s: when no server could be reached for so long, the run ends.
    """

    urls: tuple[str, ...]
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 300.0
    retries: int = 8
    concurrency: int = 64
    backoff_s: float = 0.5
    max_wait_s: float = 60.0
    pause_s: float = 1.0
    give_up_s: float = 300.0


class _PassingError(Exception):
    """Trouble that may pass; `wait_s` is what the server asks to wait, in seconds."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class EndpointEngine:
    """An `Engine` over chat completions.

    Args:
        settings: servers and patience.
        jitter: a number in [0, 1) for each pause.
    """

    def __init__(self, settings: EndpointSettings, jitter: Callable[[], float] = random.random) -> None:
        self.settings = settings
        self.model = settings.model or ""
        self._jitter = jitter
        self._client: httpx.AsyncClient | None = None
        servers = [Server(url, wire.without_secrets(url)) for url in dict.fromkeys(settings.urls)]
        self._pool = Pool(servers, settings.pause_s, settings.give_up_s, self._is_back)
        self._slots = {server: asyncio.Semaphore(settings.concurrency) for server in servers}
        self._usage = Usage()

    @property
    def version(self) -> str:
        """`endpoint`: what serves is not ours to know."""
        return "endpoint"

    @property
    def capacity(self) -> int:
        """Requests wanted in flight, over all servers."""
        return self.settings.concurrency * len(self._pool.servers)

    async def start(self) -> None:
        """Find each server's API and the model's name; `model` is known afterwards. One server that answers is enough.

        Raises:
            EndpointError: no server answers, the key is refused, or the model's name is missing or ambiguous.
        """
        import httpx

        key = self.settings.api_key
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(self.settings.timeout_s, connect=_CONNECT_S, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=self.capacity),
            follow_redirects=True,
        )
        try:
            found = await asyncio.gather(*(self._find_patiently(server) for server in self._pool.servers))
        except BaseException:
            await self.close()
            raise
        self._settle(found)

    def _settle(self, found: Sequence[frozenset[str] | str]) -> None:
        """Settle which model and which servers are used, from the served names of each, or the reason for none."""
        pairs = zip(self._pool.servers, found, strict=True)
        served = {server: names for server, names in pairs if isinstance(names, frozenset)}
        if not served:
            raise EndpointError(
                f"no endpoint answers: {'; '.join(map(str, found))}",
                "Is the server up, and ready? `vllm serve MODEL` needs a minute or more to start.",
            )
        everything = sorted({name for names in served.values() for name in names})
        if not self.model:
            if len(everything) != 1:
                listed = ", ".join(everything[:8])
                raise EndpointError(f"the endpoints serve {len(everything)} models: {listed}", "Name one with --model.")
            self.model = everything[0]
        for server, names in served.items():
            if server.is_vllm and self.model not in names:
                hint = f"It serves {', '.join(sorted(names))}."
                raise EndpointError(f"{server.name} does not serve {self.model}", hint)
        for server in self._pool.servers:
            if server in served:
                self._pool.reached(server)
            else:
                self._pool.leave_out(server)

    async def _find_patiently(self, server: Server) -> frozenset[str] | str:
        """`_find` a few times; the last trouble as text when none succeeds."""
        attempt = 0
        while True:
            try:
                return await self._find(server)
            except _PassingError as error:
                attempt += 1
                if attempt == _START_TRIES:
                    return f"{server.name}: {error}"
                await asyncio.sleep(self._pause(attempt, error.wait_s))

    async def _find(self, server: Server) -> frozenset[str]:
        """Find a server's API under the addresses that its URL may mean, and return the names of its models."""
        bases = wire.base_urls(server.url)
        for base in bases:
            response = await self._send(server, "GET", f"{base}/models", None)
            try:
                models = wire.read_models(response.content) if response.status_code == 200 else None
            except wire.BadAnswerError as error:
                raise _PassingError(str(error)) from None
            if models is not None:
                server.base, server.is_vllm = base, models.is_vllm
                return models.names
        if self.settings.model:  # a gateway may have no list of models
            server.base = bases[0]
            return frozenset({self.settings.model})
        raise EndpointError(
            f"{server.name} is not an OpenAI-compatible API: it lists no models",
            "Check the address: http://HOST:PORT/v1.",
        )

    async def _is_back(self, server: Server) -> bool:
        try:
            names = await self._find(server)
        except (_PassingError, EndpointError):
            return False
        return self.model in names or not server.is_vllm

    async def ask(
        self, decoded_image: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        """Yield each request with its response as it arrives; see `Engine.ask`."""
        check_decoded_image(decoded_image, requests)
        image = None
        if decoded_image is not None and any(request.with_image for request in requests):
            image = await asyncio.to_thread(wire.encode_image, decoded_image)
        home = Home()
        answers = [(request, self._answer(home, image, request)) for request in requests]
        async with aclosing(as_answered(answers)) as answered:
            async for request, response in answered:
                self._usage = self._usage.plus(response)
                yield request, response

    async def _answer(self, home: Home, image: bytes | None, request: Request) -> Response:
        """Ask one question until it is answered, refused, or has failed too often."""
        attempt = 0
        while True:
            server = await self._pool.choose(home)
            server.in_flight += 1
            try:
                async with self._slots[server]:
                    return await self._attempt(server, image if request.with_image else None, request)
            except _PassingError as error:
                if attempt == self.settings.retries:
                    return Response(failure=Failure("endpoint_failed", f"{server.name}: {error}"))
                pause = self._pause(attempt, error.wait_s)
            finally:
                server.in_flight -= 1
            attempt += 1
            await asyncio.sleep(pause)

    async def _attempt(self, server: Server, image: bytes | None, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        while (wait := server.not_before - loop.time()) > 0:
            await asyncio.sleep(wait)
        body = wire.request_body(self.model, request, image, is_vllm=server.is_vllm)
        response = await self._send(server, "POST", f"{server.base}/chat/completions", body)
        if response.status_code == 200:
            try:
                return wire.read_response(response.content, wants_logprobs=request.top_logprobs > 0)
            except wire.BadAnswerError as error:
                raise _PassingError(str(error)) from None
            except wire.NoLogprobsError:
                raise self._no_logprobs(server, "its answers hold none") from None
        message = self._scrub(wire.read_error(response.content))
        if request.top_logprobs and "logprob" in message.lower():
            raise self._no_logprobs(server, message)
        return Response(failure=Failure(failure_kind(message), f"HTTP {response.status_code}: {message}"))

    async def _send(self, server: Server, method: str, url: str, body: bytes | None) -> httpx.Response:
        """Send one request; returns what is an answer or a refusal.

        Raises:
            _PassingError: for all that may be different in a moment.
            EndpointError: the key is refused.
        """
        import httpx

        if self._client is None:
            raise RuntimeError("the engine was not started")
        try:
            response = await self._client.request(
                method, url, content=body, headers={"Content-Type": "application/json"} if body else None
            )
        except (httpx.TransportError, httpx.DecodingError, httpx.TooManyRedirects) as error:
            self._pool.missed(server)
            raise _PassingError(type(error).__name__) from None
        except (httpx.InvalidURL, UnicodeError):
            raise EndpointError(f"{server.name} is not an address", "Give it as http://HOST:PORT/v1.") from None
        status = response.status_code
        if status in _KEY_REFUSED:
            how = "refuses the API key" if self.settings.api_key else "wants an API key"
            raise EndpointError(f"{server.name} {how} (HTTP {status})", "Set TAGLLM_API_KEY.")
        if status in _GATEWAY:
            self._pool.missed(server)
        elif server.is_up:
            self._pool.reached(server)
        if status >= 500 or status in _PASSING:
            wait = wire.retry_after(response.headers, time.time())
            if wait is not None:  # said to one, meant for all
                loop_time = asyncio.get_running_loop().time()
                server.not_before = max(server.not_before, loop_time + min(wait, self.settings.max_wait_s))
            message = self._scrub(wire.read_error(response.content))
            raise _PassingError(f"HTTP {status}: {message}", wait)
        return response

    def _pause(self, attempt: int, wait_s: float | None) -> float:
        """Seconds before the next attempt: doubling, jittered by half, and not less than the server asked for."""
        backoff = self.settings.backoff_s * 2.0**attempt * (0.5 + self._jitter() / 2)
        return min(self.settings.max_wait_s, max(backoff, wait_s or 0.0))

    def _no_logprobs(self, server: Server, why: str) -> EndpointError:
        return EndpointError(
            f"{server.name} gives no log-probabilities: {why}",
            "`disambiguate` decides from them; a vLLM server gives up to 20 (`vllm serve --max-logprobs 20`).",
        )

    def _scrub(self, message: str) -> str:
        """Take the API key out of a server's message: some repeat it."""
        key = self.settings.api_key
        return message.replace(key, "…") if key else message

    def usage(self) -> Usage:
        """Return tokens and requests since `start`, from the servers' `usage` (cached tokens where they tell)."""
        return self._usage

    async def close(self) -> None:
        """Close the connections; requests in flight are given up."""
        await self._pool.close()
        if self._client is not None:
            await self._client.aclose()
            self._client = None
