"""Sheets: CSV, TSV and what spreadsheets save, as lines of cells under a header."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from typing import TextIO

from tagllm_cli.evaluation.truth.base import TruthFile
from tagllm_cli.evaluation.truth.coded import Coded, coded_columns
from tagllm_cli.evaluation.truth.columns import IMAGE_COLUMNS, squashed
from tagllm_cli.text import undefused

SAMPLE_LINES = 500
_DELIMITERS = (",", "\t", ";", "|")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*$', re.IGNORECASE)
# What `export --format csv` writes.
_OUR_EXPORT = ["image_id", "labels", "scores"]
_NAMES = {",": "CSV", "\t": "TSV", ";": "CSV with ;", "|": "CSV with |"}


class Sheet:
    """The lines of a sheet. A first line `sep=;` names the delimiter; else the header settles it.

    Every error names the file and the line.
    """

    def __init__(self, file: TruthFile) -> None:
        self._file = file
        with self._opened() as text:
            first = text.readline().removeprefix("\ufeff")
            self._named = _SEPARATOR_LINE.match(first)
            self.delimiter = self._named[1] if self._named else _delimiter(first, file.options.image_column)
        with self._opened() as text:
            self.header = [cell.strip("\ufeff ") for _, cells in islice(self._cells(text), 1) for cell in cells]

    @property
    def name(self) -> str:
        """What kind of sheet this is."""
        return _NAMES.get(self.delimiter, f"CSV with {self.delimiter}")

    @property
    def is_our_export(self) -> bool:
        """Whether `export --format csv` wrote it: its cells hold exactly what they say."""
        return self.header == _OUR_EXPORT

    @property
    def is_plain(self) -> bool:
        """Whether its text is UTF-8 with a header of one line."""
        return self._file.encoding.startswith("utf-8") and not any(set("\r\n") & set(cell) for cell in self.header)

    @property
    def lines_above(self) -> int:
        """How many lines come before the cells: the header, and one that names the delimiter."""
        return 2 if self._named else 1

    @property
    def clean(self) -> Callable[[str], str]:
        """What is done to each cell: it is stripped, but not of our own export."""
        return undefused if self.is_our_export else str.strip

    @cached_property
    def columns(self) -> list[Coded]:
        """All columns, read at once. Raises UsageError where `lines` does."""
        return coded_columns(self, self._file.path)

    def lines(self, *, padded: bool = False) -> Iterator[tuple[int, list[str]]]:
        """Yield line number and cells, stripped but for our own export; lines without any content are left out.

        With `padded`, cells that a line lacks at its end are empty.
        """
        clean, width = self.clean, len(self.header)
        with self._opened() as text:
            numbered = self._cells(text)
            next(numbered, None)
            for number, cells in numbered:
                stripped = [clean(cell) for cell in cells]
                if len(stripped) > width and not any(stripped[width:]):
                    stripped = stripped[:width]  # spreadsheets end lines with empty cells
                if not any(stripped):
                    continue
                if padded:
                    stripped += [""] * (width - len(stripped))
                if len(stripped) != width:
                    hint = f"Put cells that hold {self.delimiter!r} into double quotes."
                    raise self._file.error(f"{len(stripped)} fields where the header has {width}", hint, line=number)
                yield number, stripped

    def sample(self) -> list[list[str]]:
        """Return the first lines' cells."""
        return [cells for _, cells in islice(self.lines(), SAMPLE_LINES)]

    def _cells(self, text: TextIO) -> Iterator[tuple[int, list[str]]]:
        skipped = 1 if self._named else 0
        if self._named:
            text.readline()
        reader = csv.reader(text, delimiter=self.delimiter, strict=True)
        for cells in reader:
            yield reader.line_num + skipped, cells

    @contextmanager
    def _opened(self) -> Iterator[TextIO]:
        try:
            with self._file.open_text() as text:
                yield text
        except (UnicodeError, csv.Error) as error:
            raise self._file.not_text(error) from error


def _delimiter(header: str, image_column: str | None) -> str:
    """Return the delimiter that shows a column for the image, else the one that shows most columns."""
    wanted = {squashed(image_column)} if image_column else set(IMAGE_COLUMNS)

    def quality(mark: str) -> tuple[bool, int]:
        columns = next(csv.reader([header], delimiter=mark), [])
        return any(squashed(column) in wanted for column in columns), len(columns)

    return max(_DELIMITERS, key=quality)
