"""Transient failures are retried, refusals are one request's failure, and nothing is lost or mixed up."""

from __future__ import annotations

import asyncio
from email.utils import formatdate

import pytest

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.http.engine import EndpointEngine, EndpointSettings
from tagllm_cli.records import Request, Response
from tests.support.asking import CAT, LIST, ask, echo, picture, run, settings
from tests.support.faulty_proxy import (
    Fault,
    FaultyProxy,
    cut_off,
    error_in_200,
    first,
    half_json,
    refuse,
    reset,
    slow,
)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(refuse(429), id="429"),
        pytest.param(refuse(429, retry_after="0"), id="429-retry-after"),
        pytest.param(refuse(408), id="408"),
        pytest.param(refuse(500), id="500"),
        pytest.param(refuse(503, retry_after=formatdate(usegmt=True)), id="503-date"),
        pytest.param(Fault(502, (), b"<html>Bad Gateway</html>"), id="502-html"),
        pytest.param(half_json(), id="half-json"),
        pytest.param(error_in_200("later"), id="error-in-200"),
        pytest.param(error_in_200("later", 503), id="503-in-200"),
        pytest.param(cut_off(), id="cut-off"),
        pytest.param(reset(), id="reset"),
        pytest.param(slow(2.0), id="slow"),
    ],
)
def test_a_transient_failure_is_retried(fault: Fault):
    with FaultyProxy(first(fault)) as server:
        responses = ask(settings(server, timeout_s=0.3))
    assert (responses[0].text, responses[0].failure) == ("cat", None)
    assert len(server.questions) == 2


def test_retry_after_is_obeyed_by_all_requests_of_that_server():
    with FaultyProxy(first(refuse(429, retry_after="0.3"))) as server:

        async def work(engine: EndpointEngine) -> None:
            await ask_all(engine, picture(1), [LIST])
            await ask_all(engine, picture(2), [LIST])

        run(settings(server), work)
    times = [info.time for info in server.questions]
    assert len(times) == 3
    assert times[1] - times[0] >= 0.3


def test_retry_after_is_not_obeyed_beyond_reason():
    with FaultyProxy(first(refuse(503, retry_after="3600"))) as server:
        responses = ask(settings(server, max_wait_s=0.1))
    assert responses[0].failure is None
    assert server.questions[1].time - server.questions[0].time >= 0.1


def test_pauses_double_up_to_the_longest():
    engine = EndpointEngine(EndpointSettings(("x",), backoff_s=0.5), jitter=lambda: 1.0)
    assert [engine._asker.pause(failed) for failed in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0]


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "cannot identify image file", "rejected"),
        (400, "This model's maximum context length is 8192 tokens. However, you requested 9000.", "too_long"),
        (413, "Payload Too Large", "rejected"),
        (404, "The model `demo` does not exist.", "rejected"),
        (422, "Unprocessable", "rejected"),
    ],
)
def test_a_refusal_is_one_requests_failure_at_once(status: int, message: str, kind: str):
    with FaultyProxy(first(refuse(status, message)), answer=echo) as server:
        responses = ask(settings(server, concurrency=1), [LIST, CAT])
    assert responses[0].failure is not None
    assert (responses[0].failure.kind, message in responses[0].failure.message) == (kind, True)
    assert responses[1].text == "echo Is a cat visible?"
    assert len(server.questions) == 2


def test_a_failure_that_lasts_fails_its_request_only():
    def only_lists(number: int, path: str) -> Fault | None:
        return refuse(500, "CUDA error") if number and "Which" in str(server.questions[-1].body) else None

    with FaultyProxy(only_lists, answer=echo) as server:
        responses = ask(settings(server, retries=3, concurrency=1), [LIST, CAT])
    assert responses[0].failure is not None
    assert responses[0].failure.kind == "endpoint_failed"
    assert "HTTP 500: CUDA error" in responses[0].failure.message
    assert responses[1].text == "echo Is a cat visible?"
    assert len(server.questions) == 4 + 1


def test_an_error_in_200_that_lasts_shows_the_servers_message():
    with FaultyProxy(first(error_in_200("Overloaded."), times=99)) as server:
        failure = ask(settings(server, retries=2))[0].failure
    assert failure is not None
    assert (failure.kind, "Overloaded." in failure.message) == ("endpoint_failed", True)
    assert len(server.questions) == 3


def test_every_request_that_a_server_does_not_know_the_model_for_fails_at_once():
    missing = refuse(404, "The model `demo` does not exist.")
    with FaultyProxy(lambda number, path: missing if number else None) as server:
        responses = ask(settings(server), [LIST] * 20)
    assert {response.failure and response.failure.kind for response in responses} == {"rejected"}
    assert len(server.questions) == 20


def test_many_faults_lose_nothing_and_mix_nothing_up():
    faults = [None, refuse(429, retry_after="0"), refuse(500), half_json(), reset(), cut_off(), None]
    with FaultyProxy(lambda number, path: faults[number % len(faults)] if number else None, answer=echo) as server:

        async def work(engine: EndpointEngine) -> list[list[Response]]:
            return await asyncio.gather(
                *(ask_all(engine, picture(i), [Request("", f"{i} {k}") for k in range(4)]) for i in range(20))
            )

        answers = run(settings(server, retries=30, concurrency=8, max_wait_s=0.01), work)
    assert [[response.text for response in responses] for responses in answers] == [
        [f"echo {i} {k}" for k in range(4)] for i in range(20)
    ]
