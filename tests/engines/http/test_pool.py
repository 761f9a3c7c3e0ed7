"""Server selection: images are spread, an unhealthy server gets nothing until a probe succeeds."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import ExitStack
from typing import Any

import pytest

from tagllm_cli.engines.base import ask_all
from tagllm_cli.engines.http import asker
from tagllm_cli.engines.http.engine import EndpointEngine
from tagllm_cli.engines.http.server import Affinity
from tagllm_cli.errors import EndpointError
from tagllm_cli.records import Response
from tests.support.asking import CAT, LIST, ask, echo, picture, run, settings
from tests.support.faulty_proxy import Fault, FaultyProxy, completion, half_json, refuse, reset, slow


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


def permanent(fault: Fault) -> Any:
    return lambda number, path: fault if number > 8 else None


FOR_EVER = {
    "500": (refuse(500, "CUDA error"), "HTTP 500: CUDA error"),
    "429": (refuse(429, "no credit left"), "HTTP 429: no credit left"),
    "503": (refuse(503, "loading"), "HTTP 503: loading"),
    "html": (Fault(200, (), b"<html>"), ""),
    "half": (half_json(), ""),
    "no-choices": (Fault(200, (), b'{"choices": []}'), ""),
    "reset": (reset(), "connection reset"),
    "hang": (slow(30), "no answer within 0.3 s"),
    "429-for-hours": (refuse(429, "no credit left", retry_after="7200"), "HTTP 429: no credit left"),
}


async def forty(engine: EndpointEngine) -> None:
    await asyncio.gather(*(ask_all(engine, picture(shade), [LIST] * 2) for shade in range(40)))


@pytest.mark.parametrize("fault", FOR_EVER)
@pytest.mark.parametrize("servers", [1, 2])
def test_a_fault_for_ever_ends_the_run_with_its_reason(fault: str, servers: int):
    served, reason = FOR_EVER[fault]
    with ExitStack() as stack:
        all_ = [stack.enter_context(FaultyProxy(permanent(served))) for _ in range(servers)]
        limits: dict[str, Any] = {
            "give_up_s": 0.6,
            "timeout_s": 0.3 if fault == "hang" else 5.0,
            "concurrency": 8,
            "max_wait_s": 0.2,
        }
        began = time.monotonic()
        with pytest.raises(EndpointError, match="no endpoint has given a usable answer for") as caught:
            run(settings(*all_, **limits), forty)
    assert reason in caught.value.message
    assert "times)" in caught.value.message
    assert time.monotonic() - began < 10


def test_one_image_that_always_fails_does_not_end_the_run():
    def only_the_third(number: int, path: str) -> Fault | None:
        return refuse(500, "CUDA error") if number and b"picture-3" in server.questions[number - 1].body else None

    with FaultyProxy(only_the_third, answer=echo) as server:

        async def work(engine: EndpointEngine) -> list[Response]:
            responses = []
            for shade in range(6):
                responses += await ask_all(engine, picture(shade), [LIST, CAT])
            return responses

        responses = run(settings(server, give_up_s=0.1, retries=4), work)
    failed = [number // 2 for number, response in enumerate(responses) if response.failure is not None]
    assert set(failed) == {3}


def test_a_server_that_is_back_within_the_time_does_not_end_the_run():
    bad = True
    with FaultyProxy(lambda number, path: refuse(500) if number and bad else None) as server:

        async def work(engine: EndpointEngine) -> None:
            nonlocal bad
            asked = asyncio.create_task(forty(engine))
            await asyncio.sleep(0.5)
            bad = False
            await asked

        run(settings(server, give_up_s=5.0, retries=2), work)


@pytest.mark.parametrize("value", ["inf", "nan", "-5", "soon", "7200"])
def test_a_senseless_retry_after_holds_nobody(value: str):
    with FaultyProxy(lambda number, path: refuse(503, retry_after=value) if number in (1, 2) else None) as server:
        began = time.monotonic()
        assert ask(settings(server, max_wait_s=0.2))[0].text == "cat"
    assert time.monotonic() - began < 2


def test_waiting_is_told_with_its_reason_and_no_longer_than_it_lasts():
    bad = True
    with FaultyProxy(lambda number, path: refuse(429, "no credit left") if number and bad else None) as server:

        async def work(engine: EndpointEngine) -> list[str | None]:
            nonlocal bad
            told = [engine.trouble]
            asked = asyncio.create_task(forty(engine))
            while engine._pool.servers[0].is_healthy:
                await asyncio.sleep(0.01)
            told.append(engine.trouble)
            bad = False
            await asked
            return [*told, engine.trouble]

        before, meanwhile, after = run(settings(server), work)
    assert (before, after) == (None, None)
    assert meanwhile is not None
    assert meanwhile.startswith(f"{server.url} left out: HTTP 429: no credit left (")
    assert "next try in" in meanwhile
    assert "for a retry" in meanwhile


def test_silence_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tagllm_cli.engines.http.trouble._SILENT_S", 0.1)
    with FaultyProxy(lambda number, path: slow(0.5) if number else None) as server:

        async def work(engine: EndpointEngine) -> str | None:
            asked = asyncio.create_task(ask_all(engine, picture(), [LIST]))
            await asyncio.sleep(0.3)
            trouble = engine.trouble
            await asked
            return trouble

        assert run(settings(server), work) == "no answer for 0 s (1 in flight, timeout 5 s)"


def test_servers_that_answer_nothing_any_more_hang_long_before_a_timeout():
    began = time.monotonic()
    with (
        FaultyProxy(lambda number, path: slow(30) if number > 30 else None) as server,
        pytest.raises(EndpointError, match="no answer to anything for"),
    ):
        run(settings(server, timeout_s=20.0, silence_s=0.3, give_up_s=0.6, concurrency=16), forty)
    assert time.monotonic() - began < 10


def test_one_request_that_takes_long_is_waited_for():
    def fault(number: int, path: str) -> Fault | None:
        return slow(1.5) if number > 30 else None

    with FaultyProxy(fault) as server:

        async def work(engine: EndpointEngine) -> list[Response]:
            await asyncio.gather(*(ask_all(engine, picture(shade), [LIST]) for shade in range(30)))
            return await ask_all(engine, picture(40), [LIST])

        (response,) = run(settings(server, silence_s=0.3), work)
    assert response.failure is None
    assert len(server.questions) == 31


def test_an_attempt_that_ends_as_it_is_given_up_leaves_nothing_unlooked_at(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """asyncio complains at the collection of a task whose exception nobody looked at."""

    async def work(engine: EndpointEngine) -> None:
        end = asyncio.Event()

        async def ends(*_: Any) -> None:
            await end.wait()
            raise EndpointError("it redirects requests", "Give another address.")

        monkeypatch.setattr(asker, "attempt", ends)
        lease = await engine._pool.acquire(Affinity(), (), needs_logprobs=False)
        assert lease is not None
        once = asyncio.create_task(engine._asker._once(lease, None, LIST))
        await asyncio.sleep(0.01)
        end.set()
        await asyncio.sleep(0)  # the attempt has ended, and who waits for it does not know yet
        once.cancel()
        await asyncio.gather(once, return_exceptions=True)

    with FaultyProxy() as server:
        run(settings(server), work)
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
