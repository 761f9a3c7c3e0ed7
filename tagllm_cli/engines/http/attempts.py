"""One attempt at a request: it is sent to one server, and what came back is judged."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Mapping
from typing import NamedTuple

from tagllm_cli.engines.base import failure_kind
from tagllm_cli.engines.http.bodies import BadResponseError, read_error
from tagllm_cli.engines.http.client import HttpResponse, RetryableError, TooLargeError
from tagllm_cli.engines.http.completion import read_response
from tagllm_cli.engines.http.dialect import learned
from tagllm_cli.engines.http.images import SharedImage
from tagllm_cli.engines.http.protocol import is_retryable, parameters, request_body, retry_after
from tagllm_cli.engines.http.server import Lease, Server
from tagllm_cli.errors import EndpointError
from tagllm_cli.records import Failure, Request, Response

NO_LOGPROBS = "no_logprobs"
GATEWAY = (502, 503, 504)  # sent by what stands in front of a server that is down
_ABOUT_THE_REQUEST = (400, 413, 422)
_IMAGE_MISSED = (400, 422, 500)  # how a server may say that it does not have the image; vLLM: 400
_MAY_TEACH = (400, 404, 422, 500, 501)  # of a parameter that the server does not take
_LARGE_ANSWER = 1 << 18  # bytes; parsed in a thread


class Verdict(enum.Enum):
    """What an attempt says about the server and the request."""

    ANSWERED = enum.auto()
    REFUSED = enum.auto()  # no usable answer to this request; another server may give one
    FAILED = enum.auto()  # for the moment
    KEY_REFUSED = enum.auto()


class Attempt(NamedTuple):
    """The end of an attempt.

    Args:
        lease: the server.
        verdict: what it says.
        response: an answer, or the failure that it is if nobody answers.
        began: when it was sent (`time.monotonic`).
        is_agreeable: a refusal that needs one more server to say the same, not all of them.
        wait_s: the server's Retry-After in seconds.
        is_away: the server was not reached.
    """

    lease: Lease
    verdict: Verdict
    response: Response
    began: float
    is_agreeable: bool = False
    wait_s: float | None = None
    is_away: bool = False

    @property
    def reason(self) -> str:
        """Why there is no answer."""
        return "" if self.response.failure is None else self.response.failure.message


async def attempt(lease: Lease, model: str, image: SharedImage | None, request: Request) -> Attempt:
    """Send a request to a server, and judge what comes back.

    Args:
        lease: the server; the slot is not given back.
        model: served name.
        image: what the request is about; None: nothing.
        request: what is asked.

    Raises:
        EndpointError: the server redirects the request in a way that loses its content.
    """
    server, began = lease.server, time.monotonic()
    with_pixels = image is None or not (server in image.held_by and server.keeps_images)
    try:
        answer = await _send(server, model, image, request, with_pixels=with_pixels)
        if not with_pixels:
            server.without_pixels += 1
            if answer.status in _IMAGE_MISSED and not _is_about_text(read_error(answer.body)):
                answer = await _send(server, model, image, request, with_pixels=True)
                server.misses += answer.status == 200
        end = await _judge(lease, answer, request, began)
    except RetryableError as error:
        return failed(lease, str(error), began, is_away=True)
    except TooLargeError as error:
        response = Response(failure=Failure("too_long_answer", str(error)))
        return Attempt(lease, Verdict.REFUSED, response, began, is_agreeable=True)
    if end.verdict is Verdict.ANSWERED:
        server.gives_logprobs |= bool(end.response.first_logprobs)
        if image is not None and server.is_vllm:
            image.held_by.add(server)
    return end


async def _send(
    server: Server, model: str, image: SharedImage | None, request: Request, *, with_pixels: bool
) -> HttpResponse:
    """Send a request in the server's dialect, and again where its refusal teaches another one."""
    while True:
        dialect, is_vllm = server.dialect, server.is_vllm
        part = None if image is None else image.part_for(server, with_pixels=with_pixels)
        body = request_body(model, request, part, is_vllm=is_vllm, dialect=dialect)
        answer = await server.client.send("POST", f"{server.base}/chat/completions", body)
        if answer.status not in _MAY_TEACH:
            return answer
        if server.dialect == dialect:  # else another request has learned it meanwhile
            server.dialect = learned(dialect, answer.body, parameters(request, is_vllm=is_vllm, dialect=dialect))
        if server.dialect == dialect:
            return answer


async def _judge(lease: Lease, answer: HttpResponse, request: Request, began: float) -> Attempt:
    status, client = answer.status, lease.server.client
    if status == 200:
        try:
            if len(answer.body) > _LARGE_ANSWER:
                response = await asyncio.to_thread(read_response, answer.body, request)
            else:
                response = read_response(answer.body, request)
        except BadResponseError as error:
            return failed(lease, client.scrub(str(error)), began)
        if response.failure is None:
            return Attempt(lease, Verdict.ANSWERED, response, began)
        failure = Failure(response.failure.kind, client.scrub(response.failure.message))
        is_agreeable = failure.kind != NO_LOGPROBS
        return Attempt(lease, Verdict.REFUSED, Response(failure=failure), began, is_agreeable=is_agreeable)
    message = client.scrub(read_error(answer.body))
    # A server that has answered refuses one request with 403, not the key: some filters do.
    if status == 401 or (status == 403 and not lease.server.has_answered):
        failure = Failure("endpoint_failed", f"{lease.server.name}: {key_refusal(lease.server, status)}")
        return Attempt(lease, Verdict.KEY_REFUSED, Response(failure=failure), began)
    if is_retryable(status):
        return failed(
            lease,
            f"HTTP {status}: {message}",
            began,
            wait_s=_wait(answer.headers),
            is_away=status in GATEWAY,
        )
    if request.top_logprobs and "logprob" in message.lower():
        failure = Failure(NO_LOGPROBS, f"HTTP {status}: {message}")
        return Attempt(lease, Verdict.REFUSED, Response(failure=failure), began)
    failure = Failure(failure_kind(message), f"HTTP {status}: {message}")
    is_agreeable = status in _ABOUT_THE_REQUEST
    return Attempt(lease, Verdict.REFUSED, Response(failure=failure), began, is_agreeable=is_agreeable)


def failed(lease: Lease, reason: str, began: float, *, wait_s: float | None = None, is_away: bool = False) -> Attempt:
    """Return an attempt that failed for the moment; `is_away`: the server was not reached."""
    failure = Failure("endpoint_failed", f"{lease.server.name}: {reason}")
    return Attempt(lease, Verdict.FAILED, Response(failure=failure), began, wait_s=wait_s, is_away=is_away)


def _is_about_text(message: str) -> bool:
    """Return whether a refusal is surely not about the image: about the length of the text, or log-probabilities."""
    return "logprob" in message.lower() or failure_kind(message) == "too_long"


def key_refusal(server: Server, status: int) -> str:
    """Return what a status 401 or 403 says, without the key."""
    return f"{'refuses the API key' if server.client.has_key else 'wants an API key'} (HTTP {status})"


def key_error(server: Server, refusal: str) -> EndpointError:
    """Return the error of a run whose servers all refuse the key."""
    return EndpointError(f"{server.name} {refusal}", "Set TAGLLM_API_KEY.")


def _wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of Retry-After; None where there is none that makes sense."""
    seconds = retry_after({"retry-after": headers.get("Retry-After", "")}, time.time())
    return seconds if seconds is not None and 0 <= seconds < float("inf") else None
