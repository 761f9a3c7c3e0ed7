"""What rows hold in one column, to be looked up by image, cheap in the order of the rows."""

from __future__ import annotations

import weakref

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.base import STORAGE_KINDS, ReadFailure
from tagllm_cli.sources.parquet.columns import Columns, find_columns
from tagllm_cli.sources.parquet.row_files import open_rows
from tagllm_cli.sources.parquet.row_listing import place_of
from tagllm_cli.sources.parquet.row_reader import RowReader
from tagllm_cli.sources.storage.storage import Storage


class ColumnValues:
    """The values of a column of the files below a root, as text; the file that was asked for last is open."""

    def __init__(self, storage: Storage, name: str, image_column: str) -> None:
        self._storage = storage
        self._name = name
        self._image_column = image_column
        self._readers: dict[str, RowReader | None] = {}  # the file that was asked for last
        weakref.finalize(self, _close, self._readers)

    def of(self, uri: str) -> str | None:
        """Return the value of the row that a uri names, None for null, and where the row is damaged or gone.

        Raises SourceError where its file has no such column, and where the storage fails.
        """
        file, number = place_of(uri)
        if number is None:
            return None
        try:
            if file not in self._readers:
                _close(self._readers)
                self._readers[file] = self._opened(file)
            reader = self._readers[file]
            row = None if reader is None else reader.row(number)
        except ReadFailure as failure:
            raise SourceError(f"{file}: {failure.message}", "Try again when it can be read.") from failure
        return None if row is None or isinstance(row, ReadFailure) else row.own

    def _opened(self, file: str) -> RowReader | None:
        try:
            rows = open_rows(self._storage, file, is_sparse=True)
        except ReadFailure as failure:
            if failure.kind in STORAGE_KINDS:
                raise
            return None
        try:
            found = find_columns(rows.schema, self._image_column, self._name)
        except SourceError as error:
            rows.close()
            hint = (error.hint or "").replace("--id-column", "--group-by")
            raise SourceError(f"{file}: {error.message}", hint) from error
        return RowReader(rows, Columns(None, None, found.id), "")


def _close(readers: dict[str, RowReader | None]) -> None:
    for reader in readers.values():
        if reader is not None:
            reader.close()
    readers.clear()
