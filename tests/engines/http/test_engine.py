"""The endpoint engine against a server on loopback: what is sent, and in what order answers come."""

from __future__ import annotations

import base64
import io
from typing import Any

import PIL.Image
import pytest

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.http.engine import EndpointEngine
from tagllm_cli.records import Request, Response
from tests.support.asking import CAT, LIST, ask, echo, picture, run, settings
from tests.support.faulty_proxy import (
    FaultyProxy,
    slow,
)


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
