"""Reading ahead: in order, within a budget of bytes, and never a lost image, a blocked loop or a process that hangs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tagllm_cli.pipeline.label import worker
from tagllm_cli.pipeline.label.pending import PendingImage
from tagllm_cli.pipeline.label.read_ahead import ReadAhead
from tagllm_cli.pipeline.label.reads import ReadImage, ShardRead, Work
from tagllm_cli.records import DecodedImage, Image, ImageInfo, Item, Request, Shard, SourceInfo
from tagllm_cli.sources.base import ReadFailure, read_or_failure
from tagllm_cli.sources.decode import decode
from tagllm_cli.sources.folder import Folder
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import Workspace

MEGABYTE = 1 << 20


class Tracked(bytes):
    """Bytes that are counted as long as they are there, but for those of an earlier test, which a thread may hold."""

    test = 0
    lock = threading.Lock()
    held = 0
    peak = 0

    def __new__(cls, data: bytes) -> Tracked:
        self = super().__new__(cls, data)
        self.test = Tracked.test
        with Tracked.lock:
            Tracked.held += len(data)
            Tracked.peak = max(Tracked.peak, Tracked.held)
        return self

    def __del__(self) -> None:
        with Tracked.lock:
            Tracked.held -= len(self) if self.test == Tracked.test else 0


@pytest.fixture(autouse=True)
def nothing_is_held() -> None:
    with Tracked.lock:
        Tracked.test += 1
        Tracked.held = Tracked.peak = 0


class Fake:
    """A source of images of `size` bytes, -1: that cannot be read. `started` are those whose reading began."""

    is_ordered = lists_by_reading = False
    readers = 4
    left_out: Mapping[str, int] = MappingProxyType({})

    def __init__(self, size: int = 10) -> None:
        self._size = size
        self.started: list[str] = []

    def check(self) -> None:
        pass

    def shards(self) -> Iterator[Shard]:
        yield Shard()

    def images(self, shard: Shard) -> Iterator[Image]:
        yield from images_of(shard.name, 10)

    def read(self, image: Image) -> bytes:
        self.started.append(image.id)
        if self._size < 0:
            raise ReadFailure("vanished", "the image is gone")
        return Tracked(bytes(self._size))

    def stream(
        self, shard: Shard, images: Sequence[Image] | None = None
    ) -> Iterator[tuple[Image, bytes | ReadFailure]]:
        for image in self.images(shard) if images is None else images:
            yield image, read_or_failure(self, image)

    def shard_of(self, uri: str) -> str:
        return uri.rpartition("#")[0]

    def locate(self, image: Image) -> str | None:
        return None

    def describe(self) -> SourceInfo:
        return SourceInfo("fake", "/fake")


def images_of(shard: str, count: int) -> list[Image]:
    return [Image(f"{shard}/{number}", f"{shard}#{number}", shard=shard) for number in range(count)]


def pending(image: Image) -> PendingImage:
    return PendingImage(Item(image), (), b"", 1)


def files(count: int) -> list[Work]:
    return [pending(image) for image in images_of("", count)]


def streams(shards: int, each: int) -> list[Work]:
    return [
        ShardRead(Shard(name), [pending(image) for image in images_of(name, each)])
        for name in (f"{number:03}" for number in range(shards))
    ]


async def settled(source: Fake) -> None:
    """Wait until nothing more is read."""
    before = -1
    while before != len(source.started):
        before = len(source.started)
        await asyncio.sleep(0.02)


async def everything(ahead: ReadAhead) -> list[str]:
    ids = []
    try:
        while (read := await ahead.next()) is not None:
            if isinstance(read, ReadImage):
                assert read.pending is None or read.pending.item.image is read.image
                ids.append(read.image.id)
    finally:
        ahead.close()
    return ids


@pytest.mark.parametrize(
    "work", [files(50), streams(10, 5), [*streams(3, 5), *files(20), *streams(2, 3)], streams(3, 0), []]
)
@pytest.mark.parametrize("max_bytes", [1, 5000, MEGABYTE])
def test_images_come_in_order_whatever_the_budget(work: list[Work], max_bytes: int) -> None:
    expected = [
        each.item.image.id
        for some in work
        for each in ([some] if isinstance(some, PendingImage) else some.images if some is not None else [])  # type: ignore[union-attr]
    ]

    async def run() -> list[str]:
        return await asyncio.wait_for(everything(ReadAhead(Fake(), iter(work), max_bytes)), 20)

    assert asyncio.run(run()) == expected


@pytest.mark.parametrize("size", [-1, 0, 10])
@pytest.mark.parametrize("each", [10, 100])
def test_shards_of_images_without_bytes_are_not_read_without_end(size: int, each: int) -> None:
    source = Fake(size)

    async def run() -> int:
        ahead = ReadAhead(source, iter(streams(2000 // each, each)), max_bytes=100_000)
        taken = 0
        while taken < 200:
            taken += isinstance(await ahead.next(), ReadImage)
            await asyncio.sleep(0.001)
        await settled(source)
        ahead.close()
        return len(source.started) - taken

    assert asyncio.run(run()) <= 60


@pytest.mark.parametrize("work", [files(60), streams(6, 10)])
def test_what_is_read_ahead_of_a_slow_engine_stays_within_the_budget(work: list[Work]) -> None:
    source = Fake(MEGABYTE)

    async def run() -> None:
        ahead = ReadAhead(source, iter(work), max_bytes=4 * MEGABYTE)
        for _ in range(60):
            await ahead.next()
            if len(source.started) < 60:
                await settled(source)
        ahead.close()

    asyncio.run(run())
    assert 4 * MEGABYTE <= Tracked.peak <= (4 + 2 * source.readers + 1) * MEGABYTE


def test_an_image_larger_than_the_budget_is_read_alone() -> None:
    source = Fake(3 * MEGABYTE)

    async def run() -> list[str]:
        return await asyncio.wait_for(everything(ReadAhead(source, iter(streams(2, 4)), MEGABYTE)), 20)

    assert len(asyncio.run(run())) == 8
    assert Tracked.peak <= 9 * MEGABYTE  # one that is taken, one that is ready, one that waits


@pytest.mark.parametrize("lost", [1, 2])
def test_a_source_that_loses_an_image_ends_the_run(lost: int) -> None:
    class Losing(Fake):
        def stream(
            self, shard: Shard, images: Sequence[Image] | None = None
        ) -> Iterator[tuple[Image, bytes | ReadFailure]]:
            return super().stream(shard, (images or [])[:-lost])

    async def run() -> None:
        await asyncio.wait_for(everything(ReadAhead(Losing(), iter(streams(2, 4)))), 20)

    with pytest.raises(ValueError, match="shorter"):
        asyncio.run(run())


def test_a_stream_that_waits_for_room_ends_when_reading_is_closed() -> None:
    async def run() -> None:
        source = Fake(MEGABYTE)
        ahead = ReadAhead(source, iter(streams(1, 10)), 1)
        await ahead.next()
        await settled(source)
        ahead.close()

    asyncio.run(run())
    until = time.monotonic() + 10
    while time.monotonic() < until and any(thread.name == "read-ahead" for thread in threading.enumerate()):
        time.sleep(0.01)
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]
    assert Tracked.held == 0


class Slow(RuleEngine):
    """Answers nothing before `full` images are asked about together and the rest has come to a stop."""

    full = 16
    inside = 0
    held = 0

    async def start(self) -> None:
        await super().start()
        self.filled = asyncio.Event()

    async def ask(self, picture: DecodedImage | None, requests: Sequence[Request]) -> Any:
        self.inside += 1
        if self.inside == self.full:
            await asyncio.sleep(0.5)
            self.held = Tracked.held
            self.filled.set()
        await asyncio.wait_for(self.filled.wait(), 20)
        async for pair in super().ask(picture, requests):
            yield pair


def test_files_are_not_held_while_their_images_are_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path, 60)

    def without_file(data: bytes, max_pixels: int) -> tuple[ImageInfo, DecodedImage | None]:
        info, image = decode(bytes(data[: len(data) - MEGABYTE]), max_pixels)
        return info, image

    monkeypatch.setattr(worker, "decode", without_file)
    monkeypatch.setattr(worker, "ReadAhead", lambda source, work: ReadAhead(source, work, 4 * MEGABYTE))
    workspace.engine = engine = Slow(capacity=16 * 4)
    read = Folder.read
    monkeypatch.setattr(Folder, "read", lambda self, image: Tracked(read(self, image) + bytes(MEGABYTE)))
    assert workspace.candidates().rows.ok == 60
    assert 0 < engine.held <= 12.5 * MEGABYTE
