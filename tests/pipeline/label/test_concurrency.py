"""What the loop waits for: room, the first of several things, a signal."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tagllm_cli.pipeline.label.concurrency import Room, first, signals


def test_room_is_kept_and_one_always_fits() -> None:
    async def body() -> None:
        room = Room(10)
        await room.enter(25)  # alone, however large
        waiting = asyncio.ensure_future(room.enter(4))
        await asyncio.sleep(0)
        assert not waiting.done()
        room.leave(25)
        await asyncio.wait_for(waiting, 5)
        await room.enter(6)
        waiting = asyncio.ensure_future(room.enter(1))
        await asyncio.sleep(0)
        assert not waiting.done()
        room.widen(11)
        await asyncio.wait_for(waiting, 5)

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
    info: list[int] = []
    before = signal.signal(number, lambda found, _: info.append(found))
    try:

        async def body() -> None:
            stop = asyncio.Event()
            with signals(stop.set):
                os.kill(os.getpid(), number)
                await asyncio.wait_for(stop.wait(), 5)
                assert info == []
                os.kill(os.getpid(), number)
                assert info == [number]

        asyncio.run(body())
        os.kill(os.getpid(), number)
        assert info == [number, number]
    finally:
        signal.signal(number, before)
