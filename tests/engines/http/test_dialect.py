"""A refusal that names what a server does not take changes how it is asked; any other changes nothing.

The messages are those of the servers named, as their users report them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tagllm_cli.engines.http.dialect import PLAIN, Dialect, learned
from tagllm_cli.engines.http.protocol import parameters
from tests.support.asking import CAT, LIST


def openai(message: str, param: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": param}}).encode()


def pydantic(parameter: str, message: str, **more: Any) -> bytes:
    return json.dumps({"detail": [{"loc": ["body", parameter], "msg": message, **more}]}).encode()


def after(refusal: bytes, dialect: Dialect = PLAIN, *, is_vllm: bool = True) -> Dialect:
    return learned(dialect, refusal, parameters(CAT, is_vllm=is_vllm, dialect=dialect))


COMPLETION_TOKENS = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
)
NO_ZERO = (
    "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."
)


def without(*names: str) -> Dialect:
    return replace(PLAIN, without=frozenset(names))


@pytest.mark.parametrize(
    ("refusal", "dialect"),
    [
        pytest.param(openai(COMPLETION_TOKENS, "max_tokens"), Dialect("max_completion_tokens"), id="openai"),
        pytest.param(openai(COMPLETION_TOKENS), Dialect("max_completion_tokens"), id="gateway"),
        pytest.param(openai(NO_ZERO, "temperature"), without("temperature"), id="openai-temperature"),
        pytest.param(
            openai("Input validation error: `temperature` must be strictly positive"),
            Dialect(temperature=0.01),
            id="tgi-temperature",
        ),
        pytest.param(
            openai("Unrecognized request argument supplied: chat_template_kwargs"),
            without("chat_template_kwargs"),
            id="openai-unknown",
        ),
        pytest.param(
            openai("Unrecognized request arguments supplied: chat_template_kwargs, repetition_penalty"),
            without("chat_template_kwargs", "repetition_penalty"),
            id="openai-two-unknown",
        ),
        pytest.param(
            openai("property 'chat_template_kwargs' is unsupported"), without("chat_template_kwargs"), id="groq"
        ),
        pytest.param(
            pydantic("repetition_penalty", "Extra inputs are not permitted", type="extra_forbidden", input=1.0),
            without("repetition_penalty"),
            id="mistral",
        ),
        pytest.param(
            json.dumps(
                {"status": 422, "detail": "body -> stream\n  Extra inputs are not permitted (type=extra_forbidden)"}
            ).encode(),
            without("stream"),
            id="nim",
        ),
        pytest.param(pydantic("uuid", "Extra inputs are not permitted"), without("uuid"), id="uuid"),
        pytest.param(
            json.dumps(
                {"error": {"code": 500, "message": "System role not supported", "type": "server_error"}}
            ).encode(),
            Dialect(has_system=False),
            id="llama.cpp-gemma",
        ),
        pytest.param(
            openai("Conversation roles must alternate user/assistant/user/assistant/..."),
            Dialect(has_system=False),
            id="vllm-template",
        ),
        pytest.param(
            openai("Only user and assistant roles are supported!"), Dialect(has_system=False), id="mistral-template"
        ),
        pytest.param(
            openai(
                "Unsupported value: 'messages[0].role' does not support 'system' with this model.", "messages[0].role"
            ),
            Dialect(has_system=False),
            id="o1-mini",
        ),
        pytest.param(
            json.dumps(
                {
                    "error": {
                        "message": "Provider returned error",
                        "code": 400,
                        "metadata": {"raw": openai(NO_ZERO, "temperature").decode(), "provider_name": "Azure"},
                    }
                }
            ).encode(),
            without("temperature"),
            id="openrouter",
        ),
        pytest.param(b"Unknown parameter: stream", without("stream"), id="text"),
    ],
)
def test_a_parameter_that_is_refused_is_changed_or_left_out(refusal: bytes, dialect: Dialect):
    assert after(refusal) == dialect


@pytest.mark.parametrize(
    ("message", "most"),
    [
        ("Invalid value for 'top_logprobs': must be less than or equal to 5.", 5),
        ("Requested sample logprobs of 20, which is greater than max allowed: 5", 5),
        ("Input validation error: `top_n_tokens` must be >= 0 and <= 5. Given: 20", 5),
        ("InvalidParameter: Invalid 'top_logprobs': 20. Expected an integer in range [0, 5]", 5),
        ("<400> InternalError.Algo.InvalidParameter: Range of top_logprobs should be [0, 10]", 10),
        ("top_logprobs must be between 0 and 8", 8),
        ("it has a logprobs value of 20 but the supported range is from 0 (inclusive) to 6 (exclusive).", 5),
        ("logprobs should be in [0, 6)", 5),
        ("top_logprobs must be less than 11", 10),
        ("1 validation error: top_logprobs Input should be less than or equal to 5", 5),
        ("Invalid top_logprobs and logprobs value", 5),
        ("top_logprobs is too large", 5),
    ],
)
def test_the_number_of_log_probabilities_is_learned_from_the_words(message: str, most: int):
    for refusal in (openai(message), openai(message, "top_logprobs"), json.dumps({"detail": message}).encode()):
        assert after(refusal) == Dialect(most_logprobs=most)


def test_the_number_of_log_probabilities_is_learned_from_the_place():
    assert after(pydantic("top_logprobs", "Input should be less than or equal to 5", input=20)).most_logprobs == 5


@pytest.mark.parametrize(
    "message",
    [
        "logprobs are not supported by this model",
        "This model does not support logprobs and top_logprobs.",
        "Requested sample logprobs of 20, which is greater than max allowed: 0",
        "top_logprobs must be at most 1",  # one alone says nothing about yes against no
        "fake-vl does not take images",
        "At most 1 image(s) may be provided in one request.",
        "The model `demo` does not exist.",
        "cannot identify image file",
        "'max_tokens' or 'max_completion_tokens' is too large: 9000, instead of the maximum context length of 8192.",
        "Unknown model",
        "",
    ],
)
def test_a_refusal_of_anything_else_changes_nothing(message: str):
    assert after(openai(message)) == PLAIN


@pytest.mark.parametrize("refusal", [b"", b"[]", b"null", b"{}", b"[[", b"\xff\xfe", b'{"error": null}', b"[" * 10**5])
def test_a_refusal_of_any_form_is_read(refusal: bytes):
    assert after(refusal) == PLAIN


def test_what_a_request_repeats_of_itself_is_no_complaint():
    whole = parameters(CAT, is_vllm=True)
    assert after(pydantic("messages", "Field required", input=whole)) == PLAIN


def test_several_refusals_add_up_and_come_to_an_end():
    refusals = [openai(COMPLETION_TOKENS), openai(NO_ZERO), openai("top_logprobs must be at most 10 on this model")]
    dialect = PLAIN
    for refusal in refusals:
        dialect = after(refusal, dialect)
    assert dialect == Dialect("max_completion_tokens", 10, 0.0, frozenset({"temperature"}))
    for refusal in refusals:
        assert after(refusal, dialect) == dialect


def test_a_question_without_log_probabilities_learns_nothing_about_them():
    refusal = openai("top_logprobs must be at most 5")
    assert learned(PLAIN, refusal, parameters(LIST, is_vllm=False)) == PLAIN


def test_a_temperature_that_is_refused_twice_is_left_out():
    dialect = after(openai("temperature must be greater than 0"))
    assert dialect.temperature == 0.01
    assert after(openai("temperature is not supported by this model"), dialect).without == {"temperature"}
