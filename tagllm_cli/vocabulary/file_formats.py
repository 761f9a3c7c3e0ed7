"""Vocabulary files as people have them: our own YAML, JSON and text, and the label lists of other tools.

    YAML, JSON      our own; YOLO's `data.yaml` (`names`); COCO (`categories`); Hugging Face's `id2label`;
                    a mapping of number to name, or of name to number
    .txt, .names    one name a line; also all in one line, or with bullets, numbers, quotes or commas
    .csv, .tsv      a column of names

What is not our own form is read only where nothing else can be meant, and a note says how it was read.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tagllm_cli.errors import VocabularyError
from tagllm_cli.resources import read_text, read_yaml
from tagllm_cli.text import shortened

SUFFIXES = (".yaml", ".yml", ".json", ".txt", ".csv", ".tsv", ".names")

_BULLET = re.compile(r"[-*+\u2022\u2013]\s+(.*)")
_QUOTED = re.compile(r"([\"'])(.*)\1")
_MOST_DIGITS = 6  # of a label's number; Python refuses to convert thousands
_NUMBERED = re.compile(r"(\d{1,6})\s*[.):,;\s]\s*(\S.*)")
_NAME_COLUMNS = ("name", "names", "label", "labels", "label_name", "class", "classes", "class_name", "category",
                 "categories", "display_name", "displayname")  # fmt: skip


def read_content(path: Path) -> tuple[object, list[str]]:
    """Return what a file says in the form of our own YAML, and sentences on how another form was read.

    Raises VocabularyError where the file cannot be read, or where it is not clear what in it are the names.
    """
    suffix = path.suffix.lower()
    if suffix in (".txt", ".names"):
        return _of_lines(path)
    if suffix in (".csv", ".tsv"):
        return _of_columns(path, "\t" if suffix == ".tsv" else "")
    content = _read_json(path) if suffix == ".json" else read_yaml(path)
    if isinstance(content, dict) and "labels" not in content:
        return _of_mapping(content)
    return content, []


def _read_json(path: Path) -> object:
    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
        return found

    try:
        content: object = json.loads(read_text(path), object_pairs_hook=mapping)
    except json.JSONDecodeError as error:
        raise VocabularyError(f"{path}, line {error.lineno}: {error.msg}", "Correct the JSON.") from error
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"{path} is not usable JSON: {error}", "Correct the JSON.") from error
    return content


def _of_mapping(content: dict[Any, Any]) -> tuple[object, list[str]]:
    """Return another tool's label list as ours; the content itself where it is none that is known."""
    if (names := _names_in(content.get("names"))) is not None:
        notes = [f"a YOLO data file: the {len(names)} entries of `names` are the labels"]
        if str(content.get("nc", len(names))) != str(len(names)):
            notes.append(f"`nc` says {content['nc']} classes, and `names` has {len(names)}")
        return {"labels": names}, notes
    categories = content.get("categories")
    if isinstance(categories, list) and categories and all(isinstance(each, dict) for each in categories):
        labels = [{"name": each.get("name"), "parent": _supercategory(each)} for each in categories]
        parents = list(dict.fromkeys(each["parent"] for each in labels if each["parent"]))
        note = f"a COCO file: the {len(labels)} `categories` are the labels, each `supercategory` is a parent"
        return {"labels": labels, "parents": parents}, [note]
    if (names := _names_in(content.get("id2label"))) is not None:
        return {"labels": names}, [f"a model's configuration: the {len(names)} entries of `id2label` are the labels"]
    if (names := _names_in(content)) is not None:
        return {"labels": names}, [f"a mapping of number to name: its {len(names)} names are the labels"]
    if all(map(_is_number, content.values())) and _count_up(numbers := [int(each) for each in content.values()]):
        names = [name for _, name in sorted(zip(numbers, content, strict=True))]
        return {"labels": names}, [f"a mapping of name to number: its {len(names)} names are the labels"]
    return content, []


