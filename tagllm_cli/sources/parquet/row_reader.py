"""Single rows of a file, cheap where they are asked for one after the other."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.parquet.columns import Columns, column
from tagllm_cli.sources.parquet.row_files import Piece, RowFile
from tagllm_cli.sources.parquet.row_ids import own_names

_KEPT_FILES = 2


@dataclass(frozen=True, slots=True)
class Row:
    """What a row holds: its own name, the image's bytes, and a path to it (to be used where there are no bytes)."""

    own: str | None
    data: bytes | None
    path: str | None


class RowReader:
    """An open file and the piece of it that was read last; for one thread at a time."""

    def __init__(self, file: RowFile, columns: Columns, version: str) -> None:
        self.version = version
        self._file = file
        self._columns = columns
        self._pieces: Iterator[Piece] = iter(())
        self._piece: Piece | None = None
        self._end = sys.maxsize  # no row from here on, as far as is known
        self._own: Sequence[str | None] | None = None
        self._data: Sequence[Any] | None = None
        self._paths: Sequence[Any] | None = None

    def row(self, number: int) -> Row | ReadFailure | None:
        """Return a row, why it is damaged, or None where the file has none of this number.

        Raises ReadFailure where the storage fails.
        """
        piece = self._piece_of(number)
        if piece is None:
            return None
        if isinstance(piece.batch, ReadFailure):
            return piece.batch
        place = number - piece.first
        own = self._own[place] if self._own is not None else None
        data = self._data[place].as_py() if self._data is not None else None
        path = _path(self._paths[place]) if self._paths is not None and data is None else None
        return Row(own, data, path)

    def close(self) -> None:
        """Close the file."""
        self._pieces, self._piece = iter(()), None
        self._file.close()

    def _piece_of(self, number: int) -> Piece | None:
        group = self._file.group_of(number) if number < self._end else None
        if group is None:
            return None
        piece = self._piece
        if piece is None or number < piece.first or group != self._file.group_of(piece.first):
            self._pieces, piece = self._file.scan(self._columns.leaves, number), None
        if piece is not None and number < piece.first + piece.length:
            return piece
        self._piece = None  # it may be large: not kept while the next one is decoded
        self._own = self._data = self._paths = piece = None
        while piece is None or number >= piece.first + piece.length:
            piece = next(self._pieces, None)
            if piece is None:
                self._end = number
                return None
        self._piece = piece
        if not isinstance(piece.batch, ReadFailure):
            name = self._columns.name
            self._own = own_names(column(piece.batch, name)).to_pylist() if name else None
            self._data = column(piece.batch, self._columns.image) if self._columns.image else None
            self._paths = column(piece.batch, self._columns.path) if self._columns.path else None
        return piece


class OpenFiles:
    """The files that were read last, kept open; for several threads, each of which has what it takes for itself.

    Args:
        version: returns a file's version as it is now. Raises ReadFailure.
        open_file: opens a file, given its name and version. Raises ReadFailure.
    """

    def __init__(self, version: Callable[[str], str], open_file: Callable[[str, str], RowReader]) -> None:
        self._version = version
        self._open = open_file
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, RowReader] = OrderedDict()
        weakref.finalize(self, _close_all, self._kept)

    def take(self, name: str) -> RowReader:
        """Return a file for reading: the one that was kept where it has not changed. Raises ReadFailure."""
        with self._lock:
            kept = self._kept.pop(name, None)
        try:
            version = self._version(name)
            if kept is not None and version and kept.version == version:
                taken, kept = kept, None
                return taken
            return self._open(name, version)
        finally:
            if kept is not None:
                kept.close()

    def keep(self, name: str, reader: RowReader) -> None:
        """Keep a file for the next one who reads it, and close the one that was kept longest."""
        with self._lock:
            closed = [self._kept.pop(name, None)]
            self._kept[name] = reader
            if len(self._kept) > _KEPT_FILES:
                closed.append(self._kept.popitem(last=False)[1])
        for each in closed:
            if each is not None:
                each.close()


def _close_all(readers: OrderedDict[str, RowReader]) -> None:
    for reader in readers.values():
        reader.close()


def _path(value: Any) -> str | None:
    """Return a path as Python names files: the writer may have called bytes that are not UTF-8 text."""
    buffer = value.as_buffer()
    return None if buffer is None else os.fsdecode(buffer.to_pybytes())
