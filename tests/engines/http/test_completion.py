"""Chat completions of every form: what can be read is read, and what holds no answer is a failure that says why."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagllm_cli.engines.http.bodies import BadResponseError
from tagllm_cli.engines.http.completion import read_response
from tagllm_cli.records import Request
from tests.support.asking import CAT, LIST
from tests.support.faulty_proxy import completion, error_in_200


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
        (body(None, thinking="Well, a cat"), "reasoning_only", "switch thinking off"),
        (body("", reasoning_details=[{"text": "Well"}]), "reasoning_only", "switch thinking off"),
        (body(None, refusal="I can't\nhelp."), "refused", "I can't help."),
        (body(None, tool_calls=[{}]), "tool_call", "tool"),
        (body(None, function_call={"name": "look"}), "tool_call", "tool"),
        (body("cat", finish="SAFETY"), "filtered", "content filter"),
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


def test_a_page_instead_of_an_answer_is_shown_by_its_first_words():
    with pytest.raises(BadResponseError, match=r": <html> Welcome to the gateway ") as raised:
        read_response(b"<html>\n Welcome to the gateway " + b"x" * 1000, LIST)
    assert len(str(raised.value)) < 150


@pytest.mark.parametrize("content", [5, {"text": "cat"}, [{"type": "text"}], ["cat"]])
def test_content_of_an_unknown_form_is_retryable(content: Any):
    with pytest.raises(BadResponseError):
        read_response(body(content), LIST)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, (0, 0, 0)),
        ({}, (0, 0, 0)),
        ([], (0, 0, 0)),
        ("12", (0, 0, 0)),
        ({"prompt_tokens": 7, "completion_tokens": 3}, (7, 0, 3)),
        ({"prompt_tokens": 7.0, "completion_tokens": None, "prompt_tokens_details": None}, (7, 0, 0)),
        ({"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}}, (7, 4, 0)),
        ({"prompt_tokens": math.nan, "completion_tokens": math.inf}, (0, 0, 0)),
        ({"prompt_tokens": -1, "completion_tokens": "many", "prompt_tokens_details": [1]}, (0, 0, 0)),
    ],
)
def test_an_answer_with_odd_counts_is_an_answer(usage: Any, counts: tuple[int, int, int]):
    response = read_response(json.dumps(completion("cat") | {"usage": usage}).encode(), LIST)
    assert (response.text, response.failure) == ("cat", None)
    assert (response.prompt_tokens, response.cached_tokens, response.output_tokens) == counts


@pytest.mark.parametrize(
    ("reason", "tokens", "finish"),
    [
        ("stop", 3, "stop"),
        ("eos_token", 3, "stop"),
        ("EOS", 3, "stop"),
        ("end_turn", 3, "stop"),
        (None, 3, "stop"),
        ("", None, "stop"),
        (None, 64, "length"),
        ("length", 3, "length"),
        ("MAX_TOKENS", 3, "length"),
        ("model_length", 3, "length"),
        ("something_new", 3, "something_new"),
    ],
)
def test_finish_reasons_of_other_servers_mean_the_same(reason: Any, tokens: int | None, finish: str):
    response = completion("cat", finish=reason) | {"usage": {"completion_tokens": tokens}}
    assert read_response(json.dumps(response).encode(), LIST).finish == finish


def test_of_several_choices_the_one_with_content_counts():
    tool = {"message": {"content": None, "tool_calls": [{}]}, "finish_reason": "tool_calls"}
    both = [tool, *completion("cat")["choices"], *completion("dog")["choices"]]
    assert read_response(json.dumps({"choices": both}).encode(), LIST).text == "cat"
    assert str(read_response(json.dumps({"choices": [tool, tool]}).encode(), LIST).failure).startswith("tool_call")


@pytest.mark.parametrize(
    "error",
    [
        {"error": "Model is loading."},
        {"detail": "Model is loading."},
        {"message": "Model is loading."},
        {"choices": [], "message": "Model is loading."},
        {"detail": [{"loc": [], "msg": "Model is loading."}]},
        {"object": "error", "message": "Model is loading.", "code": 50301},
        {"error": {"message": "Model is loading.", "code": 0}},
    ],
)
def test_an_error_of_any_form_under_200_is_retryable_and_told(error: dict[str, Any]):
    with pytest.raises(BadResponseError, match="Model is loading"):
        read_response(json.dumps(error).encode(), LIST)


@pytest.mark.parametrize(
    "error",
    [
        {"object": "error", "message": "No images.", "code": 400},
        {"error": {"message": "No images.", "status": 422}},
        {"message": "No images.", "status": "403"},
    ],
)
def test_an_error_under_200_with_the_code_of_a_refusal_is_one(error: dict[str, Any]):
    failure = read_response(json.dumps(error).encode(), LIST).failure
    assert failure is not None
    assert (failure.kind, "No images." in failure.message) == ("rejected", True)


def events(*data: dict[str, Any] | str) -> bytes:
    lines = (each if isinstance(each, str) else json.dumps(each) for each in data)
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def delta(content: str | None = None, finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish, "logprobs": logprobs}]}


USAGE: dict[str, Any] = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}


@pytest.mark.parametrize(
    "stream",
    [
        events(delta(""), delta("cat"), delta(", dog"), delta(None, "stop"), USAGE, "[DONE]"),
        b": keep-alive\n\n" + events(delta("cat, dog"), delta(None, "stop"), USAGE),
        b"event: message\n" + events(completion("cat, dog"), "[DONE]"),
        codecs.BOM_UTF8 + events(delta("cat, dog", "stop")).replace(b"\n", b"\r\n"),
    ],
)
def test_a_stream_that_nobody_asked_for_is_put_together(stream: bytes):
    response = read_response(stream, LIST)
    assert (response.text, response.finish, response.failure) == ("cat, dog", "stop", None)


def test_a_stream_has_log_probabilities_and_counts():
    top = [{"token": "yes", "logprob": -0.1}, {"token": "no", "logprob": -2.5}]
    told = {"content": [{"token": "yes", "top_logprobs": top}]}
    response = read_response(events(delta(""), delta("yes", None, told), delta(None, "length"), USAGE), CAT)
    assert (response.first_logprobs, response.prompt_tokens, response.output_tokens) == (
        {"yes": -0.1, "no": -2.5},
        9,
        2,
    )


@pytest.mark.parametrize(
    "stream",
    [
        events(delta("cat"), delta(", d")),
        events(delta("cat"))[:-8],
        events("[DONE]"),
        b"data:\n",
        events({"error": {"message": "later"}}),
        events(delta("cat"), {"error": {"message": "later"}}),
    ],
)
def test_a_stream_that_ends_early_is_retryable(stream: bytes):
    with pytest.raises(BadResponseError):
        read_response(stream, LIST)


@pytest.mark.parametrize(
    "encoded",
    [
        codecs.BOM_UTF8 + body("cat"),
        body("cat").decode().encode("utf-16"),
        gzip.compress(body("cat"), mtime=0),
        b"\n \n" + body("cat"),
    ],
)
def test_an_answer_is_read_in_any_encoding(encoded: bytes):
    assert read_response(encoded, LIST).text == "cat"


@pytest.mark.parametrize("response", [b"[" * 100_000, b'{"choices":' * 10_000, b"\x1f\x8b\x08", b"\xff\xfe\x00\xd8"])
def test_a_body_that_no_parser_likes_is_retryable(response: bytes):
    with pytest.raises(BadResponseError):
        read_response(response, LIST)


def test_half_a_surrogate_pair_can_be_stored():
    told = json.dumps(completion("cat HALF", {"yesHALF": -0.1})).replace("HALF", "\\ud83d")
    response = read_response(told.encode(), CAT)
    assert (response.text, response.first_logprobs) == ("cat ?", {"yes?": -0.1})


@pytest.mark.parametrize(
    ("response", "request_"),
    [
        (body("cat, " * 100_000), LIST),
        (body("cat, " * 1_000_000), LIST),
        (body(", ".join(f"name {i}" for i in range(300))), LIST),
        (body("yes" * 1000, {"yes": -0.1}), CAT),
    ],
)
def test_an_answer_without_end_is_a_failed_request(response: bytes, request_: Request):
    failure = read_response(response, request_).failure
    assert failure is not None
    assert failure.kind == "too_long_answer"
    assert "max_tokens" in failure.message


def test_an_answer_within_its_tokens_is_never_too_long():
    for tokens in (1, 8, 64, 256, 1024):
        longest = "Wildschweinfrischlinge, " * (tokens // 4)  # a compound word takes four tokens or more
        request = Request("", "Which?", max_tokens=tokens)
        assert read_response(body(f"{longest}cat"), request).failure is None


KEYS = ("choices", "message", "content", "error", "logprobs", "usage", "token", "top_logprobs", "type", "text")
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda some: st.lists(some) | st.dictionaries(st.sampled_from(KEYS), some),
)


@given(ANYTHING)
def test_json_of_any_form_is_an_answer_a_failure_or_retryable(content: Any):
    answer = {"message": {"content": "a"}, "logprobs": content}
    for request in (LIST, CAT):
        for response in (content, {"choices": [content]}, {"choices": [answer]}):
            with contextlib.suppress(BadResponseError):
                read_response(json.dumps(response).encode(), request)
