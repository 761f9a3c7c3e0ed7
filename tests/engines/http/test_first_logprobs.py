"""Log-probabilities of the first token: read in every form that servers have, and a failure where there are none."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tagllm_cli.engines.http.completion import read_response
from tests.support.asking import CAT
from tests.support.faulty_proxy import completion

LOGPROBS = {"yes": -0.1, "no": -2.5}
TOP = [{"token": token, "logprob": value} for token, value in LOGPROBS.items()]


def body(content: Any, logprobs: Any = None, **choice: Any) -> bytes:
    return json.dumps(completion(content, logprobs, **choice)).encode()


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
        choice(logprobs={"tokens": ["yes"], "token_logprobs": [-0.1], "top_logprobs": None}),
        choice(logprobs={"tokens": [], "token_logprobs": [], "top_logprobs": []}),
        choice(logprobs={"content": [{"top_logprobs": [{"token": "yes", "logprob": "x"}]}]}),
        choice(logprobs={"content": [{"top_logprobs": [{"token": "yes", "logprob": True}]}]}),
        choice(logprobs={"content": [{"top_logprobs": [{"token": "yes", "logprob": math.inf}]}]}),
        choice(logprobs={"content": [{"top_logprobs": [{"token": "yes", "logprob": 3.5}]}]}),
        choice(logprobs="yes"),
        choice(logprobs=[-0.1]),
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


@pytest.mark.parametrize(
    ("message", "kind"),
    [({"refusal": "I cannot help."}, "refused"), ({"reasoning": "Well."}, "reasoning_only"), ({}, "no_logprobs")],
)
def test_a_yes_or_no_without_content_says_why(message: dict[str, str], kind: str):
    failure = read_response(body(None, **message), CAT).failure
    assert failure is not None
    assert failure.kind == kind


def test_a_filtered_yes_or_no_is_filtered():
    failure = read_response(body("", {"yes": -0.1}, finish="content_filter"), CAT).failure
    assert failure is not None
    assert failure.kind == "filtered"


@pytest.mark.parametrize(
    "response",
    [
        pytest.param({"choices": [{"logprobs": {"content": [{"token": "yes", "top_logprobs": TOP}]}}]}, id="openai"),
        pytest.param(
            {
                "choices": [
                    {"logprobs": {"tokens": ["yes"], "token_logprobs": [-0.1], "top_logprobs": [LOGPROBS, {"x": -1}]}}
                ]
            },
            id="completions",
        ),
        pytest.param({"choices": [{"logprobs": [{"token": "yes", "logprob": -0.1, "top_logprobs": TOP}]}]}, id="list"),
        pytest.param(
            {"choices": [{}], "completion_probabilities": [{"token": "yes", "logprob": -0.1, "top_logprobs": TOP}]},
            id="llama.cpp",
        ),
        pytest.param(
            {
                "choices": [{}],
                "completion_probabilities": [
                    {
                        "content": "yes",
                        "probs": [{"tok_str": token, "prob": math.exp(value)} for token, value in LOGPROBS.items()],
                    }
                ],
            },
            id="llama.cpp-2023",
        ),
        pytest.param(
            {
                "choices": [
                    {
                        "completion_probabilities": [
                            {
                                "token": "yes",
                                "prob": 0.9,
                                "top_probs": [
                                    {"token": text, "prob": math.exp(each)} for text, each in LOGPROBS.items()
                                ],
                            }
                        ]
                    }
                ]
            },
            id="llama.cpp-after-sampling",
        ),
        pytest.param(
            {
                "choices": [
                    {
                        "logprobs": {
                            "content": [
                                {
                                    "top_logprobs": [
                                        {"token": None, "bytes": list(text.encode()), "logprob": value}
                                        for text, value in LOGPROBS.items()
                                    ]
                                }
                            ]
                        }
                    }
                ]
            },
            id="bytes",
        ),
    ],
)
def test_log_probabilities_are_read_in_every_form(response: dict[str, Any]):
    for each in response["choices"]:
        each |= {"message": {"content": "yes"}, "finish_reason": "length"}
    answer = read_response(json.dumps(response).encode(), CAT)
    assert answer.failure is None
    assert answer.first_logprobs == pytest.approx(LOGPROBS)


def test_a_log_probability_above_zero_by_rounding_is_zero_and_one_of_nothing_is_the_least():
    response = read_response(
        choice(logprobs={"content": [{"top_logprobs": [_top("yes", 1e-6), _top("no", -math.inf)]}]}), CAT
    )
    assert response.first_logprobs == {"yes": 0.0, "no": -9999.0}


def _top(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob}
