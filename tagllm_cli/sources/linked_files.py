"""Images that a row or line names by a path or a URL."""

from __future__ import annotations

import os
import posixpath
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.read import read_file
from tagllm_cli.sources.storage import Storage

LINKS_AHEAD, LINK_READERS = 64, 16

_Key = TypeVar("_Key")
_Link = TypeVar("_Link")


def read_linked(storage: Storage, shard: str, path: str) -> bytes:
    """Return the bytes of the file at a path from a shard: relative to the shard, else to the root, or absolute.

    Raises ReadFailure.
    """
    if not path or "\0" in path:
        raise ReadFailure("bad_name", "the row holds an empty path, or one that no file can have")
    if "://" in path and not path.startswith("file://"):
        raise ReadFailure("unreachable", "URLs are not read yet")
    path = path.removeprefix("file://")
    failure: ReadFailure | None = None
    for folder in dict.fromkeys([posixpath.dirname(shard), ""]):
        try:
            return _read(storage, posixpath.normpath(posixpath.join(folder, path)))
        except ReadFailure as error:
            failure = failure or error
            if error.kind not in ("vanished", "bad_name"):
                break
    assert failure is not None
    raise failure


def _read(storage: Storage, name: str) -> bytes:
    """Read below the root, and locally also beside it: whoever wrote a path into the dataset decides what is its."""
    if storage.is_local:
        return read_file(os.path.join(storage.root, name))
    if name.startswith(("/", "../")):
        raise ReadFailure("bad_name", "the path leads out of the dataset, which is not on this machine")
    return storage.read(name)


def read_ahead(
    found: Iterator[tuple[_Key, bytes | ReadFailure | _Link]], read: Callable[[_Link], bytes]
) -> Iterator[tuple[_Key, bytes | ReadFailure]]:
    """Yield what was found in its order, links replaced by what `read` returns or raises (ReadFailure).

    Links are read in LINK_READERS threads, at most LINKS_AHEAD before the one that is due.
    """
    waiting: deque[tuple[_Key, bytes | ReadFailure | Future[bytes]]] = deque()
    pool = ThreadPoolExecutor(LINK_READERS)
    try:
        for key, each in found:
            waiting.append((key, each if isinstance(each, bytes | ReadFailure) else pool.submit(read, each)))
            while waiting and (len(waiting) > LINKS_AHEAD or not isinstance(waiting[0][1], Future)):
                yield _resolved(*waiting.popleft())
        while waiting:
            yield _resolved(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _resolved(key: _Key, found: bytes | ReadFailure | Future[bytes]) -> tuple[_Key, bytes | ReadFailure]:
    if not isinstance(found, Future):
        return key, found
    try:
        return key, found.result()
    except ReadFailure as failure:
        return key, failure
