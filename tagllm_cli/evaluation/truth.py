"""Human labels in, from any format: COCO instances, CSV, or a label table; and how their names meet the table's.

Three CSV layouts, told apart by the header. All need a column for the image (`image`, `image_id`, `file_name`, ...):

- long, `image,label`: one line per label; an empty label says that the image has none;
- lists, `image,labels`: one line per image, labels divided by `|` or `;`, or a JSON list;
- wide, `image,cat,dog,...`: one column per label, holding 0 or 1 (or false and true).
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from tagllm_cli.errors import UsageError
from tagllm_cli.records import Decision
from tagllm_cli.store.table import open_table
from tagllm_cli.vocabulary.forms import folded
from tagllm_cli.vocabulary.model import Label, Vocabulary

# Header words in lower case, by preference. Whatever stands beside a label or list column is not read.
IMAGE_COLUMNS = (
    "image",
    "image_id",
    "imageid",
    "image_name",
    "file_name",
    "filename",
    "file",
    "image_path",
    "path",
    "id",
)
LABEL_COLUMNS = ("label", "label_name", "labelname", "category", "class")
LIST_COLUMNS = ("labels", "tags", "categories", "classes")

_MARKS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


@dataclass(frozen=True, slots=True)
class TruthOptions:
    """How a file of human labels is read: names of its columns, and what separates labels in one cell."""

    image_column: str | None = None
    label_column: str | None = None
    separator: str | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """What people say is in which image.

    `labels` maps the truth's own key of an image (a path, a file name or an id) to the label names present; an image
    without any maps to the empty set. `names` are the label names that the truth knows, in its order. `exhaustive`
    says that `names` holds every label that was judged (COCO, wide CSV, label table); the other CSV layouts only show
    the labels that occur. `unknown` maps a key to labels about which the truth says nothing.
    """

    labels: Mapping[str, frozenset[str]]
    names: tuple[str, ...]
    exhaustive: bool
    unknown: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NameMatch:
    """Label names of the truth as names of the vocabulary, and the names of either side that the other lacks."""

    in_vocabulary: Mapping[str, str]
    not_in_vocabulary: tuple[str, ...]
    not_in_truth: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageMatch:
    """Image ids of the table with the truth's key of the same image, and the images that the other side lacks."""

    keys: Mapping[str, str]
    not_in_table: tuple[str, ...]
    not_in_truth: tuple[str, ...]


def load_truth(path: Path) -> Truth:
    """Read human labels; the file's first bytes decide the format. Raises UsageError for what it cannot use."""
    if not path.is_file():
        raise UsageError(f"there is no truth file at {path}", "Name a COCO instances JSON, a CSV or a label table.")
    try:
        with path.open("rb") as file:
            head = file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()
        if head.startswith(b"PAR1"):
            truth = _from_table(path)
        else:
            truth = _from_coco(path) if head[:1] in (b"{", b"[") else _from_csv(path)
    except OSError as error:
        raise UsageError(f"cannot read the truth {path}: {error.strerror or error}") from error
    if not truth.labels:
        raise UsageError(f"{path} says nothing about any image")
    return truth


def match_names(truth: Truth, vocabulary: Vocabulary) -> NameMatch:
    """Match label names: exactly, else with case, spaces, hyphens and underscores left aside, else by synonym.

    A form that several labels claim matches nothing.
    """
    exact = set(vocabulary.names)
    own, synonyms = _forms(vocabulary, lambda label: (label.name,)), _forms(vocabulary, lambda label: label.synonyms)
    found = {}
    for name in truth.names:
        claims = {name} if name in exact else own.get(folded(name)) or synonyms.get(folded(name), set())
        if len(claims) == 1:
            found[name] = next(iter(claims))
    reached = set(found.values())
    missing = tuple(name for name in vocabulary.names if name not in reached)
    return NameMatch(found, tuple(name for name in truth.names if name not in found), missing)


