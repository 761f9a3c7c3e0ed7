"""Async helpers of the scheduler: admission, the first of several, signals."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from tagllm_cli.pipeline.label.concurrency import RequestLimiter, first, signals


async def waits(limiter: RequestLimiter, requests: int, bytes_: int) -> asyncio.Future[None]:
    waiting = asyncio.ensure_future(limiter.acquire(requests, bytes_))
    await asyncio.sleep(0)
    assert not waiting.done()
    return waiting


def test_requests_in_flight_are_limited_and_one_image_is_always_admitted() -> None:
    async def body() -> None:
        limiter = RequestLimiter(10)
        await limiter.acquire(25, 0)  # alone, however many
        waiting = await waits(limiter, 4, 0)
        limiter.release(25, 0)
        await asyncio.wait_for(waiting, 5)
        await limiter.acquire(6, 0)
        waiting = await waits(limiter, 1, 0)
        limiter.set_limit(11)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(body())


def test_bytes_held_are_limited_and_one_image_is_always_admitted() -> None:
    async def body() -> None:
        limiter = RequestLimiter(100, max_bytes=1000)
        await limiter.acquire(1, 5000)
        waiting = await waits(limiter, 1, 400)
        limiter.release(0, 4400)  # smaller than was expected
        await asyncio.wait_for(waiting, 5)
        assert limiter.held_bytes == 1000
        waiting = await waits(limiter, 1, 1)
        limiter.release(1, 600)
        await asyncio.wait_for(waiting, 5)
        limiter.release(0, -800)  # larger than was expected
        assert limiter.held_bytes == 1201
        waiting = await waits(limiter, 1, 0)
        waiting.cancel()

    asyncio.run(body())


def test_the_first_ends_the_waiting_and_bare_coroutines_are_cancelled() -> None:
    async def body() -> list[bool]:
        ended = []

        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        kept = asyncio.ensure_future(forever())
        await first(kept, forever(), asyncio.sleep(0))
        await asyncio.sleep(0)
        assert not kept.done()
        found = list(ended)
        kept.cancel()
        return found

    assert asyncio.run(body()) == [True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_and_the_second_acts_as_before(number: signal.Signals) -> None:
    received: list[int] = []
    before = signal.signal(number, lambda found, _: received.append(found))
    try:

        async def body() -> None:
            stop = asyncio.Event()
            with signals(stop.set):
                os.kill(os.getpid(), number)
                await asyncio.wait_for(stop.wait(), 5)
                assert received == []
                os.kill(os.getpid(), number)
                assert received == [number]

        asyncio.run(body())
        os.kill(os.getpid(), number)
        assert received == [number, number]
    finally:
        signal.signal(number, before)


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    ended: list[bool] = []

    async def body() -> None:
        with signals(lambda: None):
            ended.append(True)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=lambda: asyncio.run(body()))
    thread.start()
    thread.join(20)
    assert (ended, signal.getsignal(signal.SIGINT)) == ([True], before)
