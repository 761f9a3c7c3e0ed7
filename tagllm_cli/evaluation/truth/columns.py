"""Which column or key holds the image and which the labels: by what the user says, by name, and by its values."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.truth.base import TruthFile
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
    shares = {number: _share_of_labels(file, _values(sample, number)) for number in free if number not in per_label}
    best = max(fitting, key=lambda number: shares[number], default=None)
    if best is not None and (shares[best] or not per_label):
        return best
    other = max(shares, key=lambda number: shares[number], default=None)
    return other if other is not None and not per_label and shares[other] >= _LEAST_SHARE else None


def no_label_column(file: TruthFile, header: Sequence[str]) -> UsageError:
    """Return the error for a header in which no column can be taken for labels."""
    return _no_column(file, header, "holds labels or is called like one", "--label-column", "`label` or `labels`")


def _no_column(file: TruthFile, header: Sequence[str], what: str, option: str, names: str) -> UsageError:
    shown = shortened([column or "(no name)" for column in header], 8) or "none"
    return file.error(
        f"no column {what}: the header has {shown}", f"Name it with {option}, or call it {names}.", line=1
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


def _share_of_labels(file: TruthFile, cells: Sequence[str]) -> float:
    """Return the share of cells that are a label of the vocabulary, or hold one."""
    table = file.table
    if table is None or not cells:
        return 0.0

    def holds_label(cell: str) -> bool:
        listed = list_in(cell)
        cuts = [listed] if listed is not None else [[cell], *(cell.split(mark) for mark in (*SEPARATORS, " "))]
        return any(table.knows(part.strip()) for parts in cuts for part in parts)

    return sum(map(holds_label, cells)) / len(cells)
