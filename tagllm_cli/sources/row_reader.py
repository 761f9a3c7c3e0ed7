"""Single rows of a file, cheap where they are asked for one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.parquet_columns import Columns, column
from tagllm_cli.sources.row_files import Piece, RowFile
from tagllm_cli.sources.row_ids import own_names


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
        path = self._paths[place].as_py() if self._paths is not None and data is None else None
        return Row(own, data, path)

    def close(self) -> None:
        """Close the file."""
        self._pieces, self._piece = iter(()), None
        self._file.close()

    def _piece_of(self, number: int) -> Piece | None:
        group = self._file.group_of(number)
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
                return None
        self._piece = piece
        if not isinstance(piece.batch, ReadFailure):
            name = self._columns.name
            self._own = own_names(column(piece.batch, name)).to_pylist() if name else None
            self._data = column(piece.batch, self._columns.image) if self._columns.image else None
            self._paths = column(piece.batch, self._columns.path) if self._columns.path else None
        return piece
