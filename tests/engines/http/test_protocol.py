"""The chat-completions protocol as text: what is written can be read, whatever is in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagllm_cli.engines.http import protocol as wire
from tagllm_cli.records import Request
from tests.support.faulty_proxy import completion


@given(st.text(), st.text(min_size=1))
def test_any_text_survives_the_wire(system: str, text: str):
    body = json.loads(wire.request_body("m", Request(system, text), b'{"type":"image_url"}', is_vllm=False))
    assert body["messages"][-1]["content"] == [{"type": "image_url"}, {"type": "text", "text": text}]
    assert [message["content"] for message in body["messages"][:-1]] == ([system] if system else [])
    assert "repetition_penalty" not in body


def test_logprobs_of_equal_texts_are_summed():
    response = wire.read_response(
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
        wants_logprobs=True,
    )
    assert response.first_logprobs == {"y": pytest.approx(-0.4054651081081645)}
    assert response.finish == "length"