def _names_in(value: object) -> list[Any] | None:
    """Return a list as it is, a mapping of number to name in the order of the numbers; None for anything else."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and value and all(map(_is_number, value)):
        return [value[key] for key in sorted(value, key=int)]
    return None


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return value.isdecimal() and len(value) <= _MOST_DIGITS
    return isinstance(value, int) and not isinstance(value, bool)


def _count_up(numbers: Sequence[int]) -> bool:
    """Tell whether several numbers are those from 0 or 1 upwards, each once."""
    return (
        len(numbers) > 1
        and min(numbers) in (0, 1)
        and sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers)))
    )


def _supercategory(category: dict[str, Any]) -> str | None:
    parent = category.get("supercategory")
    return parent if isinstance(parent, str) and parent.strip() and parent.lower() != "none" else None


def _of_lines(path: Path) -> tuple[object, list[str]]:
    """Return a name a line; what only decorates every line, or divides a single one, is taken off with a note."""
    stripped = (line.strip() for line in read_text(path).splitlines())
    lines = [line for line in stripped if line and not line.startswith("#")]
    whole = "".join(lines)
    listed = len(lines) > 1 and lines[0].endswith(":") and all(map(_BULLET.fullmatch, lines[1:]))
    if listed or (whole[:1], whole[-1:]) in (("[", "]"), ("{", "}")):
        raise VocabularyError(f"{path} is YAML or JSON, not one name a line", "Rename it to .yaml.")
    if len(lines) == 1 and (names := _divided(lines[0])):
        return names, [f"one line is read as {len(names)} names ({shortened(names, 3)}): better one name a line"]
    removed = []
    if len(lines) > 1 and all(line.endswith((",", ";")) for line in lines[:-1]):
        lines = [line.rstrip(",; ") for line in lines]
        removed.append("commas at the ends")
    for what, pattern in (("bullets", _BULLET), ("quotes", _QUOTED)):
        matches = [pattern.fullmatch(line) for line in lines]
        if lines and all(matches):
            lines = [match[match.re.groups].strip() for match in matches if match]
            removed.append(what)
    numbered = [(int(match[1]), match[2]) for match in map(_NUMBERED.fullmatch, lines) if match]
    numbers = [number for number, _ in numbered]
    if len(numbers) == len(lines) and _count_up(numbers) and numbers == sorted(numbers):
        lines = [name for _, name in numbered]
        removed.append("numbers")
    notes = [f"every line has {' and '.join(removed)}, which are left out: {shortened(lines, 3)}"] if removed else []
    return lines, notes


def _divided(line: str) -> list[str]:
    """Return the names in a line that is divided by commas, semicolons, tabs or bars; none where it is one name."""
    mark = next((mark for mark in "\t;|," if mark in line), None)
    try:
        cells = next(csv.reader([line], delimiter=mark, skipinitialspace=True)) if mark else []
    except csv.Error:  # a cell of more than 128 KiB
        return []
    names = [cell.strip() for cell in cells if cell.strip()]
    return names if len(names) > 1 else []


def _of_columns(path: Path, delimiter: str) -> tuple[object, list[str]]:
    text = read_text(path)
    delimiter = delimiter or max(",;\t", key=text.partition("\n")[0].count)
    try:
        table = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=delimiter)]
    except csv.Error as error:
        raise VocabularyError(f"{path} is not CSV: {error}", "Write one name a line in a .txt file.") from error
    rows = [row for row in table if any(row)]
    if not rows:
        return [], []
    header = [cell.casefold().replace(" ", "_") for cell in rows[0]]
    column = next((header.index(name) for name in _NAME_COLUMNS if name in header), None)
    if column is not None:
        names, where = _column(rows[1:], column), f"the column {rows[0][column]!r}"
    elif max(map(len, rows)) == 1:
        return _column(rows, 0), []
    elif len(rows) == 1:
        names, where = rows[0], "its one line"
    elif (
        max(map(len, rows)) == 2
        and all(_is_number(row[0]) for row in rows)
        and _count_up([int(row[0]) for row in rows])
    ):
        names, where = _column(rows, 1), "the second column"
    else:
        raise VocabularyError(
            f"{path}: it is not clear which column holds the names ({shortened(rows[0], 4)})",
            "Give that column the header `name`, or write one name a line in a .txt file.",
        )
    return names, [f"a CSV file: the {len(names)} labels are {where}"]


def _column(rows: Sequence[Sequence[str]], column: int) -> list[str]:
    return [row[column] for row in rows if len(row) > column and row[column]]
