"""What rows hold in one column, to be looked up by image, cheap in the order of the rows."""

from __future__ import annotations

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.base import ReadFailure
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
        self._open = ""
        self._reader: RowReader | None = None

    def of(self, uri: str) -> str | None:
        """Return the value of the row that a uri names, None for null and where the row cannot be read.

        Raises SourceError where its file has no such column.
        """
        file, number = place_of(uri)
        if number is None:
            return None
        if file != self._open:
            self._close()
            self._open, self._reader = file, self._opened(file)
        row = None if self._reader is None else self._reader.row(number)
        return None if row is None or isinstance(row, ReadFailure) else row.own

    def _opened(self, file: str) -> RowReader | None:
        try:
            rows = open_rows(self._storage, file, is_sparse=True)
        except ReadFailure:
            return None
        try:
            found = find_columns(rows.schema, self._image_column, self._name)
        except SourceError as error:
            rows.close()
            hint = (error.hint or "").replace("--id-column", "--group-by")
            raise SourceError(f"{file}: {error.message}", hint) from error
        return RowReader(rows, Columns(None, None, found.id), "")

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None
