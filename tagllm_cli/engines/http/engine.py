"""Engine over OpenAI-compatible servers: requests of one image go to one server, transient failures are retried."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tagllm_cli.engines.base import Usage, as_answered, check_decoded_image, failure_kind
from tagllm_cli.engines.http.addresses import without_secrets
from tagllm_cli.engines.http.bodies import BadResponseError, read_error
from tagllm_cli.engines.http.client import Client, RetryableError
from tagllm_cli.engines.http.completion import read_response
from tagllm_cli.engines.http.discovery import choose_model, find_api, find_version
from tagllm_cli.engines.http.pool import Affinity, Pool, Server
from tagllm_cli.engines.http.protocol import encode_image, request_body
from tagllm_cli.engines.identity import ModelIdentity, served_identity
from tagllm_cli.engines.options import ModelOptions
from tagllm_cli.errors import EndpointError
from tagllm_cli.records import DecodedImage, Failure, Request, Response

_START_TRIES = 4
# vLLM tells its limit (`max_num_seqs`) only in development mode; its own default is 256, on large GPUs 1,024.
_VLLM_CONCURRENCY = 256
_OTHER_CONCURRENCY = 32
_GET_LOGPROBS = "Yes or no is decided from them; a vLLM server gives up to 20 (`vllm serve MODEL --max-logprobs 20`)."


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Which servers are asked, with which timeouts and limits.

    Args:
        urls: addresses of OpenAI-compatible servers, with or without /v1.
        model: served name; None: the one model that the servers serve.
        pinned: served name of the model whose responses are on record; without `model`, no other one is accepted.
        api_key: sent as a bearer token; never logged, printed or put into an error.
        timeout_s: timeout of one response in seconds, the server's queue included.
        retries: attempts after the first one at a request that fails for the moment.
        concurrency: requests in flight per server; None: 256 for vLLM, 32 for another one.
        backoff_s: pause before the second attempt in seconds; it doubles each time, with jitter.
        max_wait_s: longest pause, whatever Retry-After says.
        pause_s: pause before an unhealthy server is probed, in seconds; doubles up to 30 s.
        give_up_s: the run ends when no server was healthy for so many seconds.
    """

    urls: tuple[str, ...]
    model: str | None = None
    pinned: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 300.0
    retries: int = 8
    concurrency: int | None = None
    backoff_s: float = 0.5
    max_wait_s: float = 60.0
    pause_s: float = 1.0
    give_up_s: float = 300.0


def identify_endpoints(options: ModelOptions) -> ModelIdentity | None:
    """Return the identity of the served model where the user names it, else None: `identify_served` asks the server."""
    name = options.model_id or options.model
    return None if name is None else served_identity(name)


def identify_served(options: ModelOptions) -> ModelIdentity | None:
    """Ask the endpoints for the model that they serve; None where the options name no endpoint.

    Raises:
        EndpointError: none answers, or they serve several models.
    """
    if not options.endpoints or options.replay is not None:
        return None

    async def ask() -> ModelIdentity:
        engine = EndpointEngine(_settings(options))
        try:
            await engine.start()
            return served_identity(engine.model)
        finally:
            await engine.close()

    return asyncio.run(ask())


def make_endpoint_engine(options: ModelOptions, log_file: Path, pinned: ModelIdentity | None) -> EndpointEngine:
    """Return the engine of the options' endpoints, which refuses another model than the pinned one at its start.

    Raises:
        EndpointError: the pinned model is none that a server serves, or the API key cannot be sent.
    """
    is_named = options.model is not None or options.model_id is not None
    if pinned is None or is_named:
        return EndpointEngine(_settings(options))
    if pinned != served_identity(pinned.name):
        raise EndpointError(
            f"this table is pinned to the model {pinned.name}, read from its files; --endpoint names a server",
            "Give --model, or --model-id with the name that both share from the first run on; or --replan.",
        )
    return EndpointEngine(_settings(options, pinned.name))


def _settings(options: ModelOptions, pinned: str | None = None) -> EndpointSettings:
    limits: Mapping[str, Any] = {
        "timeout_s": options.timeout_s,
        "retries": options.retries,
        "concurrency": options.concurrency,
    }
    given = {name: value for name, value in limits.items() if value is not None}
    return EndpointSettings(options.endpoints, options.model, pinned, options.api_key, **given)


