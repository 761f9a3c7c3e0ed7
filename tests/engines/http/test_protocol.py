"""Requests as bytes: any text survives, and a server's dialect decides what is sent; lists of models and pauses in."""

from __future__ import annotations

import codecs
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagllm_cli.engines.http.bodies import BadResponseError
from tagllm_cli.engines.http.dialect import PLAIN, Dialect, learned
from tagllm_cli.engines.http.protocol import parameters, read_models, read_version, request_body, retry_after
from tagllm_cli.records import Request
from tests.support.asking import CAT, LIST

PART = b'{"type":"image_url"}'


def sent(request: Request, dialect: Dialect = PLAIN, *, is_vllm: bool = False) -> Any:
    return json.loads(request_body("m", request, PART, is_vllm=is_vllm, dialect=dialect))


@given(st.text(), st.text(min_size=1))
def test_any_text_survives_the_wire(system: str, text: str):
    body = sent(Request(system, text))
    assert body["messages"][-1]["content"] == [{"type": "image_url"}, {"type": "text", "text": text}]
    assert [message["content"] for message in body["messages"][:-1]] == ([system] if system else [])
    assert "repetition_penalty" not in body


def test_a_dialect_changes_what_it_is_about_and_nothing_else():
    plain = sent(CAT)
    for dialect, changes in [
        (Dialect(max_tokens="max_completion_tokens"), {"max_completion_tokens": 1, "max_tokens": None}),
        (Dialect(most_logprobs=5), {"top_logprobs": 5}),
        (Dialect(temperature=0.01), {"temperature": 0.01}),
        (Dialect(without=frozenset({"stream", "temperature"})), {"stream": None, "temperature": None}),
        (Dialect(), {}),
    ]:
        body = sent(CAT, dialect)
        assert {name: body.get(name) for name in {*body, *plain} if body.get(name) != plain.get(name)} == changes


def test_fewer_log_probabilities_are_asked_for_only_where_there_is_a_limit():
    assert "top_logprobs" not in sent(LIST, Dialect(most_logprobs=5))
    assert sent(CAT, Dialect(most_logprobs=50))["top_logprobs"] == CAT.top_logprobs


def test_without_a_system_role_its_text_begins_the_users():
    messages = sent(CAT, Dialect(has_system=False))["messages"]
    assert [message["role"] for message in messages] == ["user"]
    assert messages[0]["content"][0]["type"] == "image_url"
    assert messages[0]["content"][1]["text"] == f"{CAT.system}\n\n{CAT.text}"
    assert sent(Request("", "a"), Dialect(has_system=False))["messages"][0]["content"][1]["text"] == "a"


def test_the_users_variables_for_the_template_are_sent_to_any_server_and_never_left_out():
    assert "chat_template_kwargs" not in parameters(LIST, is_vllm=False)
    assert parameters(LIST, is_vllm=True)["chat_template_kwargs"] == {"enable_thinking": False}
    asked = Dialect(template_kwargs={"thinking": False})
    for is_vllm in (False, True):
        body = sent(LIST, asked, is_vllm=is_vllm)
        assert body["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}
    refusal = b'{"error": {"message": "Unrecognized request argument supplied: chat_template_kwargs"}}'
    assert learned(asked, refusal, parameters(LIST, is_vllm=True, dialect=asked)) == asked
    assert learned(PLAIN, refusal, parameters(LIST, is_vllm=True)).without == {"chat_template_kwargs"}


def test_what_vllm_alone_knows_may_be_left_out_of_it_too():
    assert "chat_template_kwargs" in sent(LIST, is_vllm=True)
    body = sent(LIST, Dialect(without=frozenset({"chat_template_kwargs"})), is_vllm=True)
    assert "chat_template_kwargs" not in body
    assert body["repetition_penalty"] == 1.0


LISTED = b'{"data": [{"id": "a", "owned_by": "vllm"}, {"id": "b"}]}'


@pytest.mark.parametrize("body", [LISTED, codecs.BOM_UTF8 + LISTED, LISTED.decode().encode("utf-16")])
def test_a_list_of_models_is_read_in_any_encoding(body: bytes):
    models = read_models(body)
    assert models is not None
    assert (models.names, models.is_vllm) == ({"a", "b"}, True)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"1", b'{"data": null}', b'{"data": [1]}', b'{"models": []}', b"[" * 100_000]
)
def test_what_lists_no_models_is_no_list(body: bytes):
    assert read_models(body) is None


@pytest.mark.parametrize("body", [b'{"data": [', b'\n {"data'])
def test_half_a_list_of_models_is_retryable(body: bytes):
    with pytest.raises(BadResponseError):
        read_models(body)


@pytest.mark.parametrize(
    ("body", "version"), [(b'{"version": "0.32.0"}', "0.32.0"), (b'{"version": 3}', None), (b"[1]", None), (b"x", None)]
)
def test_a_version_is_read_where_there_is_one(body: bytes, version: str | None):
    assert read_version(body) == version


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("2", 2.0),
        (" 0.5 ", 0.5),
        ("-5", 0.0),
        ("nan", 0.0),
        ("inf", math.inf),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("Wed, 41 Oct 2015 07:28:30 GMT", None),
        ("Wed, 21 Oct 99999999999 07:28:30 GMT", None),
    ],
)
def test_a_pause_is_read_from_seconds_and_dates_and_nothing_else(header: str, seconds: float | None):
    assert retry_after({"retry-after": header}, 1445412480.0) == seconds
