"""Images are read ahead of the engine, in source order: several files at once, or one shard after the other.

A shard is read by one thread from front to back, and the next one is opened as soon as that is done, while the images
of the last one are still labeled. What was read and not taken yet is bounded in bytes, so is what is open at a time.
The threads are daemons: storage that does not answer must not keep a process from ending.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from tagllm_cli.pipeline.label.pending import PendingImage
from tagllm_cli.pipeline.label.reads import ReadImage, ShardRead, Work
from tagllm_cli.sources.base import ReadFailure, Source, read_or_failure

MOST_BYTES = 64 << 20
_OVERHEAD = 2 << 10  # bytes that an image takes beside its file: an image of a few bytes, or a failure, is not free
_LOOKS = 1000  # at images that need not be read, before others get their turn


class ReadAhead:
    """Reads what `work` names, and hands it out in that order. `next` may be cancelled and called again."""

    def __init__(self, source: Source, work: Iterator[Work], max_bytes: int = MOST_BYTES) -> None:
        self._source, self._work = source, work
        self._budget = _Budget(max_bytes)
        self._window: deque[_File | _Stream] = deque()  # in the order of `work`
        self._files = 0
        self._threads = _Threads()
        self._has_more = True

    async def next(self) -> ReadImage | ShardRead | None:
        """Return the next image, the shard that has come to its end, or None at the end of all work."""
        while True:
            await self._start_more()
            if not self._window:
                return None
            head = self._window[0]
            read = await head.next()
            if isinstance(read, ReadImage):
                self._budget.give_back(_size(read.data))
            if isinstance(head, _File) or read is None:
                self._window.popleft()
            if isinstance(head, _File):
                self._files -= 1
            elif read is None:
                return head.work
            if read is not None:
                return read

    def close(self) -> None:
        """Stop reading."""
        self._budget.close()
        self._threads.close()

    async def _start_more(self) -> None:
        looks = 0
        while self._has_more and self._has_room():
            looks += 1
            if looks % _LOOKS == 0:
                await asyncio.sleep(0)  # signals and responses must not wait for a long stretch of complete images
                if self._window:
                    return
            try:
                work = next(self._work)
            except StopIteration:
                self._has_more = False
            else:
                if isinstance(work, ShardRead):
                    self._window.append(_Stream(self._source, work, self._budget))
                elif work is not None:
                    self._files += 1
                    self._window.append(_File(self._source, work, self._budget, self._threads.submit))

    def _has_room(self) -> bool:
        """Tell whether another file or shard is to be read: one shard at a time, a few files at a time."""
        if not self._window:
            return True
        last = self._window[-1]
        if self._budget.is_full or (isinstance(last, _Stream) and not last.is_read):
            return False
        return self._files < 2 * self._source.readers


class _Budget:
    """Bytes that were read and not taken yet."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._changed = threading.Condition()
        self.is_closed = False

    @property
    def is_full(self) -> bool:
        return self._held >= self._limit

    def take(self, size: int, *, wait: bool) -> None:
        """Take bytes; `wait` until the budget is not full, or closed."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._held < self._limit or self.is_closed)
            self._held += size

    def give_back(self, size: int) -> None:
        with self._changed:
            self._held -= size
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()


class _File:
    """An image that is read by itself."""

    def __init__(
        self,
        source: Source,
        work: PendingImage,
        budget: _Budget,
        submit: Callable[[Callable[[], Any], int], asyncio.Future[Any]],
    ) -> None:
        def read() -> bytes | ReadFailure:
            data = read_or_failure(source, image)
            budget.take(_size(data), wait=False)
            return data

        image = work.item.image
        self._pending = work
        self._future = submit(read, source.readers)

    async def next(self) -> ReadImage | None:
        data = await asyncio.shield(self._future)
        return ReadImage(self._pending.item.image, data, self._pending)


class _Stream:
    """A shard that is read from front to back by a thread of its own."""

    def __init__(self, source: Source, work: ShardRead, budget: _Budget) -> None:
        self.work = work
        self.is_read = False
        self._source, self._budget = source, budget
        self._loop = asyncio.get_running_loop()
        self._ready: deque[ReadImage | Exception | None] = deque()
        self._arrived = asyncio.Event()
        threading.Thread(target=self._read, name="read-ahead", daemon=True).start()

    async def next(self) -> ReadImage | None:
        """Return the next image, None at the end."""
        while not self._ready:
            self._arrived.clear()
            await self._arrived.wait()
        read = self._ready.popleft()
        if isinstance(read, Exception):
            raise read
        return read

    def _read(self) -> None:
        end: Exception | None = None
        try:
            for read in self._reads():
                self._budget.take(_size(read.data), wait=True)
                if self._budget.is_closed:
                    break
                self._put(read)
        except Exception as error:
            end = error
        self._put(end)

    def _reads(self) -> Iterator[ReadImage]:
        shard, pending = self.work.shard, self.work.images
        if pending is None:
            for position, (image, data) in enumerate(self._source.stream(shard)):
                yield ReadImage(image, data, position=position)
            return
        found = self._source.stream(shard, [each.item.image for each in pending])
        # Strict: a source that yields fewer images than it was asked for ends the run instead of losing some.
        for each, (image, data) in zip(pending, found, strict=True):
            yield ReadImage(image, data, each)

    def _put(self, read: ReadImage | Exception | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._arrive, read)
        except RuntimeError:  # the run has ended meanwhile, and its loop is closed
            self._budget.close()

    def _arrive(self, read: ReadImage | Exception | None) -> None:
        self.is_read = not isinstance(read, ReadImage)
        self._ready.append(read)
        self._arrived.set()


class _Threads:
    """Daemon threads that are started as work comes."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._count = 0

    def submit(self, function: Callable[[], Any], most: int) -> asyncio.Future[Any]:
        """Return the future of a call that is made in a thread; no more than `most` threads are started."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def call() -> None:
            try:
                result, error = function(), None
            except Exception as raised:
                result, error = None, raised
            try:
                loop.call_soon_threadsafe(_resolve, future, result, error)
            except RuntimeError:  # the run has ended meanwhile, and its loop is closed
                return

        if self._count < most:
            self._count += 1
            threading.Thread(target=self._work, name=f"read-{self._count}", daemon=True).start()
        self._calls.put(call)
        return future

    def close(self) -> None:
        for _ in range(self._count):
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _resolve(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _size(data: bytes | ReadFailure) -> int:
    return _OVERHEAD + (len(data) if isinstance(data, bytes) else 0)
