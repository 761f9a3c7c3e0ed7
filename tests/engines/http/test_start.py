"""The start: addresses, keys, models and versions of servers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tagllm_cli.engines.http.engine import EndpointEngine
from tagllm_cli.errors import EndpointError
from tests.support.asking import ask, run, settings
from tests.support.faulty_proxy import (
    Fault,
    FaultyProxy,
    completion,
    half_json,
    refuse,
    reset,
    slow,
)

KEY = "sk-very-secret"


@pytest.mark.parametrize(("key", "words"), [(KEY, "refuses the API key"), (None, "wants an API key")])
def test_a_refused_key_ends_the_run_without_naming_it(key: str | None, words: str):
    with (
        FaultyProxy(lambda number, path: refuse(401, f"Incorrect API key: {KEY}")) as server,
        pytest.raises(EndpointError, match=words) as caught,
    ):
        ask(settings(server, api_key=key))
    assert KEY not in caught.value.message + caught.value.hint


def test_the_key_is_sent_and_never_shown():
    def fault(number: int, path: str) -> Fault | None:
        return refuse(400, f"bad request by {KEY}") if number else None

    with FaultyProxy(fault) as server:
        chosen = settings(server, api_key=KEY)
        responses = ask(chosen)
    assert {info.headers["authorization"] for info in server.received} == {f"Bearer {KEY}"}
    assert KEY not in repr(chosen)
    assert KEY not in repr(responses)


@pytest.mark.parametrize("form", ["{}", "{}/", "{}/v1", "{}/v1/", "{}/v1/chat/completions", "{}/v1/models"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_every_form_of_the_address_will_do(form: str, scheme: str):
    with FaultyProxy() as server:
        responses = ask(settings(form.format(server.url.replace("http://", scheme))))
    assert responses[0].text == "cat"


def test_an_api_at_the_root_is_found():
    def fault(number: int, path: str) -> Fault | None:
        listed = b'{"data": [{"id": "root-model"}]}'
        if path == "/models":
            return Fault(200, (), listed)
        return Fault(200, (), json.dumps(completion("cat")).encode()) if path == "/chat/completions" else None

    with FaultyProxy(lambda number, path: refuse(404) if path.startswith("/v1") else fault(number, path)) as server:
        assert ask(settings(server))[0].text == "cat"


def test_of_several_models_one_must_be_named():
    with FaultyProxy(models=("a", "b")) as server:
        with pytest.raises(EndpointError, match="2 models: a, b") as caught:
            ask(settings(server))
        assert "--model" in caught.value.hint
        ask(settings(server, model="b"))
        with pytest.raises(EndpointError, match="does not serve c"):
            ask(settings(server, model="c"))
    assert server.questions[0].json["model"] == "b"


def test_an_address_that_serves_something_else_is_told():
    with (
        FaultyProxy(lambda number, path: Fault(200, (), b"<html>Welcome</html>")) as server,
        pytest.raises(EndpointError, match="not an OpenAI-compatible API"),
    ):
        ask(settings(server))


def test_no_server_at_all_is_told_with_the_address_but_not_the_password():
    with FaultyProxy() as server:
        port = server.port
    says = f"no endpoint answers: http://127.0.0.1:{port}: no connection: connection refused"
    with pytest.raises(EndpointError, match=says) as caught:
        ask(settings(f"http://me:pass@127.0.0.1:{port}"))
    assert "pass" not in caught.value.message


def test_a_transient_failure_at_the_start_is_retried():
    answers = iter([refuse(500), reset(), half_json()])
    with FaultyProxy(lambda number, path: next(answers, None) if path == "/v1/models" else None) as server:
        assert ask(settings(server))[0].text == "cat"


def test_a_vllm_server_tells_its_version_and_gets_more_requests_than_another_one():
    def facts(engine: EndpointEngine) -> Any:
        return asyncio.sleep(0, (engine.version, engine.capacity))

    with FaultyProxy() as vllm, FaultyProxy(owned_by="somebody") as other:
        assert run(settings(vllm), facts) == ("vllm 0.32.0", 3 * 256)
        assert run(settings(other), facts) == ("endpoint", 2 * 32)
        assert run(settings(vllm, other), facts) == ("vllm 0.32.0", 3 * 256 + 2 * 32)
        assert run(settings(vllm, other, concurrency=8), facts) == ("vllm 0.32.0", 3 * 8 + 2 * 8)
        other.down()
        assert run(settings(vllm, other), facts) == ("vllm 0.32.0", 2 * 3 * 256)


@pytest.mark.parametrize("fault", [refuse(404), refuse(500), refuse(401), Fault(200, (), b"<html>"), reset()])
def test_a_server_that_does_not_tell_its_version_is_an_endpoint(fault: Fault):
    with FaultyProxy(lambda number, path: fault if path == "/version" else None) as server:
        assert run(settings(server), lambda engine: asyncio.sleep(0, engine.version)) == "endpoint"


def test_a_key_with_a_line_end_works_and_a_key_in_curly_quotes_is_refused_at_once():
    with FaultyProxy() as server:
        ask(settings(server, api_key=f"{KEY}\r\n"))
        with pytest.raises(EndpointError, match="characters that cannot be sent"):
            ask(settings(server, api_key=f"“{KEY}”"))
    assert {each.headers["authorization"] for each in server.received} == {f"Bearer {KEY}"}


def test_a_server_that_never_answers_is_told_after_a_while(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tagllm_cli.engines.http.search._START_S", 0.3)
    with FaultyProxy(lambda number, path: slow(30)) as server, pytest.raises(EndpointError, match=r"within 0\.2 s"):
        ask(settings(server, timeout_s=0.2))
    assert len(server.received) == 2


def test_a_server_that_refuses_the_key_or_is_gone_at_the_start_joins_when_it_is_right():
    refuses = True
    with FaultyProxy(lambda number, path: refuse(401) if refuses else None) as one, FaultyProxy() as two:

        async def work(engine: EndpointEngine) -> str | None:
            nonlocal refuses
            refuses = False
            while not engine._pool.servers[0].is_healthy:
                await asyncio.sleep(0.01)
            return engine.trouble

        assert run(settings(one, two), work) is None
