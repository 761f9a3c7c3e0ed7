"""Images that a row or line names by a path or a URL."""

from __future__ import annotations

import functools
import itertools
import os
import posixpath
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.read import MAX_FILE_BYTES, is_image_data, named_missing, read_named_file
from tagllm_cli.sources.storage.storage import Storage
from tagllm_cli.sources.storage.web import READERS, fetch

LINKS_AHEAD = 64

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKETS = 64  # whose connections are kept

_Key = TypeVar("_Key")
_Link = TypeVar("_Link")


def read_linked(storage: Storage, shard: str, path: str) -> bytes:
    """Return the bytes at a URL, or of the file at a path: relative to the shard, else to the root, or absolute.

    Slashes of Windows are understood where nothing has the name as written. Raises ReadFailure.
    """
    if not path or "\0" in path:
        raise ReadFailure("bad_name", "the row holds an empty path, or one that no file can have")
    if is_image_data(path):
        raise ReadFailure("bad_name", "the row holds base64 text, not a path or URL; store the images as bytes")
    scheme = found[1].lower() if (found := _SCHEME.match(path)) else ""
    if scheme in ("http", "https"):
        return fetch(path)
    if scheme and scheme != "file":
        return _read_url(path)
    if scheme:
        path = unquote(urlsplit(path).path)
    failure: ReadFailure | None = None
    for folder, name in itertools.product((posixpath.dirname(shard), ""), (path, path.replace("\\", "/"))):
        try:
            return _read(storage, posixpath.normpath(posixpath.join(folder, name)))
        except ReadFailure as error:
            if failure is None or failure.kind == "vanished":
                failure = error
            if error.kind not in ("vanished", "bad_name"):
                break
    assert failure is not None
    raise failure


def _read(storage: Storage, name: str) -> bytes:
    """Read below the root, and locally also beside it: whoever wrote a path into the dataset decides what is its."""
    if storage.is_local:
        return read_named_file(os.path.join(storage.root, name))
    if name.startswith(("/", "../")):
        raise ReadFailure("bad_name", "the path leads out of the dataset, which is not on this machine")
    return _limited(storage, name)


def _read_url(url: str) -> bytes:
    scheme, _, rest = url.partition("://")
    bucket, _, name = rest.partition("/")
    try:
        return _limited(_bucket(f"{scheme}://{bucket}"), name)
    except SourceError as error:  # no package for it
        raise ReadFailure("unreadable", error.message) from error


def _limited(storage: Storage, name: str) -> bytes:
    try:
        data = storage.read(name, 0, MAX_FILE_BYTES + 1)
    except ReadFailure as failure:
        raise named_missing(storage.locate(name), failure) from failure
    if len(data) > MAX_FILE_BYTES:
        raise ReadFailure("too_large", f"more than {MAX_FILE_BYTES} bytes")
    return data


@functools.lru_cache(_BUCKETS)
def _bucket(root: str) -> Storage:
    return Storage(root)


def read_ahead(
    found: Iterator[tuple[_Key, bytes | ReadFailure | _Link]], read: Callable[[_Link], bytes]
) -> Iterator[tuple[_Key, bytes | ReadFailure]]:
    """Yield what was found in its order, links replaced by what `read` returns or raises (ReadFailure).

    Links are read in READERS threads, at most LINKS_AHEAD before the one that is due.
    """
    waiting: deque[tuple[_Key, bytes | ReadFailure | Future[bytes]]] = deque()
    pool = _DaemonPool()
    try:
        for key, each in found:
            if isinstance(each, bytes | ReadFailure):
                waiting.append((key, each))
            else:
                waiting.append((key, pool.submit(functools.partial(read, each))))
            while waiting and (len(waiting) > LINKS_AHEAD or not isinstance(waiting[0][1], Future)):
                yield _resolved(*waiting.popleft())
        while waiting:
            yield _resolved(*waiting.popleft())
    finally:
        for _, left in waiting:
            if isinstance(left, Future):
                left.cancel()
        pool.close()


class _DaemonPool:
    """READERS threads, which unlike those of an executor do not keep a process from ending while no server answers."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[bytes], Callable[[], bytes]] | None] = SimpleQueue()
        self._count = 0

    def submit(self, call: Callable[[], bytes]) -> Future[bytes]:
        """Return what a call will return."""
        future: Future[bytes] = Future()
        self._calls.put((future, call))
        if self._count < READERS:
            self._count += 1
            Thread(target=self._work, name=f"link-{self._count}", daemon=True).start()
        return future

    def close(self) -> None:
        """Let the threads end after what they are reading now."""
        for _ in range(self._count):
            self._calls.put(None)

    def _work(self) -> None:
        while (each := self._calls.get()) is not None:
            future, call = each
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # for who takes the result
                    future.set_exception(error)


def _resolved(key: _Key, found: bytes | ReadFailure | Future[bytes]) -> tuple[_Key, bytes | ReadFailure]:
    if not isinstance(found, Future):
        return key, found
    try:
        return key, found.result()
    except ReadFailure as failure:
        return key, failure
