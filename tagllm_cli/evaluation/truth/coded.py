"""Columns of a sheet as codes of their distinct cells: read by Arrow where the file is plain, else line by line.

Arrow reads a million lines a second, but takes quotes more lightly than we do, and says less about what is wrong. What
it cannot read, or might read in another way, is read line by line, and refused there if it must be.
"""

from __future__ import annotations

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

_QUOTE = ord('"')
_CHUNK = 1 << 24  # bytes at a time


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
    data = np.memmap(path, np.uint8, "r")
    is_edge = np.zeros(256, bool)
    is_edge[list(f"\r\n{delimiter}".encode())] = True
    stops = is_edge.copy()
    stops[_QUOTE] = True
    count = 0
    for start in range(0, len(data), _CHUNK):
        place = np.flatnonzero(data[start : start + _CHUNK] == _QUOTE) + start
        count += len(place)
        # Before the first and after the last byte there is an edge.
        before, after, next_but_one = (_at(data, place + step) for step in (-1, 1, 2))
        inside = ~stops[before] & ~stops[after]
        behind_empty = is_edge[before] & (after == _QUOTE) & ~stops[next_but_one]
        if (inside | behind_empty).any():
            return True
    return count % 2 == 1


def _at(data: Array, place: Array) -> Array:
    """Return the bytes at some places, a line break outside of the file."""
    found: Array = np.asarray(data[np.clip(place, 0, len(data) - 1)])
    found[(place < 0) | (place >= len(data))] = ord("\n")
    return found
