"""What one of several servers does not answer, others do; who does not answer is left out and tried again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.http.engine import EndpointEngine
from tagllm_cli.errors import EndpointError
from tagllm_cli.records import Request, Response
from tests.support.asking import CAT, LIST, ask, echo, picture, run, settings
from tests.support.faulty_proxy import Fault, FaultyProxy, complete, error_in_200, half_json, refuse, reset, slow

BAD = {
    "500": refuse(500, "CUDA error"),
    "503": refuse(503),
    "429": refuse(429, "slow down"),
    "429-for-hours": refuse(429, "slow down", retry_after="7200"),
    "429-for-ever": refuse(429, "slow down", retry_after="inf"),
    "404": refuse(404, "no such model"),
    "413": refuse(413, "too large"),
    "400": refuse(400, "does not take images"),
    "401": refuse(401, "no such key"),
    "403": refuse(403, "not allowed"),
    "html": Fault(200, (), b"<html>Welcome</html>"),
    "empty-body": Fault(200, (), b""),
    "no-choices": Fault(200, (), b'{"choices": []}'),
    "half": half_json(),
    "reset": reset(),
    "error-in-200": error_in_200("later"),
    "filter": complete(None, finish="content_filter"),
    "no-logprobs": complete("yes"),
    "refuses-logprobs": refuse(400, "logprobs are not available"),
}


async def many(engine: EndpointEngine, images: int = 30, requests: Sequence[Request] = (CAT,) * 4) -> list[Response]:
    """The responses about so many images, 10 at a time."""
    responses: list[Response] = []
    for first in range(0, images, 10):
        asked = (ask_all(engine, picture(shade), requests) for shade in range(first, first + 10))
        responses += [response for answered in await asyncio.gather(*asked) for response in answered]
    return responses


def failures(responses: Sequence[Response]) -> set[str]:
    return {str(response.failure) for response in responses if response.failure is not None}


@pytest.mark.parametrize("bad", BAD)
def test_one_of_three_servers_is_always_bad(bad: str):
    late = lambda number, path: slow(0.01) if number else None  # noqa: E731
    with (
        FaultyProxy(lambda number, path: BAD[bad] if number else None) as one,
        FaultyProxy(late, answer=echo) as two,
        FaultyProxy(late, answer=echo) as three,
    ):
        responses = run(settings(one, two, three, concurrency=16, hedge_s=5.0), many)
    assert failures(responses) == set()
    assert [response.text for response in responses] == ["echo Is a cat visible?"] * 120
    # It is left out soon, though it is always the least busy one, and tried again now and then.
    assert 1 <= len(one.questions) < 40
    assert len(two.questions) + len(three.questions) == 120


@pytest.mark.parametrize("bad", BAD)
def test_of_two_bad_servers_and_a_good_one_the_good_one_answers(bad: str):
    with (
        FaultyProxy(lambda number, path: BAD[bad] if number else None) as one,
        FaultyProxy(lambda number, path: reset() if number else None) as two,
        FaultyProxy(answer=echo) as three,
    ):
        responses = run(settings(one, two, three), many)
    # Where two servers say the same of a request, it is taken to be the request's own fault.
    assert failures(responses) == set()


def test_a_server_that_recovers_is_asked_again():
    bad = True
    with (
        FaultyProxy(lambda number, path: refuse(500) if number and bad else None, answer=echo) as one,
        FaultyProxy(answer=echo) as two,
    ):

        async def work(engine: EndpointEngine) -> None:
            nonlocal bad
            server = engine._pool.servers[0]
            while server.is_healthy:
                await many(engine, 10)
            trials = len(one.questions)
            bad = False
            while not server.is_healthy:
                assert failures(await many(engine, 10, [CAT])) == set()
            assert len(one.questions) == trials + 1 or server.slots.limit > 8
            await many(engine)

        run(settings(one, two), work)
    assert len(one.questions) > 20


def test_a_trial_that_fails_doubles_the_pause():
    with FaultyProxy(lambda number, path: refuse(500) if number else None) as one, FaultyProxy(answer=echo) as two:

        async def work(engine: EndpointEngine) -> list[float]:
            server = engine._pool.servers[0]
            pauses: list[float] = []
            end = time.monotonic() + 2
            while time.monotonic() < end and len(pauses) < 4:
                await many(engine, 10, [CAT])
                if not server.is_healthy and server.pause_s not in pauses:
                    pauses.append(server.pause_s)
            return pauses

        assert run(settings(one, two), work) == [0.04, 0.08, 0.16, 0.32]


def test_one_server_that_hangs_costs_a_moment():
    with (
        FaultyProxy(lambda number, path: slow(30) if number else None) as one,
        FaultyProxy(answer=echo) as two,
        FaultyProxy(answer=echo) as three,
    ):
        began = time.monotonic()
        responses = run(settings(one, two, three, timeout_s=60.0, hedge_s=0.1), lambda engine: many(engine, 60))
    assert failures(responses) == set()
    assert time.monotonic() - began < 20
    assert len(one.questions) < 60


def test_a_slow_server_is_not_asked_twice_when_it_is_alone():
    with FaultyProxy(lambda number, path: slow(0.4) if number > 30 else None, answer=echo) as server:
        responses = run(settings(server, hedge_s=0.05), many)
    assert failures(responses) == set()
    assert len(server.questions) == 120


def test_few_requests_are_asked_twice():
    """Both servers become slow: what is asked elsewhere, too, stays a small share."""
    late = lambda number, path: slow(1.0) if number > 30 else slow(0.01) if number else None  # noqa: E731
    with FaultyProxy(late, answer=echo) as one, FaultyProxy(late, answer=echo) as two:
        responses = run(settings(one, two, hedge_s=0.05), lambda engine: many(engine, 30))
    assert failures(responses) == set()
    assert 120 <= len(one.questions) + len(two.questions) <= 120 + 4 * 6


def test_a_refusal_that_two_servers_agree_on_is_the_requests_fault():
    with (
        FaultyProxy(lambda number, path: refuse(400, "image too large") if number else None) as one,
        FaultyProxy(lambda number, path: refuse(400, "image too large") if number else None) as two,
        FaultyProxy(lambda number, path: refuse(400, "image too large") if number else None) as three,
    ):
        responses = ask(settings(one, two, three), [LIST])
        assert failures(responses) == {"rejected: HTTP 400: image too large"}
    assert sum(len(server.questions) for server in (one, two, three)) == 2


def test_servers_that_all_refuse_the_key_end_the_run():
    def fault(number: int, path: str) -> Fault | None:
        return refuse(401, "expired") if number else None

    with FaultyProxy(fault) as one, FaultyProxy(fault) as two, pytest.raises(EndpointError, match="wants an API key"):
        ask(settings(one, two), [LIST])


def test_one_server_that_refuses_the_key_at_the_start_is_left_out_and_told():
    with FaultyProxy(lambda number, path: refuse(401)) as one, FaultyProxy(answer=echo) as two:

        async def work(engine: EndpointEngine) -> tuple[list[Response], str | None]:
            return await many(engine, 10), engine.trouble

        responses, trouble = run(settings(one, two), work)
    assert failures(responses) == set()
    assert trouble is not None
    assert trouble.startswith(f"{one.url} left out: wants an API key (HTTP 401)")
    assert one.questions == []


def test_no_server_gives_logprobs():
    with (
        FaultyProxy(lambda number, path: complete("yes") if number else None) as one,
        FaultyProxy(lambda number, path: complete("yes") if number else None) as two,
        pytest.raises(EndpointError, match="gives no log-probabilities") as caught,
    ):
        run(settings(one, two), many)
    assert "--max-logprobs" in caught.value.hint


def test_a_server_without_logprobs_still_lists(monkeypatch: pytest.MonkeyPatch):
    without: Any = lambda question: echo({**question, "logprobs": False})  # noqa: E731
    late = lambda number, path: slow(0.01) if number else None  # noqa: E731
    with FaultyProxy(late, answer=without) as one, FaultyProxy(late, answer=echo) as two:

        async def work(engine: EndpointEngine) -> list[Response]:
            responses = await many(engine, 20, [CAT] * 2)
            asked = len(one.questions)
            responses += await many(engine, 20, [CAT] * 2)
            assert len(one.questions) == asked
            return responses + await many(engine, 20, [LIST])

        responses = run(settings(one, two), work)
    assert failures(responses) == set()
    assert len([each for each in one.questions if not each.json.get("logprobs")]) == 10
