"""Engine over OpenAI-compatible servers: requests of one image go to one server; where it has no answer, to others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tagllm_cli.engines.base import Usage, as_answered, check_decoded_image
from tagllm_cli.engines.http.address import parse_address
from tagllm_cli.engines.http.asker import Asker, Patience
from tagllm_cli.engines.http.attempts import key_error
from tagllm_cli.engines.http.client import Client
from tagllm_cli.engines.http.dialect import Dialect
from tagllm_cli.engines.http.discovery import choose_model, find_version
from tagllm_cli.engines.http.images import SharedImage, share_image
from tagllm_cli.engines.http.pool import Limits, Pool
from tagllm_cli.engines.http.search import PROBE_S, Search
from tagllm_cli.engines.http.server import Affinity, Server
from tagllm_cli.engines.identity import ModelIdentity, served_identity
from tagllm_cli.engines.options import ModelOptions
from tagllm_cli.errors import EndpointError
from tagllm_cli.records import DecodedImage, Request, Response

_LONGEST_BACKOFF_S = 10.0
# vLLM tells its limit (`max_num_seqs`) only in development mode; its own default is 256, on large GPUs 1,024.
_VLLM_CONCURRENCY = 256
_OTHER_CONCURRENCY = 32
_WATCHES = 12  # looks at what is in flight before silence is long
# Times the requests in flight: four servers are kept busy to 98% with 3, to 78% with 2 (4 requests per image).
_VLLM_ADMITTED = 3
_OTHER_ADMITTED = 2


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
        backoff_s: pause before the second attempt in seconds; it doubles each time up to 10 s, with jitter.
        max_wait_s: longest pause, whatever Retry-After says.
        pause_s: how long a server whose attempts fail is left out, in seconds; doubles up to 30 s.
        give_up_s: the run ends when no server has given a usable answer for so many seconds.
        hedge_s: a request without an answer is asked of another server, too, after no less than so many seconds.
        chat_template_kwargs: the user's variables for the chat template.
        silence_s: servers that answered before, and then nothing of all that they were asked for so long, hang.
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
    give_up_s: float = 90.0
    hedge_s: float = 5.0
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    silence_s: float = 60.0


def identify_endpoints(options: ModelOptions) -> ModelIdentity | None:
    """Return the identity of the served model where the user names it, else None: `identify_served` asks the server."""
    name = options.model_id or options.model
    return None if name is None else served_identity(name, options.chat_template_kwargs)


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
            return served_identity(engine.model, options.chat_template_kwargs)
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
    if pinned != served_identity(pinned.name, options.chat_template_kwargs):
        raise EndpointError(
            f"this table is pinned to the model {pinned.name}, read from its files; --endpoint names a server",
            "Give --model, or --model-id with the name that both share from the first run on; or --replan.",
        )
    return EndpointEngine(_settings(options, pinned.name))


def _settings(options: ModelOptions, pinned: str | None = None) -> EndpointSettings:
    limits: Mapping[str, Any] = {
        "chat_template_kwargs": options.chat_template_kwargs,
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
        EndpointError: an address is none, or the API key cannot be sent.
    """

    def __init__(self, settings: EndpointSettings, jitter: Callable[[], float] = random.random) -> None:
        self.settings = settings
        self.model = settings.model or ""
        addresses = dict.fromkeys(parse_address(url) for url in settings.urls)
        servers = [
            Server(
                address,
                Client(address, settings.api_key, settings.timeout_s),
                dialect=Dialect(template_kwargs=settings.chat_template_kwargs),
                pause_s=settings.pause_s,
            )
            for address in addresses
        ]
        self._pool = Pool(
            servers,
            Limits(
                settings.pause_s,
                settings.give_up_s,
                settings.max_wait_s,
                settings.hedge_s,
                settings.timeout_s,
                settings.silence_s,
            ),
        )
        longest = min(_LONGEST_BACKOFF_S, settings.max_wait_s)
        patience = Patience(
            settings.retries, settings.timeout_s, settings.backoff_s, longest, settings.silence_s / _WATCHES
        )
        self._asker = Asker(self._pool, patience, jitter)
        self._search = Search(settings.model, settings.timeout_s, self._asker.pause, settings.pause_s)
        self._searches: list[asyncio.Task[None]] = []
        self._version = "endpoint"
        self._usage = Usage()

    @property
    def version(self) -> str:
        """`vllm` with the version that the servers tell after `start`; else `endpoint`."""
        return self._version

    @property
    def capacity(self) -> int:
        """Requests to admit: some multiple of those in flight over all servers, as many of them wait for something.

        An image's requests wait for its first one where the server is vLLM. A server that is down is taken to be like
        the others.
        """
        admitted = [
            self._concurrency(server) * (_VLLM_ADMITTED if server.is_vllm else _OTHER_ADMITTED)
            for server in self._pool.servers
            if server.base
        ] or [1]
        return sum(admitted) + max(admitted) * (len(self._pool.servers) - len(admitted))

    @property
    def gpus(self) -> int | None:
        """None: the servers do not tell."""
        return None

    @property
    def trouble(self) -> str | None:
        """What keeps requests from being answered, such as a server that is left out, in one line; None: nothing."""
        return self._pool.trouble

    def _concurrency(self, server: Server) -> int:
        return self.settings.concurrency or (_VLLM_CONCURRENCY if server.is_vllm else _OTHER_CONCURRENCY)

    async def start(self) -> None:
        """Find each server's API and the model's name; `model` is known afterwards. One reachable server suffices.

        Raises:
            EndpointError: no server responds, all refuse the key, or the model's name is missing or ambiguous.
        """
        servers = self._pool.servers
        try:
            for server in servers:
                server.client.open()
            found = dict(zip(servers, await asyncio.gather(*map(self._search.find, servers)), strict=True))
            served = {server: names for server, names in found.items() if not isinstance(names, str)}
            if all(server.key_refusals for server in servers):
                raise key_error(servers[0], servers[0].reason)
            errors = [f"{server.name}: {server.reason}" for server in servers if server not in served]
            self.model = self._asker.model = choose_model(served, errors, self.settings.model, self.settings.pinned)
            versions = await asyncio.gather(*(find_version(server, PROBE_S) for server in served))
        except BaseException:
            await self.close()
            raise
        self._version = ", ".join(sorted({version for version in versions if version})) or "endpoint"
        for server in servers:
            if server in served:
                self._pool.admit(server, self._concurrency(server))
            else:
                self._searches.append(asyncio.create_task(self._join_later(server)))

    async def _join_later(self, server: Server) -> None:
        await self._search.find_later(server, self.model)
        self._pool.admit(server, self._concurrency(server))

    async def ask(
        self, decoded_image: DecodedImage | None, requests: Sequence[Request]
    ) -> AsyncGenerator[tuple[Request, Response]]:
        """Yield each request with its response as it arrives; see `Engine.ask`.

        Where a server is vLLM, one request of an image goes ahead: its prefix is in the cache for the others, and they
        need not carry the image again.
        """
        check_decoded_image(decoded_image, requests)
        affinity = Affinity()
        image, lead = None, -1
        about_image = [number for number, request in enumerate(requests) if request.with_image]
        if decoded_image is not None and about_image:
            image = await share_image(decoded_image)
            if len(about_image) > 1 and self._pool.has_vllm:
                lead = about_image[0]
                affinity.followers = len(about_image) - 1
        answers = [
            (request, self._lead(affinity, image, request))
            if number == lead and image is not None
            else (request, self._respond(affinity, image, request, after_lead=lead >= 0))
            for number, request in enumerate(requests)
        ]
        try:
            async with aclosing(as_answered(answers)) as answered:
                async for request, response in answered:
                    self._usage = self._usage.plus(response)
                    yield request, response
        finally:
            affinity.stop_waiting(affinity.followers)

    async def _lead(self, affinity: Affinity, image: SharedImage, request: Request) -> Response:
        try:
            return await self._asker.respond(affinity, image, request)
        finally:
            image.lead_ended.set()

    async def _respond(
        self, affinity: Affinity, image: SharedImage | None, request: Request, *, after_lead: bool
    ) -> Response:
        if after_lead and image is not None and request.with_image:
            await image.lead_ended.wait()
            affinity.stop_waiting(1)
        return await self._asker.respond(affinity, image, request)

    def usage(self) -> Usage:
        """Return tokens and requests since `start` from the responses' `usage`; cached tokens where a server tells."""
        return self._usage

    async def close(self) -> None:
        """Close the connections; requests in flight are cancelled."""
        for search in self._searches:
            search.cancel()
        await asyncio.gather(*self._searches, return_exceptions=True)
        self._searches.clear()
        await asyncio.gather(*(server.client.close() for server in self._pool.servers))
