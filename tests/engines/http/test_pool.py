"""Server selection: images are spread, an unhealthy server gets nothing until a probe succeeds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.http.engine import EndpointEngine
from tagllm_cli.errors import EndpointError
from tagllm_cli.records import Response
from tests.support.asking import LIST, ask, picture, run, settings
from tests.support.faulty_proxy import FaultyProxy, completion, slow


def test_no_more_requests_are_in_flight_than_allowed():
    running, most = 0, 0

    def answer(question: Any) -> dict[str, Any]:
        nonlocal most
        most = max(most, running)
        return completion("cat")

    class Counting(FaultyProxy):
        async def _converse(self, *streams: Any) -> bool:
            nonlocal running
            running += 1
            try:
                await asyncio.sleep(0.01)
                await super()._converse(*streams)
                return False
            finally:
                running -= 1

    with Counting(answer=answer) as server:
        ask(settings(server, concurrency=3), [LIST] * 12)
    assert most == 3


def test_an_image_stays_on_one_server_and_images_are_spread():
    with (
        FaultyProxy(lambda n, p: slow(0.02) if n else None) as one,
        FaultyProxy(lambda n, p: slow(0.02) if n else None) as two,
    ):

        async def work(engine: EndpointEngine) -> int:
            await asyncio.gather(*(ask_all(engine, picture(shade), [LIST] * 3) for shade in range(8)))
            return engine.capacity

        capacity = run(settings(one, two, concurrency=16), work)
    assert capacity == 2 * 3 * 16
    shown = [{info.json["messages"][-1]["content"][0]["uuid"] for info in server.questions} for server in (one, two)]
    assert [len(images) for images in shown] == [4, 4]
    assert not shown[0] & shown[1]
    assert [len(server.questions) for server in (one, two)] == [12, 12]


def test_a_dead_server_gets_nothing_until_it_is_back():
    with FaultyProxy() as one, FaultyProxy() as two:

        async def work(engine: EndpointEngine) -> list[Response]:
            one.down()
            server = next(server for server in engine._pool.servers if server.address.url == one.url)
            responses = []
            while server.is_healthy:
                for answered in await asyncio.gather(*(ask_all(engine, picture(shade), [LIST]) for shade in range(4))):
                    responses += answered
            only_two = len(two.questions)
            assert only_two == len(responses)
            one.up()
            while not server.is_healthy:
                await asyncio.sleep(0.01)
                responses += await ask_all(engine, picture(9), [LIST])
            return responses

        responses: list[Response] = run(settings(one, two), work)
    assert all(response.text == "cat" for response in responses)
    assert len(one.questions) == 1


def test_a_server_that_starts_late_joins():
    late = lambda number, path: slow(0.05) if number else None  # noqa: E731
    with FaultyProxy(late) as one, FaultyProxy(late) as two:
        two.down()

        async def work(engine: EndpointEngine) -> None:
            two.up()
            server = next(server for server in engine._pool.servers if server.address.url == two.url)
            while not server.is_healthy:
                await asyncio.sleep(0.01)
            await asyncio.gather(*(ask_all(engine, picture(shade), [LIST]) for shade in range(4)))

        run(settings(one, two), work)
    assert len(two.questions) == 2


def test_a_run_ends_when_no_server_comes_back():
    with FaultyProxy() as server:

        async def work(engine: EndpointEngine) -> None:
            server.down()
            await asyncio.gather(*(ask_all(engine, picture(shade), [LIST]) for shade in range(2)))

        says = f"no endpoint has given a usable answer for .* s, most often: {server.url}: no connection"
        with pytest.raises(EndpointError, match=says):
            run(settings(server, give_up_s=0.3), work)


def test_a_run_waits_for_a_server_that_comes_back():
    with FaultyProxy() as server:

        async def work(engine: EndpointEngine) -> list[Response]:
            server.down()
            asked = asyncio.create_task(ask_all(engine, picture(), [LIST] * 5))
            only = engine._pool.servers[0]
            while only.is_healthy:
                await asyncio.sleep(0.01)
            server.up()
            return await asked

        responses = run(settings(server), work)
    assert [response.text for response in responses] == ["cat"] * 5
