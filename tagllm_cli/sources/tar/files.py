"""The bytes of tar files: local ones by position, remote ones from front to back."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import OrderedDict

from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.read import failure_of
from tagllm_cli.sources.storage.storage import Storage, StoredFile

_CHUNK = 1 << 20  # bytes that are read ahead of headers and small members
_PIECE = 8 << 20  # bytes that are lost at most when a connection breaks
_RETRY_SECONDS = (0.5, 2.0, 8.0)  # before a connection that broke is opened again, without one byte in between


class _Descriptor:
    """An open file that is closed when the last thread has let go of it."""

    __slots__ = ("number",)

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):  # it was never opened
            os.close(self.number)


class LocalReader:
    """Reads at positions of local files, from several threads at once; keeps the last `most` files open."""

    def __init__(self, storage: Storage, most: int = 64) -> None:
        self._storage, self._most = storage, most
        self._open: OrderedDict[StoredFile, _Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, stored: StoredFile, start: int, length: int) -> bytes:
        """Return `length` bytes, fewer where the stored file ends before. Raises ReadFailure."""
        try:
            file = self._descriptor(stored)
            data = os.pread(file.number, length, start)
            while len(data) < length and (more := os.pread(file.number, length - len(data), start + len(data))):
                data += more  # one call returns at most 2 GiB
            return data
        except OSError as error:
            raise failure_of(self._storage.locate(stored.name), error) from error

    def _descriptor(self, stored: StoredFile) -> _Descriptor:
        with self._lock:
            found = self._open.get(stored)
            if found is not None:
                self._open.move_to_end(stored)
                return found
        opened = _Descriptor(self._storage.locate(stored.name))
        if self._storage.stat(stored.name) != stored:
            raise ReadFailure("changed", "the archive changed since it was listed; run again")
        with self._lock:
            self._open[stored] = opened
            while len(self._open) > self._most:
                self._open.popitem(last=False)
        return opened


class ForwardFile:
    """A stored file read from front to back, and opened again where its connection breaks and it is not seekable.

    It can go back to where the last small read began. Raises ReadFailure.
    """

    def __init__(self, storage: Storage, stored: StoredFile) -> None:
        self._storage, self._stored = storage, stored
        self._position = 0
        self._chunk, self._end = b"", 0  # what is held, and where in the file it ends
        self._failed = 0  # connections, since the last byte
        self.failure: ReadFailure | None = None  # after which nothing can be read any more
        self._file = storage.open(stored.name)
        self.is_seekable = self._file.seekable()
        self.size = stored.size
        if self.size < 0 and self.is_seekable:
            self.size = self._file.seek(0, os.SEEK_END)
            self._file.seek(0)

    def __enter__(self) -> ForwardFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, position: int) -> int:
        """Go on at a position; up to it the file is read where there is no other way."""
        if position < self._end - len(self._chunk):
            raise ValueError(f"position {position} has passed")
        if position > self._end and self.is_seekable:
            self._chunk, self._end = b"", self._file.seek(position)
        while position > self._end:
            self._chunk = self._fetch(min(_CHUNK, position - self._end))
            if not self._chunk:
                reason = f"the archive ends too early, at byte {self._end}"
                raise ReadFailure("truncated_file", f"{reason}; copy or download it again")
        self._position = position
        return position

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer only at the end of the file."""
        start = self._position - self._end + len(self._chunk)
        data = self._chunk[start : start + size]
        missing = size - len(data)
        if missing >= _CHUNK:
            data += self._fetch(missing)
            self._chunk = b""
        elif missing and (more := self._fetch(_CHUNK)):  # at the end what was read last is still held
            self._chunk = data + more
            data = self._chunk[:size]
        self._position += len(data)
        return data

    def _fetch(self, size: int) -> bytes:
        """Return the next `size` bytes of the file, fewer only at its end."""
        parts: list[bytes] = []
        while size > 0:
            try:
                part = self._file.read(min(size, _PIECE))
                if not part and self._end < self.size:
                    raise self._hung_up()
            except ReadFailure as failure:
                self._reconnect(failure)
                continue
            if not part:
                break
            self._failed = 0
            self._end += len(part)
            size -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _reconnect(self, failure: ReadFailure) -> None:
        """Open the file again where it broke. Raises a failure where that is of no use, or was not once too often."""
        while True:
            # What is seekable has been tried again by the storage.
            if self.is_seekable or failure.kind != "unreachable" or self._failed == len(_RETRY_SECONDS):
                self.failure = failure
                raise failure
            time.sleep(_RETRY_SECONDS[self._failed])
            self._failed += 1
            self._file.close()
            try:
                self._open_again()
            except ReadFailure as another:
                failure = another
            else:
                return

    def _open_again(self) -> None:
        if self._storage.stat(self._stored.name) != self._stored:
            raise ReadFailure("changed", "the file changed while it was read; run again")
        self._file = self._storage.open(self._stored.name)
        passed = 0
        while passed < self._end:
            part = self._file.read(min(_CHUNK, self._end - passed))
            if not part:
                raise self._hung_up()
            passed += len(part)

    def _hung_up(self) -> ReadFailure:
        return ReadFailure("unreachable", f"the server hung up at byte {self._end} or before")
