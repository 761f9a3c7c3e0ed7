"""Files of a storage as pyarrow reads them, which takes every failure for damage of the file: here it stays known."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.storage.storage import Storage
from tagllm_cli.text import public_text


class _File(Protocol):
    closed: bool

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...
    def close(self) -> None: ...


class ArrowInput:
    """A file of a storage, with the methods that pyarrow calls."""

    def __init__(self, file: BinaryIO | _File) -> None:
        self._file = file
        self._failure: ReadFailure | None = None
        self._size = file.seek(0, io.SEEK_END)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Return bytes of the file; `size` may be anything where the file is damaged."""
        with self._watch():
            return self._file.read(min(size, max(0, self._size - self._file.tell())))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._watch():
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def blame(self, error: Exception, form: str) -> ReadFailure:
        """Return that the file is damaged; raise the failure of the storage where that is the reason."""
        if self._failure is not None:
            raise self._failure from error
        said = "".join(filter(str.isprintable, public_text(error)))[:160]
        if isinstance(error, ReadFailure):
            return error
        return ReadFailure("corrupt_file", f"the {form} file is damaged: {said}")

    @contextlib.contextmanager
    def _watch(self) -> Iterator[None]:
        try:
            yield
        except ReadFailure as failure:
            self._failure = failure
            raise OSError(failure.message) from failure
        except OSError as error:  # of a local disk
            self._failure = ReadFailure("unreadable", error.strerror or type(error).__name__)
            raise


class _Ranges:
    """A file of which exactly what is asked for is read: a few kilobytes here and there."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage = storage
        self._name = name
        self._size = storage.stat(name).size
        self._place = 0
        self.closed = False

    def read(self, size: int = -1, /) -> bytes:
        size = self._size - self._place if size < 0 else min(size, self._size - self._place)
        data = self._storage.read(self._name, self._place, size) if size > 0 else b""
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def close(self) -> None:
        self.closed = True


def open_input(storage: Storage, name: str, *, is_sparse: bool = False) -> ArrowInput:
    """Open a file that can be read from any place; `is_sparse`, little of it will be read.

    Raises ReadFailure: those of `Storage`, or `unreadable` where the server sends files from front to back only.
    """
    is_web = storage.root.startswith(("http://", "https://"))
    if is_sparse and not storage.is_local and not is_web:
        return ArrowInput(_Ranges(storage, name))
    file = storage.open(name)
    if not file.seekable():
        file.close()
        raise ReadFailure("unreadable", "the server sends files from front to back only: download the file")
    return ArrowInput(file)
