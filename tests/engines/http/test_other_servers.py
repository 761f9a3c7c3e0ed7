"""Servers with ways of their own: parameters that they do not take, and Azure's deployments."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.http.engine import EndpointEngine
from tagllm_cli.errors import EndpointError
from tagllm_cli.records import Response
from tests.support.asking import CAT, LIST, ask, echo, one_by_one, picture, run, settings
from tests.support.faulty_proxy import (
    Fault,
    FaultyProxy,
    completion,
    redirect,
    refuse,
)

KEY = "sk-very-secret"


def picky(question: Any) -> dict[str, Any] | Fault:
    """Refuse what OpenAI's newest models, an old limit on log-probabilities, and a template without a system refuse."""
    if "max_tokens" in question:
        return refuse(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    if question.get("top_logprobs", 0) > 5:
        return refuse(400, "Invalid value for 'top_logprobs': must be less than or equal to 5.")
    if question["messages"][0]["role"] == "system":
        return refuse(500, "System role not supported")
    if "temperature" in question:
        return refuse(400, "Unsupported value: 'temperature' does not support 0.0 with this model.")
    return echo(question)


def test_what_a_server_does_not_take_is_learned_once_from_what_it_refuses():
    with FaultyProxy(answer=picky, owned_by="somebody") as server:

        async def work(engine: EndpointEngine) -> list[Response]:
            return [(await ask_all(engine, picture(shade), [CAT]))[0] for shade in range(5)]

        responses = run(settings(server), work)
    assert {response.failure for response in responses} == {None}
    assert [response.text for response in responses] == [f"echo {CAT.system}\n\n{CAT.text}"] * 5
    assert len(server.questions) == 4 + 5


def test_many_requests_at_once_learn_together():
    with FaultyProxy(answer=picky, owned_by="somebody") as server:
        responses = ask(settings(server, concurrency=4), [replace(CAT, text=f"{number}?") for number in range(40)])
        again = len(server.questions)
    assert {response.failure for response in responses} == {None}
    assert again <= 40 + 4 * 4


def test_a_gateway_in_front_of_vllm_may_refuse_what_only_vllm_knows():
    def strict(question: Any) -> dict[str, Any] | Fault:
        parts = question["messages"][-1]["content"]
        unknown = [name for name in ("repetition_penalty", "chat_template_kwargs") if name in question]
        unknown += ["uuid"] if any("uuid" in part for part in parts) else []
        problems = [{"loc": ["body", name], "msg": "Extra inputs are not permitted"} for name in unknown]
        return Fault(422, (), json.dumps({"detail": problems}).encode()) if problems else echo(question)

    with FaultyProxy(answer=strict) as server:
        responses = run(settings(server), lambda engine: one_by_one(engine, [LIST, CAT, LIST]))
    assert {response.failure for response in responses} == {None}
    assert len(server.questions) == 1 + 3


def test_each_server_is_asked_in_its_own_way():
    with FaultyProxy(answer=picky, owned_by="somebody") as one, FaultyProxy(answer=echo) as other:
        responses = run(
            settings(one, other), lambda engine: one_by_one(engine, [replace(CAT, text=f"{n}?") for n in range(8)])
        )
    assert {response.failure for response in responses} == {None}
    assert {question.json.get("max_tokens") for question in other.questions} == {1}
    assert {question.json.get("system", None) for question in other.questions} == {None}


def test_a_server_that_gives_no_log_probabilities_is_not_asked_for_fewer():
    refusal = refuse(400, "logprobs is not supported with this model")
    with (
        FaultyProxy(lambda number, path: refusal if number else None, owned_by="somebody") as server,
        pytest.raises(EndpointError, match="gives no log-probabilities"),
    ):
        ask(settings(server), [CAT])
    assert len(server.questions) == 1


DEPLOYMENT = "/azure/openai/deployments/gpt"
VERSION = "api-version=2024-06-01"


def deployment(number: int, path: str) -> Fault | None:
    """One deployment, which lists no models and must be told the version of its API."""
    if path == f"{DEPLOYMENT}/chat/completions?{VERSION}":
        return Fault(200, (), json.dumps(completion("cat")).encode())
    return refuse(404, "Resource not found")


@pytest.mark.parametrize("model", ["gpt", None])
@pytest.mark.parametrize("form", [DEPLOYMENT, f"{DEPLOYMENT}/", f"{DEPLOYMENT}/chat/completions"])
def test_a_deployment_of_azure_is_asked_with_its_version_and_its_key(form: str, model: str | None):
    with FaultyProxy(deployment) as server:
        chosen = settings(f"{server.url}{form}?{VERSION}", model=model, api_key=KEY)
        responses = ask(chosen)
        name = run(chosen, lambda engine: asyncio.sleep(0, engine.model))
    assert (responses[0].text, name) == ("cat", "gpt")
    assert {each.headers["api-key"] for each in server.received} == {KEY}


def test_a_key_in_its_own_header_goes_to_no_other_host():
    with FaultyProxy(deployment) as target:
        elsewhere = target.url.replace("127.0.0.1", "localhost")
        moved = lambda number, path: redirect(elsewhere + path, 307)  # noqa: E731
        with FaultyProxy(moved) as server:
            ask(settings(f"{server.url}{DEPLOYMENT}?{VERSION}", model="gpt", api_key=KEY))
    assert target.questions
    assert all("api-key" not in each.headers and "authorization" not in each.headers for each in target.received)
