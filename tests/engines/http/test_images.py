"""vLLM gets an image's pixels once, and its uuid afterwards; other servers get the pixels with every request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.http.engine import EndpointEngine
from tagllm_cli.engines.http.protocol import encode_image
from tagllm_cli.records import DecodedImage, Request, Response
from tests.support.asking import ask, echo, picture, run, settings
from tests.support.faulty_proxy import Fault, FaultyProxy, Received, refuse, reset, slow

FIVE = [Request("", f"Which of these: {number}?") for number in range(5)]


def part(received: Received) -> Any:
    return received.json["messages"][-1]["content"][0]


def has_pixels(received: Received) -> bool:
    return part(received)["image_url"] is not None


def texts(responses: list[Response]) -> list[str]:
    return [response.text for response in responses]


ANSWERS = [f"echo {request.text}" for request in FIVE]


def test_one_request_goes_ahead_with_the_pixels_and_the_others_carry_the_uuid():
    with FaultyProxy(lambda number, path: slow(0.1) if number == 1 else None, answer=echo) as server:
        assert texts(ask(settings(server), FIVE)) == ANSWERS
    first, *others = server.questions
    assert part(first)["uuid"] == "picture-0"
    assert [part(each) for each in others] == [{"type": "image_url", "image_url": None, "uuid": "picture-0"}] * 4
    assert has_pixels(first)
    assert min(each.time for each in others) >= first.time + 0.1


def test_another_server_gets_all_requests_at_once_with_pixels_and_without_a_uuid():
    late = lambda number, path: slow(0.2) if number else None  # noqa: E731
    with FaultyProxy(late, answer=echo, owned_by="somebody") as server:
        assert texts(ask(settings(server), FIVE)) == ANSWERS
    assert all(has_pixels(each) and "uuid" not in part(each) for each in server.questions)
    times = [each.time for each in server.questions]
    assert max(times) - min(times) < 0.2


@pytest.mark.parametrize("lead", [reset(), refuse(400, "bad"), refuse(500)])
def test_where_the_first_request_fails_the_others_are_asked_with_pixels(lead: Fault):
    with FaultyProxy(lambda number, path: lead if number == 1 else None, answer=echo) as server:
        assert texts(ask(settings(server, retries=0), FIVE))[1:] == ANSWERS[1:]
    # Until one of them was answered nobody knows that the server has the image.
    assert has_pixels(server.questions[1])


@pytest.mark.parametrize(
    "miss",
    [
        None,
        refuse(400, "Failed to apply the processor to 'NoneType'"),
        refuse(422, "image_url: none is not an allowed value"),
        refuse(500, "Internal Server Error"),
    ],
)
def test_an_image_that_the_server_does_not_have_is_sent_again_at_once(miss: Fault | None):
    """None: a server that has forgotten it; the others never know an image by its uuid."""

    class Forgetful(FaultyProxy):
        async def _real(self, received: Received) -> Any:
            self.images.clear()
            if miss is not None and received.number and not has_pixels(received):
                return miss.status, miss.headers, miss.body
            return await super()._real(received)

    with Forgetful(answer=echo) as server:

        async def work(engine: EndpointEngine) -> list[Response]:
            responses = []
            for shade in range(4):
                responses += await ask_all(engine, picture(shade), FIVE)
            assert engine.trouble is None
            return responses

        responses = run(settings(server, retries=0, concurrency=1), work)
    assert texts(responses) == ANSWERS * 4
    without = [each for each in server.questions if not has_pixels(each)]
    assert len(without) == 3  # then the server gets pixels always
    assert len(server.questions) == 20 + 3


def test_a_request_that_is_refused_without_pixels_and_with_them_is_no_miss():
    refused = refuse(400, "the prompt is not allowed")
    with FaultyProxy(lambda number, path: refused if number in (2, 3) else None, answer=echo) as server:
        responses = ask(settings(server, concurrency=1), FIVE)
    assert [response.failure and response.failure.message for response in responses].count(None) == 4
    assert [has_pixels(each) for each in server.questions] == [True, False, True, False, False, False]


def test_a_few_misses_among_many_requests_do_not_count():
    class Restarting(FaultyProxy):
        async def _real(self, received: Received) -> Any:
            if received.number in (52, 104, 156, 208):
                self.images.clear()
            return await super()._real(received)

    with Restarting(answer=echo) as server:

        async def work(engine: EndpointEngine) -> None:
            for shade in range(6):
                questions = [Request("", f"{number}?") for number in range(50)]
                await ask_all(engine, picture(shade), questions)

        run(settings(server, concurrency=1), work)
    assert 3 <= len(server.questions) - 300 <= 4
    assert not has_pixels(server.questions[-1])


def test_each_server_gets_the_pixels_of_an_image_that_moves_to_it():
    with FaultyProxy(answer=echo) as one, FaultyProxy(answer=echo) as two:

        async def work(engine: EndpointEngine) -> list[Response]:
            asked = asyncio.create_task(ask_all(engine, picture(), FIVE * 1))
            while not (one.questions or two.questions):
                await asyncio.sleep(0.001)
            (one if one.questions else two).down()
            return await asked

        responses = run(settings(one, two), work)
    assert texts(responses) == ANSWERS
    for server in (one, two):
        assert not server.questions or has_pixels(server.questions[0])


def test_an_image_is_encoded_once_for_all_of_its_requests(monkeypatch: pytest.MonkeyPatch):
    encoded: list[str] = []

    def counted(shown: DecodedImage) -> bytes:
        encoded.append(shown.uuid)
        return encode_image(shown)

    monkeypatch.setattr("tagllm_cli.engines.http.images.encode_image", counted)
    with FaultyProxy(owned_by="somebody") as server:
        ask(settings(server), FIVE)
    assert encoded == ["picture-0"]
    assert len(server.questions) == 5
