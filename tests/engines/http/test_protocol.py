"""The chat-completions protocol: any text survives it, and a response without an answer is a failed one."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagllm_cli.engines.http.protocol import (
    BadResponseError,
    clean_api_key,
    read_error,
    read_response,
    redirected_base,
    request_body,
    without_secrets,
)
from tagllm_cli.errors import EndpointError
from tagllm_cli.records import Request
from tests.support.asking import CAT, LIST
from tests.support.faulty_proxy import completion, error_in_200


@given(st.text(), st.text(min_size=1))
def test_any_text_survives_the_wire(system: str, text: str):
    body = json.loads(request_body("m", Request(system, text), b'{"type":"image_url"}', is_vllm=False))
    assert body["messages"][-1]["content"] == [{"type": "image_url"}, {"type": "text", "text": text}]
    assert [message["content"] for message in body["messages"][:-1]] == ([system] if system else [])
    assert "repetition_penalty" not in body


def test_logprobs_of_equal_texts_are_summed():
    response = read_response(
        json.dumps(
            completion("y")
            | {
                "choices": [
                    {
                        "message": {"content": "y"},
                        "finish_reason": "length",
                        "logprobs": {
                            "content": [{"top_logprobs": [{"token": "y", "logprob": -1.0986122886681098}] * 2}]
                        },
                    }
                ]
            }
        ).encode(),
        CAT,
    )
    assert response.first_logprobs == {"y": pytest.approx(-0.4054651081081645)}
    assert response.finish == "length"


def body(content: Any, logprobs: Any = None, **choice: Any) -> bytes:
    return json.dumps(completion(content, logprobs, **choice)).encode()


@pytest.mark.parametrize(
    ("response", "kind", "says"),
    [
        (body(None), "empty_answer", "finish reason stop"),
        (body(""), "empty_answer", "is empty"),
        (body(" \n\t"), "empty_answer", "is empty"),
        (body([]), "empty_answer", "is empty"),
        (body([{"type": "thinking", "thinking": []}]), "empty_answer", "is empty"),
        (body(None, finish="length"), "empty_answer", "finish reason length"),
        (body(None, finish="content_filter"), "filtered", "content filter"),
        (body("cat, d", finish="content_filter"), "filtered", "content filter"),
        (body(None, finish="tool_calls", tool_calls=[{}]), "tool_call", "tool"),
        (body(None, finish="function_call"), "tool_call", "function"),
        (body("cat", finish="error"), "engine_error", "error"),
        (body(None, finish="abort"), "engine_error", "aborted"),
        (body(None, reasoning="Well, a cat"), "reasoning_only", "switch thinking off"),
        (body(None, reasoning_content="Well, a cat", finish="length"), "reasoning_only", "switch thinking off"),
        (body(None, refusal="I can't\nhelp."), "refused", "I can't help."),
    ],
)
def test_a_response_without_text_is_failed_and_says_why(response: bytes, kind: str, says: str):
    failure = read_response(response, LIST).failure
    assert failure is not None
    assert (failure.kind, says in failure.message) == (kind, True)


@pytest.mark.parametrize("content", [[{"type": "text", "text": "cat, "}, {"type": "text", "text": "dog"}], "cat, dog"])
def test_content_may_be_a_list_of_parts(content: Any):
    assert read_response(body(content), LIST).text == "cat, dog"


def test_reasoning_beside_an_answer_is_no_fault():
    assert read_response(body("cat", reasoning="A cat sits there."), LIST).text == "cat"


def choice(**fields: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"content": "yes"}, "finish_reason": "stop", **fields}]}).encode()


@pytest.mark.parametrize(
    "response",
    [
        choice(),
        choice(logprobs=None),
        choice(logprobs={}),
        choice(logprobs={"content": None}),
        choice(logprobs={"content": []}),
        choice(logprobs={"content": [None]}),
        choice(logprobs={"content": [{"token": "yes", "logprob": -0.1}]}),
        choice(logprobs={"content": [{"token": "yes", "logprob": -0.1, "top_logprobs": []}]}),
        choice(logprobs={"content": [{"top_logprobs": [{"token": "yes", "logprob": None}]}]}),
        choice(logprobs={"content": [{"top_logprobs": [{"token": "yes", "logprob": math.nan}]}]}),
        choice(
            logprobs={
                "content": [{"top_logprobs": [{"token": t, "logprob": v} for t, v in (("a", -1), ("a", math.nan))]}]
            }
        ),
        choice(logprobs={"tokens": ["yes"], "top_logprobs": [{"yes": -0.1}]}),
    ],
)
def test_a_yes_or_no_without_log_probabilities_is_failed(response: bytes):
    failure = read_response(response, CAT).failure
    assert failure is not None
    assert failure.kind == "no_logprobs"


@pytest.mark.parametrize("text", ["", None, " ", "anything"])
def test_a_yes_or_no_may_have_any_text(text: str | None):
    response = read_response(body(text, {"yes": -0.1}, reasoning="yes"), CAT)
    assert (response.failure, response.first_logprobs) == (None, {"yes": -0.1})


def test_a_filtered_yes_or_no_is_filtered():
    failure = read_response(body("", {"yes": -0.1}, finish="content_filter"), CAT).failure
    assert failure is not None
    assert failure.kind == "filtered"


def test_an_error_in_a_success_shows_the_servers_message():
    failure = read_response(error_in_200("This key may not send images.", 403).body, LIST).failure
    assert failure is not None
    assert (failure.kind, failure.message) == ("rejected", "error 403: This key may not send images.")
    for code in (None, 429, "502", "server_overloaded"):
        with pytest.raises(BadResponseError, match="Try again"):
            read_response(error_in_200("Try again.", code).body, LIST)
    inner = json.dumps(
        {"choices": [{"error": {"message": "Upstream\nis gone.", "code": 502}, "finish_reason": "error"}]}
    )
    with pytest.raises(BadResponseError, match="Upstream is gone"):
        read_response(inner.encode(), LIST)


@pytest.mark.parametrize(
    "response", ["", "{}", "[]", "1", '{"choices": []}', '{"choices": [{}]}', '{"choices": [null]}']
)
def test_what_is_no_completion_is_retryable(response: str):
    with pytest.raises(BadResponseError, match="not a chat completion"):
        read_response(response.encode(), LIST)


@pytest.mark.parametrize("content", [5, {"text": "cat"}, [{"type": "text"}], ["cat"]])
def test_content_of_an_unknown_form_is_retryable(content: Any):
    with pytest.raises(BadResponseError):
        read_response(body(content), LIST)


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ('{"error": {"message": "no\\nimages"}}', "no images"),
        ('{"error": "no images"}', "no images"),
        ('{"detail": "Not Found"}', "Not Found"),
        ("<html>\n<b>Bad</b></html>", "<html> <b>Bad</b></html>"),
        ("", ""),
    ],
)
def test_errors_of_every_form_are_one_line(response: str, message: str):
    assert read_error(response.encode()) == message


@pytest.mark.parametrize("key", ["sk-example\r", " sk-example\n", "sk-example\t"])
def test_white_space_around_a_key_is_stripped(key: str):
    assert clean_api_key(key) == "sk-example"


@pytest.mark.parametrize("key", ["“sk-example”", "sk-exa\nmple", "sk-\x7fexample", "sk-example…", "\ufeffsk-example"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str):
    with pytest.raises(EndpointError, match="characters that cannot be sent") as caught:
        clean_api_key(key)
    assert "example" not in caught.value.message + caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("key", [None, "", " \n"])
def test_an_empty_key_is_none(key: str | None):
    assert clean_api_key(key) is None


@pytest.mark.parametrize(
    ("base", "final", "new"),
    [
        ("http://h/v1", "https://h/v1/models", "https://h/v1"),
        ("http://h:8000/v1", "https://h/api/v1/models", "https://h/api/v1"),
        ("http://u:p@h/v1", "https://h/v1/models", "https://u:p@h/v1"),
        ("http://h/v1", "http://h:9000/v1/models?x=1", "http://h:9000/v1"),
        ("https://h/v1", "http://h/v1/models", None),
        ("http://h/v1", "http://other/v1/models", None),
        ("http://h/v1", "https://h/login", None),
    ],
)
def test_a_redirect_moves_the_api_but_not_to_another_host(base: str, final: str, new: str | None):
    assert redirected_base(base, final) == new


def test_messages_show_no_secret_of_an_address():
    assert without_secrets("http://me:s3cret@h:1/v1?key=s3cret") == "http://h:1/v1"
