"""A truncated answer is asked for again with more room, at most twice, and belongs to the request as it was given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from tagllm_cli.pipeline.label.asking import ask_until_complete
from tagllm_cli.records import DecodedImage, Failure, Request, Response
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import Workspace, evidence_rows

EACH = 4
FULL = "cat, dog, cow, sheep, cup, fork, spoon, plate"


def speaking(tokens: int) -> Callable[[DecodedImage | None, Request], Response]:
    """Answer with so many tokens, as far as they fit."""

    def answer(image: DecodedImage | None, request: Request) -> Response:
        if request.max_tokens < tokens:
            return Response(FULL[: request.max_tokens], finish="length", output_tokens=request.max_tokens)
        return Response(FULL, output_tokens=tokens)

    return answer


def ask(engine: RuleEngine, *requests: Request) -> list[tuple[Request, Response]]:
    async def body() -> list[tuple[Request, Response]]:
        async with aclosing(ask_until_complete(engine, None, requests)) as answered:
            return [pair async for pair in answered]

    return asyncio.run(body())


SHORT, LONG = (Request("", text, with_image=False, max_tokens=tokens) for text, tokens in (("a", 10), ("b", 40)))


@pytest.mark.parametrize(("tokens", "asked"), [(10, 1), (20, 2), (40, 3)])
def test_a_truncated_answer_is_asked_again_with_twice_and_four_times_the_room(tokens: int, asked: int) -> None:
    engine = RuleEngine(answer=speaking(tokens))
    ((request, response),) = ask(engine, SHORT)
    assert (request, response.text, response.failure, len(engine.asked)) == (SHORT, FULL, None, asked)


def test_what_is_truncated_three_times_is_a_failed_request() -> None:
    engine = RuleEngine(answer=speaking(41))
    ((request, response),) = ask(engine, SHORT)
    assert (request, len(engine.asked)) == (SHORT, 3)
    assert str(response.failure) == "truncated: the answer was cut off after 40 tokens"


def test_only_the_truncated_ones_are_asked_again_and_the_others_do_not_wait() -> None:
    engine = RuleEngine(answer=speaking(30))
    answered = ask(engine, SHORT, LONG)
    assert [request for request, _ in answered] == [LONG, SHORT]
    assert [text for _, text in engine.asked] == ["a", "b", "a", "a"]


@pytest.mark.parametrize(("kind", "expected"), [("too_long", "truncated"), ("endpoint_failed", "endpoint_failed")])
def test_room_that_the_model_does_not_have_is_a_truncated_answer_and_a_passing_failure_is_not(
    kind: str, expected: str
) -> None:
    def fault(image: DecodedImage | None, request: Request) -> Failure | None:
        return Failure(kind, "no") if request.max_tokens > 10 else None

    ((_, response),) = ask(RuleEngine(answer=speaking(30), fault=fault), SHORT)
    assert response.failure is not None
    assert response.failure.kind == expected


def test_a_yes_no_answer_of_one_token_is_complete() -> None:
    engine = RuleEngine(answer=lambda image, request: Response("yes", finish="length", first_logprobs={"yes": -0.1}))
    ((_, response),) = ask(engine, Request("", "cat?", with_image=False, max_tokens=1, top_logprobs=20))
    assert (response.failure, len(engine.asked)) == (None, 1)


def test_a_longer_answer_is_recorded_under_the_request_as_it_was_given(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, 3)
    workspace.engine.answer = lambda image, request: Response(
        "cat", finish="length" if request.max_tokens < 300 else "stop"
    )
    summary = workspace.candidates()
    assert (summary.stats.asked, summary.rows.ok, len(workspace.engine.asked)) == (3 * EACH, 3, 2 * 3 * EACH)
    assert evidence_rows(workspace.out.with_suffix(".evidence"), "SELECT DISTINCT finish FROM response") == [("stop",)]
    workspace.engine = RuleEngine()
    assert (workspace.candidates().stats.asked, workspace.engine.started) == (0, 0)


def test_what_stays_truncated_is_asked_again_by_the_next_run(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, 3)
    workspace.engine.answer = lambda image, request: Response("cat, do", finish="length")
    summary = workspace.candidates(max_failed_rate=1.0)
    assert (summary.stats.failed_requests, summary.rows.failed) == (3 * EACH, 3)
    assert "truncated: the answer was cut off after " in str(workspace.rows()["000.png"].error)
    workspace.engine = RuleEngine()
    summary = workspace.candidates()
    assert (summary.stats.asked, summary.rows.ok, summary.error) == (3 * EACH, 3, None)
