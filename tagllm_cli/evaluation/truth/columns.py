"""Which column or key holds the image and which the labels: by what the user says, by name, and by its values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.truth.base import TableContext, TruthFile
from tagllm_cli.evaluation.truth.cells import SEPARATORS, is_mark, list_in
from tagllm_cli.text import shortened

# Squashed names, by preference.
IMAGE_COLUMNS = (
    *("image", "imageid", "imagename", "filename", "file", "imagepath", "path", "imagefile", "imagefilename"),
    *("imageindex", "imageuri", "imageurl", "uri", "url", "filepath", "img", "imgid", "imgname", "imgpath", "imgfile"),
    *("relpath", "relativepath", "photo", "photoid", "picture", "id", "key"),
)
LIST_COLUMNS = frozenset(
    ["labels", "labelnames", "findinglabels", "tags", "categories", "classes", "classnames", "choices", "objects"]
)
LABEL_COLUMNS = (
    *("label", "labelname", "labels", "labelnames", "findinglabels", "tags", "tag", "category", "categoryname"),
    *("categories", "class", "classname", "classes", "classnames", "choice", "choices", "object", "objects"),
)
_GAPS = re.compile(r"[\W_]+")
_LEAST_SHARE = 0.5  # of the values, where the name of a column says nothing


def squashed(name: str) -> str:
    """Return a column's name without case, spaces and punctuation.

    >>> squashed("Image Index"), squashed("file_name")
    ('imageindex', 'filename')
    """
    return _GAPS.sub("", name.casefold())


def image_column(file: TruthFile, header: Sequence[str], sample: Sequence[Sequence[str]]) -> int:
    """Return the position of the column that names the image. Raises UsageError where none does.

    Where the table is known, the values decide between columns whose names fit, and a column that names images of the
    table needs no such name.
    """
    if file.options.image_column is not None:
        return _named(file, header, file.options.image_column, "--image-column")
    fitting = _fitting(header, IMAGE_COLUMNS)
    if file.table is not None:
        shares = {number: file.table.image_index.share(_values(sample, number)) for number in range(len(header))}
        best = max(fitting, key=lambda number: shares[number], default=None)
        if best is not None and shares[best]:
            return best
        other = max(shares, key=lambda number: shares[number], default=None)
        if other is not None and shares[other] >= _LEAST_SHARE:
            return other
    if fitting:
        return fitting[0]
    raise _no_column(file, header, "names the image", "--image-column", "`image` or `file_name`")


def label_column(
    file: TruthFile, header: Sequence[str], sample: Sequence[Sequence[str]], taken: Sequence[int]
) -> int | None:
    """Return the position of the column that holds label names; None where there is none, or a column per label."""
    if file.options.label_column is not None:
        return _named(file, header, file.options.label_column, "--label-column")
    table = file.table
    free = [number for number in range(len(header)) if number not in taken]
    fitting = [number for number in _fitting(header, LABEL_COLUMNS) if number in free]
    if table is None:
        return fitting[0] if fitting else None
    # A label may be called `object` or `tag`, and then its column holds marks.
    per_label = {number for number in free if table.knows(header[number])}
    per_label = {number for number in per_label if all(is_mark(line[number]) for line in sample)}
    fitting = [number for number in fitting if number not in per_label]
    shares = {number: _share_with_labels(table, _values(sample, number)) for number in fitting}
    best = max(fitting, key=lambda number: shares[number], default=None)
    if per_label and not (best is not None and shares[best]):
        return None
    of_labels = [number for number in free if _share_of_labels(table, _values(sample, number)) >= _LEAST_SHARE]
    if len({*of_labels, *([best] if best is not None and shares[best] else [])}) > 1:
        shown = shortened([header[number] for number in of_labels], 4)
        hint = "Name one with --label-column, or join them in one column, divided by |."
        raise file.error(f"several columns hold labels: {shown}", hint)
    return of_labels[0] if of_labels else best


def no_label_column(file: TruthFile, header: Sequence[str]) -> UsageError:
    """Return the error for a header in which no column can be taken for labels."""
    return _no_column(file, header, "holds labels or is called like one", "--label-column", "`label` or `labels`")


def _no_column(file: TruthFile, header: Sequence[str], what: str, option: str, names: str) -> UsageError:
    shown = shortened([column or "(no name)" for column in header], 8) or "none"
    return file.error(
        f"no column {what}; the columns are {shown}", f"Name it with {option}, or call it {names}.", line=1
    )


def _named(file: TruthFile, header: Sequence[str], name: str, option: str) -> int:
    for same in (lambda column: column == name, lambda column: squashed(column) == squashed(name)):
        if found := [number for number, column in enumerate(header) if same(column)]:
            return found[0]
    raise file.error(f"there is no column {name!r}", f"{option} names one of {shortened(header, 8) or 'no column'}.")


def _fitting(header: Sequence[str], names: Sequence[str]) -> list[int]:
    columns = [squashed(column) for column in header]
    return [columns.index(name) for name in names if name in columns]


def _values(sample: Sequence[Sequence[str]], number: int) -> list[str]:
    return [line[number] for line in sample if line[number]]


def _cuts(cell: str) -> Iterator[Sequence[str]]:
    listed = list_in(cell)
    yield listed if listed is not None else [cell]
    for separator in SEPARATORS:
        yield [part.strip() for part in cell.split(separator) if part.strip()]


def _share_of_labels(table: TableContext, cells: Sequence[str]) -> float:
    """Return the share of cells that hold nothing but labels of the vocabulary."""
    return sum(any(parts and all(map(table.knows, parts)) for parts in _cuts(cell)) for cell in cells) / max(
        1, len(cells)
    )


def _share_with_labels(table: TableContext, cells: Sequence[str]) -> float:
    """Return the share of cells that hold a label of the vocabulary."""
    return sum(any(map(table.knows, [*chain(*_cuts(cell)), *cell.split()])) for cell in cells) / max(1, len(cells))
