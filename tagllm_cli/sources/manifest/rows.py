"""Which images the lines of a manifest name: CSV, TSV, JSON lines or plain text."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.base import SourceOptions
from tagllm_cli.sources.manifest.text import ManifestText
from tagllm_cli.sources.storage.file_names import EXTENSIONS
from tagllm_cli.text import one_line, shortened

# Names of columns that hold an image, in any case.
_OF_IMAGES = ("image", "image_path", "image_file", "image_filename", "image_name", "image_url", "image_uri")
_OF_IMAGES_TOO = ("imagepath", "imageurl", "img", "img_path", "img_url")
_OF_FILES = ("path", "file_path", "filepath", "file", "file_name", "filename", "url", "uri", "src")
IMAGE_COLUMNS = (*_OF_IMAGES, *_OF_IMAGES_TOO, *_OF_FILES)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # Excel's first line
_NO_LIST = "Write one JSON object per line; `jq -c '.[]'` makes such lines of a list."
_JSON_TYPES = {list: "list", dict: "JSON object", bool: "boolean"}
_NAME_IT = "Name the column of the images with --image-column."


@dataclass(frozen=True, slots=True)
class Row:
    """A line: its number from 1, the path or URL of its image ("": none), and its id where there is a column of ids."""

    number: int
    image: str
    id: str | None = None


def read_rows(text: ManifestText, name: str, options: SourceOptions) -> Generator[Row, None, None]:
    """Yield the rows of a manifest called `name` in order; blank lines are none. Raises SourceError."""
    ending = os.path.splitext(name.lower())[1]
    if ending in (".jsonl", ".ndjson"):
        return _json_rows(text, options)
    if ending in (".csv", ".tsv"):
        return _table_rows(text, options, "\t" if ending == ".tsv" else ",")
    if options.image_column or options.id_column:
        raise SourceError(f"{text.path} is plain text, which has no columns", "Save it as .csv, .tsv or .jsonl.")
    return _plain_rows(text)


def is_url(text: str) -> bool:
    """Tell whether an image is named by a URL: `C:\\x.jpg` is none."""
    return _URL.match(text) is not None


def choose_column(columns: Sequence[str], wanted: str, where: str) -> str:
    """Return the column that holds the images: the wanted one, one with a usual name, or the only one.

    Raises SourceError where it is missing or ambiguous.
    """
    if wanted:
        if wanted not in columns:
            message = f"{where} has no column {wanted!r}; there are {shortened([repr(each) for each in columns], 12)}"
            raise SourceError(message, "Name one of them with --image-column or --id-column.")
        return wanted
    usual = [column for name in IMAGE_COLUMNS for column in columns if column.strip().lower() == name]
    if len(columns) == 1 or len(usual) == 1:
        return (usual or list(columns))[0]
    if usual:
        raise SourceError(f"{where} may hold images in the columns {' and '.join(map(repr, usual))}", _NAME_IT)
    raise SourceError(f"{where} has no column that is known to hold images: {shortened(columns, 12)}", _NAME_IT)


def _plain_rows(text: ManifestText) -> Generator[Row, None, None]:
    is_first = True
    for line in text.lines():
        if not line.strip():
            continue
        if is_first:
            _refuse_columns(text, line.strip())
            is_first = False
        yield Row(text.number, line)


def _refuse_columns(text: ManifestText, line: str) -> None:
    """Raise SourceError where a line of plain text holds more than a path: names of files seldom hold tabs."""
    if "\t" in line:
        raise text.error("columns, divided by tabs", "Rename it to end in .tsv, or keep the paths: `cut -f1`.")
    if not _is_image(line.strip('"')) and not is_url(line) and _is_image(line.split()[0]):
        raise text.error(f"text after the path: {one_line(line, 60)}", "Write only paths: `cut -d' ' -f1` keeps them.")


def _table_rows(text: ManifestText, options: SourceOptions, delimiter: str) -> Generator[Row, None, None]:
    lines = text.lines(keep_ends=True)
    first = next(lines, "")
    before = 0
    if declared := _SEPARATOR.fullmatch(first.strip()):
        delimiter, first, before = declared[1], next(lines, ""), 1
    elif delimiter == "," and "," not in first:
        delimiter = next((each for each in ";\t|" if each in first), delimiter)
    records = _records(text, csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True), before)
    start = list(itertools.islice(records, 2))
    header = _header([record for _, record in start], options)
    if header is None:
        place, id_place = _place_without_header(text, start[0][1] if start else []), None
    else:
        start = start[1:]
        where = f"{text.path}, line {1 + before}"
        place = header.index(choose_column(header, options.image_column, where))
        id_place = header.index(choose_column(header, options.id_column, where)) if options.id_column else None
    for number, record in itertools.chain(start, records):
        yield Row(number, _cell(record, place), None if id_place is None else _cell(record, id_place))


def _records(text: ManifestText, reader: Any, before: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the records that are not blank, with the numbers of the lines on which they begin; `before` are read."""
    while True:
        number = before + reader.line_num + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise text.error(f"broken CSV: {error}", "Close its quotes, or double those inside a field.") from error
        if record is None:
            return
        if record:
            yield number, record


