"""Columns of a sheet as codes of their distinct cells: read by Arrow where the file is plain, else line by line.

Arrow reads a million lines a second, but takes quotes more lightly than we do, and says less about what is wrong. What
it cannot read, or might read in another way, is read line by line, and refused there if it must be.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.csv

from tagllm_cli.evaluation.truth.label_sets import Array

if TYPE_CHECKING:
    from tagllm_cli.evaluation.truth.sheet import Sheet


@dataclass(frozen=True, slots=True)
class Coded:
    """One column: `codes` [lines] are positions in `cells`, its distinct cells."""

    codes: Array  # int64
    cells: Sequence[str]


def coded_columns(sheet: Sheet, path: Path) -> list[Coded]:
    """Return every column of a sheet. Raises UsageError where `sheet.lines()` does."""
    return _by_arrow(sheet, path) or _line_by_line(sheet)


def _line_by_line(sheet: Sheet) -> list[Coded]:
    places: list[dict[str, int]] = [{} for _ in sheet.header]
    codes: list[list[int]] = [[] for _ in sheet.header]
    for _, cells in sheet.lines():
        for place, column, cell in zip(places, codes, cells, strict=True):
            column.append(place.setdefault(cell, len(place)))
    return [Coded(np.array(column, np.int64), list(place)) for place, column in zip(places, codes, strict=True)]


def _by_arrow(sheet: Sheet, path: Path) -> list[Coded] | None:
    if not sheet.is_plain or _has_odd_quotes(path, sheet.delimiter):
        return None
    names = [str(number) for number in range(len(sheet.header))]
    kinds = dict.fromkeys(names, pa.dictionary(pa.int32(), pa.string()))
    try:
        table = pyarrow.csv.read_csv(
            path,
            pyarrow.csv.ReadOptions(column_names=names, skip_rows=sheet.lines_above),
            pyarrow.csv.ParseOptions(delimiter=sheet.delimiter, newlines_in_values=True),
            pyarrow.csv.ConvertOptions(column_types=kinds, strings_can_be_null=False),
        )
    except pa.ArrowException:
        return None
    columns = [_cleaned(column.unify_dictionaries(), sheet.clean) for column in table.itercolumns()]
    is_empty = np.ones(table.num_rows, bool)
    for column in columns:
        is_empty &= column.codes == (column.cells.index("") if "" in column.cells else -1)
    return [Coded(column.codes[~is_empty], column.cells) for column in columns] if is_empty.any() else columns


def _cleaned(column: pa.ChunkedArray, clean: Callable[[str], str]) -> Coded:
    """Return a column whose distinct cells are cleaned: two may become one."""
    if not column.num_chunks:
        return Coded(np.empty(0, np.int64), [])
    place: dict[str, int] = {}
    cells = column.chunk(0).dictionary.to_pylist()
    codes = np.array([place.setdefault(clean(cell), len(place)) for cell in cells], np.int64)
    return Coded(codes[np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks])], list(place))


def _has_odd_quotes(path: Path, delimiter: str) -> bool:
    """Return whether a quote is left open, or stands where it neither opens nor closes a cell nor doubles another."""
    if not path.stat().st_size:
        return False
    edge = re.escape(delimiter.encode())
    odd = re.compile(rb'[^"\r\n%b]"[^"\r\n%b]|(?:^|[\r\n%b])""[^"\r\n%b]' % ((edge,) * 4))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return len(re.findall(b'"', data)) % 2 == 1 or odd.search(data) is not None
