"""What the servers are: where their API is, which models they serve, which engine they run."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from tagllm_cli.engines.http.api_base import base_urls, deployed_model, redirected_base, without_secrets
from tagllm_cli.engines.http.attempts import key_refusal
from tagllm_cli.engines.http.bodies import BadResponseError, read_error
from tagllm_cli.engines.http.client import HttpResponse, RetryableError, TooLargeError
from tagllm_cli.engines.http.protocol import is_retryable, read_models, read_version, retry_after
from tagllm_cli.engines.http.server import Server
from tagllm_cli.errors import EndpointError


class KeyRefusedError(Exception):
    """The server refuses the API key, or wants one."""


async def find_api(server: Server, model: str | None, timeout_s: float) -> frozenset[str]:
    """Set a server's `base` and `is_vllm` by probing the addresses that its URL may mean; return its served names.

    Args:
        server: the server.
        model: served name that the user gave; it stands for the list of models of a server that has none, as does the
            one that an address names.
        timeout_s: of one probe, in seconds.

    Raises:
        RetryableError: the server is not reached for the moment.
        KeyRefusedError: it refuses the key.
        EndpointError: no address is an API that lists models, or it is redirected to another host.
    """
    likeliest = ""
    for base in base_urls(server.address.url):
        response = await _get(server, f"{base}/models", timeout_s)
        try:
            models = read_models(response.body) if response.status == 200 else None
        except BadResponseError as error:
            raise RetryableError(str(error)) from None
        final: str | None = base
        if response.redirected_to is not None:
            final = redirected_base(base, response.redirected_to)
            if models is not None and final is None:
                raise EndpointError(
                    f"{server.name} redirects to {without_secrets(response.redirected_to)}",
                    "Give that address with --endpoint if it is the right one.",
                )
        if models is not None and final is not None:
            server.base, server.is_vllm = final, models.is_vllm
            return models.names
        likeliest = likeliest or final or base
    if model := model or deployed_model(likeliest):
        server.base = likeliest
        return frozenset({model})
    raise EndpointError(
        f"{server.name} is not an OpenAI-compatible API: it lists no models",
        "Check the address: http://HOST:PORT/v1. Of a server without a list, name the model with --model.",
    )


def choose_model(
    served: Mapping[Server, frozenset[str]], errors: Sequence[str], model: str | None, pinned: str | None
) -> str:
    """Return the served name to ask for.

    Args:
        served: the names that each reachable server lists.
        errors: why the other servers are not reachable.
        model: the name that the user gave; a server other than vLLM need not list it.
        pinned: the name that the table is pinned to; all servers must list it unless the user gave a name.

    Raises:
        EndpointError: no server is reachable, or the name is missing or ambiguous.
    """
    if not served:
        raise EndpointError(
            f"no endpoint answers: {'; '.join(errors)}",
            "Is the server up, and ready? `vllm serve MODEL` needs a minute or more to start.",
        )
    names = sorted({name for each in served.values() for name in each})
    chosen = model or pinned
    if chosen is None:
        if len(names) != 1:
            listed = ", ".join(names[:8])
            raise EndpointError(
                f"the endpoints serve {len(names)} models: {listed}", "Name one with --model, beside --endpoint."
            )
        return names[0]
    for server, each in served.items():
        if chosen not in each and (server.is_vllm or model is None):
            hint = f"It serves {', '.join(sorted(each)[:8])}."
            if model is None:
                hint += " This table is pinned to the other one; --replan asks again under a new plan."
            raise EndpointError(f"{server.name} does not serve {chosen}", hint)
    return chosen


async def find_version(server: Server, timeout_s: float) -> str | None:
    """Return `vllm` and the version that a vLLM server tells; None where it is another server or does not tell."""
    if server.is_vllm:
        with suppress(RetryableError, KeyRefusedError, EndpointError):
            response = await _get(server, re.sub(r"/v\d+\w*$", "", server.base) + "/version", timeout_s)
            version = read_version(response.body) if response.status == 200 else None
            return f"vllm {version}" if version else None
    return None


async def _get(server: Server, url: str, timeout_s: float) -> HttpResponse:
    try:
        response = await server.client.send("GET", url, timeout_s=timeout_s)
    except TooLargeError as error:
        raise EndpointError(f"{server.name} is not an OpenAI-compatible API: {error}", "Check the address.") from None
    if response.status in (401, 403):
        raise KeyRefusedError(key_refusal(server, response.status))
    if is_retryable(response.status):
        message = server.client.scrub(read_error(response.body))
        wait = retry_after({"retry-after": response.headers.get("Retry-After", "")}, time.time())
        raise RetryableError(f"HTTP {response.status}: {message}", wait)
    return response