def _cell(record: Sequence[str], place: int) -> str:
    return record[place] if place < len(record) else ""


def _header(start: Sequence[Sequence[str]], options: SourceOptions) -> list[str] | None:
    """Return the names of columns, None where the first record is an image already."""
    if not start:
        return None
    first = list(start[0])
    if options.image_column or options.id_column or any(cell.strip().lower() in IMAGE_COLUMNS for cell in first):
        return first
    is_header = not any(map(_is_image, first)) and len(start) > 1 and any(map(_is_image, start[1]))
    return first if is_header else None


def _place_without_header(text: ManifestText, record: Sequence[str]) -> int:
    places = [place for place, cell in enumerate(record) if _is_image(cell)]
    if len(record) <= 1 or len(places) == 1:
        return places[0] if places else 0
    if places:
        what = f"columns {' and '.join(str(place + 1) for place in places)} may be that of the images"
    else:
        what = f"no column of paths or URLs of images: {shortened(record, 12)}"
    hint = "Add a first line with names of columns, or name the column with --image-column."
    raise SourceError(f"{text.path}, line 1: {what}", hint)


def _is_image(cell: str) -> bool:
    return is_url(cell.strip()) or os.path.splitext(cell.strip().lower())[1] in EXTENSIONS


def _json_rows(text: ManifestText, options: SourceOptions) -> Generator[Row, None, None]:
    pick: Callable[[Mapping[str, Any]], Row] | None = None
    for line in text.lines():
        if not line.strip():
            continue
        value = _json(text, line)
        if isinstance(value, str) and not (options.image_column or options.id_column):
            yield Row(text.number, value)
            continue
        if not isinstance(value, dict):
            hint = _NO_LIST if isinstance(value, list) else "Write one object, or one string, per line."
            raise text.error(f"not a JSON object: {one_line(line, 60)}", hint)
        if pick is None:
            pick = _picker(text, value, options)
        yield pick(value)


def _json(text: ManifestText, line: str) -> Any:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        hint = "Write one JSON object per line."
        if text.number == 1 and line.lstrip().startswith(("[", "{")):
            hint = _NO_LIST
        raise text.error(f"broken JSON: {one_line(error, 80)}", hint) from error


def _picker(text: ManifestText, first: Mapping[str, Any], options: SourceOptions) -> Callable[[Mapping[str, Any]], Row]:
    """Return what makes a row of an object, given the first one."""
    where = f"{text.path}, line {text.number}"
    texts = [key for key, value in first.items() if isinstance(value, str | dict)] or list(first)
    column = choose_column(list(first) if options.image_column else texts, options.image_column, where)
    if options.id_column:
        choose_column(list(first), options.id_column, where)

    def pick(value: Mapping[str, Any]) -> Row:
        image = value.get(column)
        if isinstance(image, dict):  # as Hugging Face writes an image
            image = image.get("path")
        found = value.get(options.id_column)
        name = None if not options.id_column else "" if found is None or isinstance(found, dict | list) else str(found)
        if not isinstance(image, str | None):
            what = f"{column!r} is a {_JSON_TYPES.get(type(image), 'number')}, not a path or URL"
            raise text.error(what, "Write one image per line, or name another column with --image-column.")
        return Row(text.number, image or "", name)

    return pick
