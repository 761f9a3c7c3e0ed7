"""Answers that are none: without log-probabilities, filtered, empty; and in parts."""

from __future__ import annotations

import pytest

from tagllm_cli.errors import EndpointError
from tests.support.asking import CAT, LIST, ask, echo, one_by_one, run, settings
from tests.support.faulty_proxy import (
    Fault,
    FaultyProxy,
    complete,
    error_in_200,
    first,
    refuse,
)

NO_LOGPROBS = refuse(400, "logprobs are not available on this server")


def test_a_server_that_refuses_logprobs_ends_the_run_with_advice():
    with (
        FaultyProxy(lambda number, path: NO_LOGPROBS if number else None) as server,
        pytest.raises(EndpointError, match="gives no log-probabilities: HTTP 400: logprobs are not") as caught,
    ):
        ask(settings(server), [CAT])
    assert "--max-logprobs" in caught.value.hint


def test_a_server_that_has_given_logprobs_may_refuse_one_request():
    with FaultyProxy(lambda number, path: NO_LOGPROBS if number == 2 else None, answer=echo) as server:
        responses = ask(settings(server, concurrency=1), [CAT] * 2 + [LIST])
    assert {response.failure and response.failure.kind for response in responses} <= {None, "no_logprobs"}
    assert len(server.questions) == 3


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (complete("yes"), "no_logprobs"),
        (complete(None, finish="content_filter"), "filtered"),
        (complete("yes", finish="tool_calls"), "tool_call"),
    ],
)
def test_one_answer_without_logprobs_does_not_end_the_run(fault: Fault, kind: str):
    with FaultyProxy(first(fault), answer=echo) as server:
        one, other = run(settings(server), lambda engine: one_by_one(engine, [CAT, LIST]))
    assert one.failure is not None
    assert (one.failure.kind, other.text) == (kind, "echo Which of: cat, dog?")
    assert len(server.questions) == 2


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (complete(None), "empty_answer", "empty"),
        (complete(None, finish="content_filter"), "filtered", "filter"),
        (complete(None, reasoning="Well."), "reasoning_only", "thinking"),
        (error_in_200("This key may not send images.", 403), "rejected", "This key may not send images."),
    ],
)
def test_a_response_without_an_answer_is_a_failed_request(fault: Fault, kind: str, says: str):
    with FaultyProxy(first(fault), answer=echo) as server:
        one, other = run(settings(server), lambda engine: one_by_one(engine, [LIST, LIST]))
    assert one.failure is not None
    assert (one.failure.kind, says in one.failure.message) == (kind, True)
    assert other.failure is None


def test_content_in_parts_is_read():
    with FaultyProxy(first(complete([{"type": "text", "text": "cat"}]))) as server:
        assert ask(settings(server))[0].text == "cat"
