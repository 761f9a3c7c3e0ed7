"""What workers are given: in order, again after a death, alone before an image is blamed, and then no more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from tagllm_cli.errors import SourceError
from tagllm_cli.pipeline.label.pending import PendingImage
from tagllm_cli.pipeline.label.ray.blocks import IMAGES_PER_BLOCK, IMAGES_PER_SHARD_BLOCK, MOST_DEATHS, Blocks, Piece
from tagllm_cli.pipeline.label.reads import ShardRead, Work
from tagllm_cli.records import Image, Item, Shard


def pending(number: int, shard: str = "") -> PendingImage:
    return PendingImage(Item(Image(f"{number:04d}", f"{number:04d}", "v", shard)), (), b"", 4)


def blocks(work: Iterator[Work] | list[Work]) -> Blocks:
    made = Blocks(lambda images: None)
    made.begin(iter(work))
    return made


async def take(source: Blocks) -> Piece:
    piece = await source.next(lambda: True, lambda: True)
    assert piece is not None
    return piece


def run(body: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(body, 10))


def test_each_image_is_handed_out_once_and_then_nothing_comes() -> None:
    async def body() -> None:
        admitted: list[int] = []
        source = Blocks(admitted.append)
        source.begin(iter([None, *(pending(number) for number in range(40)), None]))
        pieces = [await take(source) for _ in range(3)]
        assert [len(piece.images) for piece in pieces] == [
            IMAGES_PER_BLOCK,
            IMAGES_PER_BLOCK,
            40 - 2 * IMAGES_PER_BLOCK,
        ]
        assert len({id_ for piece in pieces for id_ in piece.images}) == 40
        last = asyncio.ensure_future(source.next(lambda: True, lambda: True))
        await asyncio.sleep(0)
        assert not last.done()  # a worker may die yet
        for piece in pieces:
            source.ended(piece)
        assert await last is None
        assert admitted == [40]

    run(body())


def test_images_of_a_shard_travel_in_pieces_of_one_shard() -> None:
    async def body() -> None:
        images = [pending(number, "a.tar") for number in range(IMAGES_PER_SHARD_BLOCK + 3)]
        source = blocks([pending(9000), ShardRead(Shard("a.tar"), images), pending(9001)])
        pieces = [await take(source) for _ in range(4)]
        assert [len(piece.images) for piece in pieces] == [1, IMAGES_PER_SHARD_BLOCK, 3, 1]
        assert [piece.read and piece.read.shard.name for piece in pieces] == [None, "a.tar", "a.tar", None]

    run(body())


def test_an_image_that_kills_three_workers_is_given_up_and_its_neighbors_are_not() -> None:
    async def body() -> None:
        source = blocks([pending(number) for number in range(12)])
        deaths, finished, given_up = 0, set(), []
        while not source.is_done:
            piece = await take(source)
            if "0007" in piece.images:
                deaths += 1
                given_up += source.died([piece], blames=True)
            else:
                finished |= set(piece.images)
                source.ended(piece)
        assert deaths == MOST_DEATHS
        assert [image.item.image.id for image in given_up] == ["0007"]
        assert finished == {f"{number:04d}" for number in range(12)} - {"0007"}

    run(body())


def test_a_suspect_is_given_to_a_worker_that_has_nothing_else() -> None:
    async def body() -> None:
        source = blocks([pending(0)])
        for _ in range(MOST_DEATHS - 1):
            assert source.died([await take(source)], blames=True) == []
        busy = asyncio.ensure_future(source.next(lambda: True, lambda: False))
        await asyncio.sleep(0)
        assert not busy.done()
        assert (await take(source)).is_alone
        busy.cancel()

    run(body())


def test_a_death_before_the_engine_was_ready_blames_no_image() -> None:
    async def body() -> None:
        source = blocks([pending(0)])
        for _ in range(3 * MOST_DEATHS):
            assert source.died([await take(source)], blames=False) == []
        assert not (await take(source)).is_alone

    run(body())


def test_what_was_found_of_an_unread_shard_is_known_after_a_death() -> None:
    async def body() -> None:
        source = blocks([ShardRead(Shard("a.tar"))])
        piece = await take(source)
        piece.images["0001"] = pending(1, "a.tar")
        piece.done["0000"] = "v"
        source.died([piece], blames=True)
        again, known = await take(source), await take(source)
        assert (again.is_unread, again.done) == (True, {"0000": "v", "0001": "v"})
        assert (known.is_unread, list(known.images)) == (False, ["0001"])

    run(body())


def test_a_shard_that_kills_workers_unseen_is_listed_first_and_given_up_at_last() -> None:
    async def body() -> None:
        source = blocks([ShardRead(Shard("a.tar"))])
        for _ in range(MOST_DEATHS):
            source.died([await take(source)], blames=True)
        piece = await take(source)
        assert piece.lists_only
        source.died([piece], blames=True)
        for _ in range(MOST_DEATHS - 1):
            source.died([await take(source)], blames=True)
        piece = await take(source)
        with pytest.raises(SourceError, match=r"a\.tar"):
            source.died([piece], blames=True)

    run(body())
