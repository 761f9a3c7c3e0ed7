"""The endpoint engine against a server on loopback that fails by script."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import PIL.Image
import pytest

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.http.engine import EndpointEngine, EndpointSettings
from tagllm_cli.errors import EndpointError
from tagllm_cli.records import Request, Response
from tests.support.asking import CAT, LIST, ask, echo, picture, run, settings
from tests.support.faulty_proxy import (
    Fault,
    FaultyProxy,
    complete,
    completion,
    cut_off,
    error_in_200,
    half_json,
    redirect,
    refuse,
    reset,
    slow,
)

KEY = "sk-very-secret"


def first(fault: Fault, times: int = 1) -> Callable[[int, str], Fault | None]:
    """Let the first `times` questions fail."""
    return lambda number, path: fault if 1 <= number <= times else None


def test_replies_come_in_the_order_of_the_requests_with_tokens_and_logprobs():
    with FaultyProxy(lambda number, path: slow(0.05) if number == 1 else None, answer=echo) as server:

        async def work(engine: EndpointEngine) -> tuple[list[Response], Any, str]:
            return await ask_all(engine, picture(), [LIST, CAT]), engine.usage(), engine.model

        responses, usage, model = run(settings(server), work)
    assert [response.text for response in responses] == ["echo Which of: cat, dog?", "echo Is a cat visible?"]
    assert responses[0].first_logprobs == {}
    assert responses[1].first_logprobs == {"yes": -0.1, "no": -2.5}
    assert (responses[0].prompt_tokens, responses[0].cached_tokens, responses[0].output_tokens) == (100, 64, 3)
    assert (usage.prompt_tokens, usage.cached_tokens, usage.output_tokens, usage.requests) == (
        200,
        128,
        6,
        2,
    )
    assert model == "demo"


def test_a_question_is_system_then_image_then_text_and_greedy():
    with FaultyProxy(answer=echo) as server:
        ask(settings(server), [CAT])
    question = server.questions[0].json
    system, user = question["messages"]
    assert system == {"role": "system", "content": "You label images."}
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert (question["temperature"], question["max_tokens"], question["top_logprobs"]) == (0.0, 1, 20)
    assert question["repetition_penalty"] == 1.0
    assert "seed" not in question


def test_the_files_own_bytes_travel_and_pixels_become_a_png():
    buffer = io.BytesIO()
    picture(7).pixels.save(buffer, "JPEG")
    with FaultyProxy() as server:
        run(settings(server), lambda engine: ask_all(engine, picture(7, buffer.getvalue()), [LIST]))
        ask(settings(server), shade=9)
    urls = [info.json["messages"][-1]["content"][0]["image_url"]["url"] for info in server.questions]
    assert urls[0] == "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    head, _, data = urls[1].partition(",")
    assert head == "data:image/png;base64"
    assert PIL.Image.open(io.BytesIO(base64.b64decode(data))).tobytes() == picture(9).pixels.tobytes()


def test_a_question_without_an_image_and_without_a_system_text_is_one_message():
    with FaultyProxy(answer=echo) as server:
        responses = run(
            settings(server), lambda engine: ask_all(engine, None, [Request("", "What is a cat?", with_image=False)])
        )
    assert responses[0].text == "echo What is a cat?"
    assert server.questions[0].json["messages"] == [{"role": "user", "content": "What is a cat?"}]


def test_a_question_about_an_image_needs_one():
    with FaultyProxy() as server, pytest.raises(ValueError, match="without one"):
        run(settings(server), lambda engine: ask_all(engine, None, [LIST]))


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
        one, other = run(settings(server), lambda engine: _one_by_one(engine, [CAT, LIST]))
    assert one.failure is not None
    assert (one.failure.kind, other.text) == (kind, "echo Which of: cat, dog?")
    assert len(server.questions) == 2


async def _one_by_one(engine: EndpointEngine, requests: list[Request]) -> list[Response]:
    return [(await ask_all(engine, picture(), [request]))[0] for request in requests]


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
        one, other = run(settings(server), lambda engine: _one_by_one(engine, [LIST, LIST]))
    assert one.failure is not None
    assert (one.failure.kind, says in one.failure.message) == (kind, True)
    assert other.failure is None


def test_an_error_in_200_that_lasts_shows_the_servers_message():
    with FaultyProxy(first(error_in_200("Overloaded."), times=99)) as server:
        failure = ask(settings(server, retries=2))[0].failure
    assert failure is not None
    assert (failure.kind, "Overloaded." in failure.message) == ("endpoint_failed", True)
    assert len(server.questions) == 3


def test_content_in_parts_is_read():
    with FaultyProxy(first(complete([{"type": "text", "text": "cat"}]))) as server:
        assert ask(settings(server))[0].text == "cat"


def test_the_api_moves_with_a_redirect_of_its_list_of_models():
    with FaultyProxy() as target:
        moved = lambda number, path: redirect(target.url + path)  # noqa: E731
        with FaultyProxy(moved) as server:
            responses = ask(settings(server, api_key=None))
    assert responses[0].text == "cat"
    assert [each.method for each in server.received] == ["GET"]
    assert len(target.questions) == 1


def test_a_redirect_to_another_host_is_refused_with_the_address():
    with FaultyProxy() as target:
        elsewhere = target.url.replace("127.0.0.1", "localhost")
        with (
            FaultyProxy(lambda number, path: redirect(elsewhere + path)) as server,
            pytest.raises(EndpointError, match=f"redirects to {elsewhere}/v1/models"),
        ):
            ask(settings(server))
    assert target.questions == []


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirected_question_is_refused_in_words(status: int):
    fault = lambda number, path: redirect("/other", status) if number else None  # noqa: E731
    with FaultyProxy(fault) as server, pytest.raises(EndpointError, match="redirects requests to") as caught:
        ask(settings(server))
    assert "--endpoint" in caught.value.hint


def test_a_redirect_that_keeps_the_method_is_followed():
    fault = lambda number, path: redirect("/v1/chat/completions", 307) if number == 1 else None  # noqa: E731
    with FaultyProxy(fault) as server:
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


def test_each_server_is_asked_in_its_own_way():
    with FaultyProxy(answer=picky, owned_by="somebody") as one, FaultyProxy(answer=echo) as other:
        responses = run(
            settings(one, other), lambda engine: _one_by_one(engine, [replace(CAT, text=f"{n}?") for n in range(8)])
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
