"""Cells of a sheet: marks that say whether a label is there, and lists of labels that have to be cut."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tagllm_cli.evaluation.truth.base import TableContext, TruthFile
from tagllm_cli.vocabulary.forms import folded

SEPARATORS = ("|", ";", "\n", ",")

# Yes and no as people in other countries write them.
YES_ABROAD = ("ja", "oui", "si", "sí", "sim", "tak", "да", "はい", "是")
NO_ABROAD = ("nein", "non", "não", "nie", "нет", "いいえ", "否")

_MARKS: Mapping[str, bool | None] = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "x", "present", "positive", "pos", *YES_ABROAD), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "absent", "negative", "neg", *NO_ABROAD), False),
    **dict.fromkeys(("", "-1", "?", "nan", "na", "n/a", "null", "none", "uncertain", "unknown", "unsure"), None),
}
_INTEGER = re.compile(r"(-?\d+)\.0*$")

# What a cell holds that names no label, unless the vocabulary has a label of this name. `No Finding` is NIH's.
_NO_LABEL = frozenset(["no finding", "nan", "none", "null"])

_NAME_KEYS = ("name", "label", "category", "category_name", "class", "class_name")
_NUMPY_GAP = re.compile(r"""(?<=['"])\s+(?=['"])""")
_OTHER_CUTS = re.compile(r"[|;,\n\t/&+]")

Cut = Callable[[str], list[str]]


def mark(cell: str) -> bool | None:
    """Return True for present, False for absent, None for not judged (empty, -1, uncertain). Raises KeyError.

    >>> mark("1.0"), mark("no"), mark(" ")
    (True, False, None)
    """
    text = cell.strip().lower()
    if found := _INTEGER.match(text):
        text = found[1]
    return _MARKS[text]


def is_mark(cell: str) -> bool:
    """Return whether `mark` understands a cell."""
    try:
        mark(cell)
    except KeyError:
        return False
    return True


def names_in(value: Any) -> list[str]:
    """Return the label names in a JSON value: texts, lists of them, objects with a name or with lists of choices.

    Raises ValueError for what holds no name where one is needed.
    """
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, (list, tuple, set)):
        return [name for each in value for name in names_in(each)]
    if isinstance(value, dict):
        for key in _NAME_KEYS:
            if isinstance(value.get(key), str):
                return names_in(value[key])
        lists = [inner for key, inner in value.items() if _lists_names(str(key)) and isinstance(inner, (list, str))]
        if lists:
            return names_in(lists)
    if isinstance(value, int) and not isinstance(value, bool):
        return [str(value)]
    raise ValueError(f"{json.dumps(value, ensure_ascii=False, default=str)} holds no label name")


def _lists_names(key: str) -> bool:
    # Label Studio: choices, rectanglelabels, polygonlabels, ...; Hugging Face: objects with categories.
    return key in ("choices", "taxonomy", "categories", "category", "names", "classes") or key.endswith("labels")


def list_in(cell: str) -> list[str] | None:
    """Return the labels of a cell that is a list or object in JSON, Python or as NumPy prints it; None for other text.

    >>> list_in('["cat", "dog"]'), list_in("['cat' 'hot dog']"), list_in('{"choices": ["cat"]}'), list_in("cat, dog")
    (['cat', 'dog'], ['cat', 'hot dog'], ['cat'], None)
    """
    if cell[:1] not in ("[", "{", "("):
        return None
    for parse in (json.loads, lambda text: ast.literal_eval(_NUMPY_GAP.sub(", ", text))):
        try:
            return names_in(parse(cell))
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    return None


def choose_cut(file: TruthFile, cells: Collection[str], column: str, *, several: bool, spaces: bool = False) -> Cut:
    """Return how the cells of a label column are cut into labels, judged by all of its distinct cells.

    `--separator` decides. Without it a cell that the vocabulary has as a label stays whole; the others are cut at the
    separator that yields most labels of the vocabulary. `several` says that the column's name promises lists: then
    they are cut also where the vocabulary knows none of the parts. `spaces` allows a cut at spaces, where every part of
    every cell is a label. Raises UsageError for a cell that could be cut in two ways or holds labels uncut.
    """
    table, separator = file.table, file.options.separator
    if separator is not None:
        divided = {"\\t": "\t", "\\n": "\n", "space": " ", "tab": "\t"}.get(separator, separator)
        return lambda cell: _without_empty(cell.split(divided), table)
    plain = [cell for cell in cells if cell and list_in(cell) is None and not (table and table.knows(cell))]
    if table is None:
        found = next((mark for mark in SEPARATORS if any(mark in cell for cell in plain)), None) if several else None
    else:
        found = _best_separator(table, plain, several) or (" " if spaces and _cut_at_spaces(table, plain) else None)
        _refuse_doubtful(file, table, plain, found, column, several=several, spaces=spaces)
    whole = frozenset(cell for cell in cells if table and table.knows(cell))

    def cut(cell: str) -> list[str]:
        listed = list_in(cell)
        if listed is None:
            listed = [cell] if found is None or cell in whole else cell.split(found)
        return _without_empty(listed, table)

    return cut


def _without_empty(names: Sequence[str], table: TableContext | None) -> list[str]:
    stripped = [name.strip() for name in names]
    return [
        name
        for name in stripped
        if name and (name.lower() not in _NO_LABEL or (table is not None and table.knows(name)))
    ]


def _known(table: TableContext, parts: Sequence[str]) -> int:
    return sum(table.knows(part.strip()) for part in parts)


def _best_separator(table: TableContext, plain: Sequence[str], several: bool) -> str | None:
    known = {mark: sum(_known(table, cell.split(mark)) for cell in plain if mark in cell) for mark in SEPARATORS}
    best = max(SEPARATORS, key=lambda mark: known[mark])
    if known[best]:
        return best
    return next((mark for mark in SEPARATORS if any(mark in cell for cell in plain)), None) if several else None


def _cut_at_spaces(table: TableContext, plain: Sequence[str]) -> bool:
    spaced = [cell.split() for cell in plain]
    return any(len(parts) > 1 for parts in spaced) and all(_known(table, parts) == len(parts) for parts in spaced)


def _refuse_doubtful(
    file: TruthFile,
    table: TableContext,
    plain: Sequence[str],
    found: str | None,
    column: str,
    *,
    several: bool,
    spaces: bool,
) -> None:
    """Raise UsageError for the first cell whose cut is a guess: labels of the vocabulary would be lost or invented."""
    held = [folded(name) for name in table.vocabulary.names if found and found in name]
    for cell in plain:
        parts = [part.strip() for part in (cell.split(found) if found else [cell])]
        uncut = [part for part in parts if not table.knows(part)]
        inner = any(_known(table, pieces) for part in uncut for pieces in [_OTHER_CUTS.split(part)] if len(pieces) > 1)
        words = cell.split()
        spaced = spaces and found is None and len(words) > 1 and _known(table, words) == len(words)
        # One label per line: a name with a comma in it, of which only a part is a label, may be a label of its own.
        partial = not several and len(parts) > 1 and bool(uncut)
        listed = cell.startswith("[") and cell.endswith("]")
        if inner or partial or listed or spaced or any(name in folded(cell) for name in held):
            hint = "Say with --separator what divides the labels, or write the cells as JSON lists."
            raise file.error(f"it is not clear how {cell!r} in column {column!r} is cut into labels", hint)
