"""The text of a manifest, whatever program saved it, line by line with numbers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.storage.remote_errors import advice
from tagllm_cli.sources.storage.storage import Storage

_SAVE = "Save it as UTF-8 text."
# What has the ending of a manifest and is none, by its first bytes.
_NO_TEXT = {
    b"PAR1": ("a Parquet file", "Rename it to end in .parquet."),
    b"\x1f\x8b": ("compressed with gzip", "Unpack it with `gzip -d`."),
    b"PK\x03\x04": ("a zip archive, or a spreadsheet", "Save it as CSV."),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet", "Save it as CSV."),
}
_ENCODINGS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_START = 4096


class ManifestText:
    """A manifest that is being read: `number` is that of the line that came last, from 1; `path` is for messages."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage = storage
        self._name = name
        self.path = storage.locate(name)
        self.number = 0

    def lines(self, keep_ends: bool = False) -> Iterator[str]:
        """Yield the lines, without their ends unless a quoted field may go over several.

        UTF-8 with or without a mark, or UTF-16 with one; ends of Unix, Windows and old Macs. Raises SourceError where
        it cannot be read, is empty, or is no text.
        """
        try:
            with self._storage.open(self._name) as file:
                yield from self._decoded(file, keep_ends)
        except ReadFailure as failure:
            hint = None if self._storage.is_local else advice(self.path, failure)
            raise self._unreadable(failure.message, hint) from failure
        except OSError as error:
            raise self._unreadable(error.strerror or type(error).__name__) from error

    def error(self, what: str, hint: str) -> SourceError:
        """Return an error about the line that came last."""
        return SourceError(f"{self.path}, line {self.number}: {what}", hint)

    def _decoded(self, file: BinaryIO, keep_ends: bool) -> Iterator[str]:
        encoding, start = self._encoding(file)
        text = io.TextIOWrapper(io.BufferedReader(_Prefixed(start, file)), encoding, newline="" if keep_ends else None)
        self.number = 0
        while True:
            self.number += 1
            try:
                line = text.readline()
            except UnicodeDecodeError as error:
                raise self.error(f"not {encoding.removesuffix('-sig').upper()}", _SAVE) from error
            if not line:
                return
            if "\0" in line:
                raise self.error("it holds a NUL byte", _SAVE)
            yield line if keep_ends else line.removesuffix("\n")

    def _encoding(self, file: BinaryIO) -> tuple[str, bytes]:
        start = file.read(_START)
        if not start.strip():
            raise SourceError(f"{self.path} is empty", "Write one path or URL of an image per line.")
        for begin, (what, hint) in _NO_TEXT.items():
            if start.startswith(begin):
                raise SourceError(f"{self.path} is {what}", hint)
        encoding = next((name for mark, name in _ENCODINGS.items() if start.startswith(mark)), "utf-8")
        if encoding == "utf-8" and b"\0" in start:
            raise SourceError(f"{self.path} is no UTF-8 text: it holds NUL bytes", _SAVE)
        return encoding, start

    def _unreadable(self, why: str, hint: str | None = None) -> SourceError:
        message = f"the manifest {self.path} cannot be read: {why}"
        return SourceError(message, hint or "Give the path or URL of a text file.")


class _Prefixed(io.RawIOBase):
    """Bytes that were read already, and then the rest of a file that need not be seekable."""

    def __init__(self, start: bytes, file: BinaryIO) -> None:
        self._start = start
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._start:
            data, self._start = self._start[: len(buffer)], self._start[len(buffer) :]
        else:
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