def match_images(truth: Truth, ids: Collection[str]) -> ImageMatch:
    """Match the table's image ids with the truth's keys, one to one.

    The exact path counts first; else one is the end of the other (`val/1.jpg`, `/data/val/1.jpg`). Only where that
    finds no image at all, file names are compared, then file names without extension and leading zeros (`42`,
    `000042.jpg`). A key or an id that could be matched in two ways is not matched.
    """
    matched = {image: image for image in ids if image in truth.labels}
    open_ids = [image for image in ids if image not in matched]
    open_keys = [key for key in truth.labels if key not in matched]
    matched |= _by_suffix(open_ids, open_keys)
    matched = matched or _by_form(open_ids, open_keys, _file_name) or _by_form(open_ids, open_keys, _stem)
    taken = set(matched.values())
    vanished = tuple(key for key in truth.labels if key not in taken)
    return ImageMatch(matched, vanished, tuple(image for image in ids if image not in matched))


def _from_table(path: Path) -> Truth:
    table = open_table(path)
    if table.info.stage != "labels":
        raise UsageError(f"{path} is a candidate table: it decides nothing", "Name a label table as the truth.")
    labels, unknown = {}, {}
    for row in table.rows():
        if row.labels is not None:
            labels[row.image_id] = frozenset(entry.name for entry in row.labels if entry.decision == Decision.YES)
            if undecided := frozenset(entry.name for entry in row.labels if entry.decision == Decision.UNKNOWN):
                unknown[row.image_id] = undecided
    return Truth(labels, table.info.vocabulary.names, exhaustive=True, unknown=unknown)


