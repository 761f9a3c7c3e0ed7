"""Sheets with a column per label: 1 or yes, 0 or no; empty, -1 and `uncertain` are not judged (CheXpert)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tagllm_cli.evaluation.truth.base import Collector, Dialect, Truth, TruthFile, united
from tagllm_cli.evaluation.truth.cells import is_mark, mark
from tagllm_cli.evaluation.truth.columns import image_column, label_column, no_label_column
from tagllm_cli.text import shortened

_MINUS = frozenset(["-1", "-1.0"])


def recognizes(file: TruthFile) -> bool:
    """Return whether no column holds label names, so that each may be a label."""
    if not file.is_text:
        return False
    sheet = file.sheet
    sample = sheet.sample()
    return label_column(file, sheet.header, sample, [image_column(file, sheet.header, sample)]) is None


def read(file: TruthFile) -> Truth:
    """Read the columns that are labels of the vocabulary, or all where there is none to ask."""
    sheet, header = file.sheet, file.sheet.header
    image = image_column(file, header, sheet.sample())
    # A column without a name is the index that pandas writes.
    named = {number: name for number, name in enumerate(header) if name and number != image}
    labels = {number: name for number, name in named.items() if file.table is None or file.table.knows(name)}
    if not labels:
        raise no_label_column(file, header)
    others = [name for number, name in named.items() if number not in labels]
    _check(file, image, labels)
    found = Collector()
    images = sheet.columns[image]
    count = np.bincount(images.codes, minlength=len(images.cells))
    repeats = (count > 1)[images.codes]
    found.add_many(images.cells, (), *(np.empty(0, np.int64) for _ in range(3)))
    for number, name in labels.items():
        column = sheet.columns[number]
        said = [mark(cell) for cell in column.cells]
        marks = np.array([-1 if each is None else int(each) for each in said], np.int8)[column.codes]
        # Absence is worth remembering only where another line may say something else.
        lines = np.flatnonzero((marks != 0) | repeats)
        found.add_many(images.cells, [name], images.codes[lines], np.zeros(len(lines), np.int64), marks[lines])
    return found.truth(
        f"{sheet.name}, a column per label ({header[image]}; {len(labels):,} labels)",
        names=tuple(dict.fromkeys(labels.values())),
        exhaustive=True,
        warnings=united(len(images.codes) - len(images.cells)),
        notes=[f"columns that are no labels of the vocabulary: {shortened(others, 8)}"] if others else [],
    )


def _check(file: TruthFile, image: int, labels: Mapping[int, str]) -> None:
    """Raise UsageError for the first line without an image or with a cell that is no mark, and for -1 without 0."""
    columns = file.sheet.columns
    cells = {cell for number in labels for cell in columns[number].cells}
    if "" in columns[image].cells or not all(map(is_mark, cells)):
        for line, row in file.sheet.lines():
            _check_line(file, line, row, image, labels)
    if cells & _MINUS and not any(mark(cell) is False for cell in cells):
        message = "the columns hold 1 and -1, but never 0: -1 may mean absent or uncertain"
        raise file.error(message, "Write 0 where a label is absent, and nothing where it is uncertain.")


def _check_line(file: TruthFile, line: int, row: Sequence[str], image: int, labels: Mapping[int, str]) -> None:
    if not row[image]:
        raise file.error(f"there is no image in column {file.sheet.header[image]!r}", line=line)
    for number, name in labels.items():
        if not is_mark(row[number]):
            message = f"{row[number]!r} in column {name!r} is neither 0 nor 1"
            hint = "Use 0 and 1, and nothing where nobody looked; or name a column of labels with --label-column."
            raise file.error(message, hint, line=line)


DIALECT = Dialect("sheet with a column per label", recognizes, read)