class EndpointEngine:
    """An `Engine` over chat completions.

    Args:
        settings: servers, timeouts and limits.
        jitter: a number in [0, 1) for each pause.

    Raises:
        EndpointError: the API key cannot be sent.
    """

    def __init__(self, settings: EndpointSettings, jitter: Callable[[], float] = random.random) -> None:
        self.settings = settings
        self.model = settings.model or ""
        self._jitter = jitter
        servers = [Server(url, without_secrets(url)) for url in dict.fromkeys(settings.urls)]
        self._pool = Pool(servers, settings.pause_s, settings.give_up_s, self._probe)
        self._client = Client(self._pool, settings.api_key, settings.timeout_s, settings.max_wait_s)
        self._version = "endpoint"
        self._usage = Usage()

    @property
    def version(self) -> str:
        """`vllm` with the version that the servers tell after `start`; else `endpoint`."""
        return self._version

    @property
    def capacity(self) -> int:
        """Requests to keep in flight over all servers; one that is down is taken to be like the others."""
        known = [self._concurrency(server) for server in self._pool.servers if server.base] or [1]
        return sum(known) + max(known) * (len(self._pool.servers) - len(known))

    def _concurrency(self, server: Server) -> int:
        return self.settings.concurrency or (_VLLM_CONCURRENCY if server.is_vllm else _OTHER_CONCURRENCY)

    async def start(self) -> None:
        """Find each server's API and the model's name; `model` is known afterwards. One reachable server suffices.

        Raises:
            EndpointError: no server responds, the key is refused, or the model's name is missing or ambiguous.
        """
        self._client.open()
        servers = self._pool.servers
        try:
            found = dict(zip(servers, await asyncio.gather(*map(self._find, servers)), strict=True))
            served = {server: names for server, names in found.items() if not isinstance(names, str)}
            errors = [error for error in found.values() if isinstance(error, str)]
            self.model = choose_model(served, errors, self.settings.model, self.settings.pinned)
            versions = await asyncio.gather(*(find_version(self._client, server) for server in served))
        except BaseException:
            await self.close()
            raise
        self._version = ", ".join(sorted({version for version in versions if version})) or "endpoint"
        for server in servers:
            if server in served:
                self._admit(server)
            else:
                self._pool.mark_unhealthy(server)

    async def _find(self, server: Server) -> frozenset[str] | str:
        """Return a server's models, after several attempts the last error's message."""
        attempt = 0
        while True:
            try:
                return await find_api(self._client, server, self.settings.model)
            except RetryableError as error:
                attempt += 1
                if attempt == _START_TRIES:
                    return f"{server.name}: {error}"
                await asyncio.sleep(self._pause(attempt, error.wait_s))

    def _admit(self, server: Server) -> None:
        server.slots = server.slots or asyncio.Semaphore(self._concurrency(server))
        self._pool.record_success(server)

    async def _probe(self, server: Server) -> bool:
        try:
            names = await find_api(self._client, server, self.settings.model)
        except (RetryableError, EndpointError):
            return False
        if self.model not in names and server.is_vllm:
            return False
        self._admit(server)
        return True

    async def ask(
        self, decoded_image: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        """Yield each request with its response as it arrives; see `Engine.ask`."""
        check_decoded_image(decoded_image, requests)
        image = None
        if decoded_image is not None and any(request.with_image for request in requests):
            image = await asyncio.to_thread(encode_image, decoded_image)
        affinity = Affinity()
        answers = [(request, self._respond(affinity, image, request)) for request in requests]
        async with aclosing(as_answered(answers)) as answered:
            async for request, response in answered:
                self._usage = self._usage.plus(response)
                yield request, response

    async def _respond(self, affinity: Affinity, image: bytes | None, request: Request) -> Response:
        """Ask until there is a response, a refusal, or no attempt left."""
        attempt = 0
        while True:
            server = await self._pool.choose(affinity)
            assert server.slots is not None
            server.in_flight += 1
            try:
                async with server.slots:
                    return await self._attempt(server, image if request.with_image else None, request)
            except RetryableError as error:
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
        body = request_body(self.model, request, image, is_vllm=server.is_vllm)
        answer = await self._client.send(server, "POST", f"{server.base}/chat/completions", body)
        if answer.status == 200:
            try:
                response = read_response(answer.body, request)
            except BadResponseError as error:
                raise RetryableError(self._client.scrub(str(error))) from None
            server.gives_logprobs |= bool(response.first_logprobs)
            return self._scrubbed(response)
        message = self._client.scrub(read_error(answer.body))
        if request.top_logprobs and "logprob" in message.lower():
            if not server.gives_logprobs:
                raise EndpointError(f"{server.name} gives no log-probabilities: {message}", _GET_LOGPROBS)
            return Response(failure=Failure("no_logprobs", f"HTTP {answer.status}: {message}"))
        return Response(failure=Failure(failure_kind(message), f"HTTP {answer.status}: {message}"))

    def _scrubbed(self, response: Response) -> Response:
        if response.failure is None:
            return response
        return Response(failure=Failure(response.failure.kind, self._client.scrub(response.failure.message)))

    def _pause(self, attempt: int, wait_s: float | None) -> float:
        """Return the seconds before the next attempt: doubling, jittered by half, and at least `wait_s`."""
        backoff = self.settings.backoff_s * 2.0**attempt * (0.5 + self._jitter() / 2)
        return min(self.settings.max_wait_s, max(backoff, wait_s or 0.0))

    def usage(self) -> Usage:
        """Return tokens and requests since `start` from the responses' `usage`; cached tokens where a server tells."""
        return self._usage

    async def close(self) -> None:
        """Close the connections; requests in flight are cancelled."""
        await self._pool.close()
        await self._client.close()