def _from_coco(path: Path) -> Truth:
    try:
        with path.open(encoding="utf-8-sig") as file:
            document = json.load(file, object_hook=_without_mask)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    try:
        names = {category["id"]: str(category["name"]) for category in document["categories"]}
        keys = {image["id"]: str(image.get("file_name") or image["id"]) for image in document["images"]}
        pairs = [(annotation["image_id"], annotation["category_id"]) for annotation in document["annotations"]]
    except (KeyError, TypeError, AttributeError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        hint = "It needs `images`, `categories`, and `annotations` with an image_id and a category_id."
        raise UsageError(f"{path} is not a COCO instances file: {what}", hint) from error
    present: dict[str, set[str]] = {key: set() for key in keys.values()}
    for image, category in pairs:
        if image not in keys or category not in names:
            raise UsageError(f"{path} does not list image {image!r} or category {category!r} of an annotation")
        present[keys[image]].add(names[category])
    return Truth(_frozen(present), tuple(dict.fromkeys(names.values())), exhaustive=True)


def _without_mask(record: dict[str, Any]) -> dict[str, Any]:
    # Polygons are nine tenths of a COCO file: dropped as they are parsed, they never pile up in memory.
    record.pop("segmentation", None)
    return record


class _Sheet:
    """The lines of a CSV file, each as the image's key and the cells; every error names the file and the line."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        first = file.readline()
        file.seek(0)
        delimiter = next((mark for mark in ",\t;" if mark in first), ",")
        self._reader = csv.reader(file, delimiter=delimiter, strict=True)
        self.header = [cell.strip() for cell in next(self._reader, [])]
        self._lowered = [cell.lower() for cell in self.header]
        image = self.column(IMAGE_COLUMNS)
        if image is None:
            raise self.error("the header names no column for the image", "Call it `image`, `image_id` or `file_name`.")
        self.image = image

    def column(self, names: Sequence[str]) -> int | None:
        """Return the position of the first of `names` that the header has, in any case."""
        return next((self._lowered.index(name) for name in names if name in self._lowered), None)

    def lines(self) -> Iterator[tuple[str, list[str]]]:
        for cells in self._reader:
            if cells and len(cells) != len(self.header):
                raise self.error(f"{len(cells)} fields where the header has {len(self.header)}")
            if cells and not cells[self.image].strip():
                raise self.error("there is no image")
            if cells:
                yield cells[self.image].strip(), cells

    def error(self, message: str, hint: str = "") -> UsageError:
        return UsageError(f"{self._path}, line {self._reader.line_num}: {message}", hint)


def _from_csv(path: Path) -> Truth:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            sheet = _Sheet(path, file)
            if (column := sheet.column(LABEL_COLUMNS)) is not None:
                return _from_pairs((key, [cells[column].strip()]) for key, cells in sheet.lines())
            if (column := sheet.column(LIST_COLUMNS)) is not None:
                lines = [(key, cells[column].strip()) for key, cells in sheet.lines()]
                separator = "|" if any("|" in cell for _, cell in lines) else ";"
                return _from_pairs((key, _split(cell, separator)) for key, cell in lines)
            return _from_wide(sheet)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is neither JSON, Parquet nor CSV in UTF-8: {error}") from error


def _from_pairs(lines: Iterable[tuple[str, Iterable[str]]]) -> Truth:
    present: defaultdict[str, set[str]] = defaultdict(set)
    names: dict[str, None] = {}
    for key, labels in lines:
        found = [label for label in labels if label]
        present[key].update(found)
        names.update(dict.fromkeys(found))
    return Truth(_frozen(present), tuple(names), exhaustive=False)


def _split(cell: str, separator: str) -> list[str]:
    if cell.startswith("["):
        with suppress(ValueError):  # a label name may start with a bracket, too
            return [str(name) for name in json.loads(cell)]
    return [name.strip() for name in cell.split(separator)]


def _from_wide(sheet: _Sheet) -> Truth:
    # A column without a name is the index that pandas writes.
    columns = [(index, name) for index, name in enumerate(sheet.header) if name and index != sheet.image]
    if not columns:
        raise sheet.error("there is no column of labels", "Use `image,label`, `image,labels`, or one column per label.")
    present: defaultdict[str, set[str]] = defaultdict(set)
    for key, cells in sheet.lines():
        try:
            present[key].update(name for index, name in columns if _MARKS[cells[index].strip().lower()])
        except KeyError as error:
            column = next(name for index, name in columns if cells[index].strip().lower() not in _MARKS)
            hint = "Use 0 and 1, or the layouts `image,label` and `image,labels`."
            raise sheet.error(f"{error} in column {column!r} is neither 0 nor 1", hint) from error
    return Truth(_frozen(present), tuple(dict.fromkeys(name for _, name in columns)), exhaustive=True)


def _frozen(present: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    return {key: frozenset(labels) for key, labels in present.items()}


def _forms(vocabulary: Vocabulary, forms_of: Callable[[Label], Iterable[str]]) -> dict[str, set[str]]:
    claims: defaultdict[str, set[str]] = defaultdict(set)
    for label in vocabulary.labels:
        for form in forms_of(label):
            claims[folded(form)].add(label.name)
    return claims


def _by_suffix(ids: Collection[str], keys: Collection[str]) -> dict[str, str]:
    known_ids, known_keys = set(ids), set(keys)
    pairs = {(image, end) for image in ids for end in _ends(image) if end in known_keys}
    pairs |= {(end, key) for key in keys for end in _ends(key) if end in known_ids}
    return _one_to_one(pairs)


def _ends(path: str) -> Iterator[str]:
    segments = path.replace("\\", "/").split("/")
    return ("/".join(segments[start:]) for start in range(len(segments)))


def _by_form(ids: Collection[str], keys: Collection[str], form: Callable[[str], str]) -> dict[str, str]:
    named: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        named[form(key)].append(key)
    # Two keys of one form are enough to see that the form decides nothing.
    return _one_to_one({(image, key) for image in ids for key in named.get(form(image), ())[:2]})


def _one_to_one(pairs: Collection[tuple[str, str]]) -> dict[str, str]:
    ids, keys = Counter(image for image, _ in pairs), Counter(key for _, key in pairs)
    return {image: key for image, key in pairs if ids[image] == 1 and keys[key] == 1}


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rsplit("/")[-1]


def _stem(path: str) -> str:
    return PurePosixPath(_file_name(path)).stem.lstrip("0")
