"""Records of the ground truth, and what a reader of one dialect gets and returns."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.truth.label_sets import LabelPairs, sorted_set
from tagllm_cli.evaluation.truth.names import NameIndex
from tagllm_cli.evaluation.truth.paths import ImageIndex
from tagllm_cli.vocabulary.model import Vocabulary

if TYPE_CHECKING:
    from tagllm_cli.evaluation.truth.sheet import Sheet

_HEAD_BYTES = 4096
_LONGEST_LINE = 1 << 20  # of JSON Lines; a COCO file may be one line of gigabytes
_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True, slots=True)
class Truth:
    """What people say is in which image.

    `labels` maps the truth's own key of an image (a path, a file name or an id) to the label names present; an image
    without any maps to the empty set. `names` are the label names that the truth knows, in its order. `exhaustive`
    says that `names` holds every label that was judged (COCO, wide CSV, label table); other dialects only show the
    labels that occur. `unknown` maps a key to labels about which the truth says nothing. `absent`, where it is given,
    maps a key to the labels that were judged absent: of that image, labels neither present nor absent are not judged
    (Open Images, LVIS); without it they are absent. `dialect` says how the file was read, `notes` what was not read,
    `warnings` what may be wrong with it.
    """

    labels: Mapping[str, frozenset[str]]
    names: tuple[str, ...]
    exhaustive: bool
    unknown: Mapping[str, frozenset[str]] = field(default_factory=dict)
    absent: Mapping[str, frozenset[str]] | None = None
    dialect: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def unjudged(self, key: str) -> frozenset[str]:
        """Return those of `names` that are neither present nor absent in the image `key`."""
        unknown = self.unknown.get(key, frozenset())
        if self.absent is None:
            return unknown
        return unknown | (frozenset(self.names) - self.labels[key] - self.absent.get(key, frozenset()))


@dataclass(frozen=True, slots=True)
class TruthOptions:
    """What the user says about a truth file where its own words do not settle it.

    `human_only`: of a table of ours only what people decided is the truth; everything else is not judged.
    """

    image_column: str | None = None
    label_column: str | None = None
    separator: str | None = None
    human_only: bool = False


@dataclass(frozen=True)
class TableContext:
    """The images and labels that a truth is read for: they settle which column is which, and where a cell is cut."""

    images: Collection[str]
    vocabulary: Vocabulary

    @cached_property
    def image_index(self) -> ImageIndex:
        """The images by name."""
        return ImageIndex(self.images)

    @cached_property
    def name_index(self) -> NameIndex:
        """The labels by name."""
        return NameIndex(self.vocabulary)

    def knows(self, label: str) -> bool:
        """Return whether the vocabulary has a label of this name."""
        return self.name_index.find(label) is not None


@dataclass(frozen=True)
class TruthFile:
    """A truth on disk, file or folder, with what its dialects look at; each part is read once, when it is asked for."""

    path: Path
    options: TruthOptions = TruthOptions()
    table: TableContext | None = None
    plain_encoding: str = "utf-8"

    @cached_property
    def is_folder(self) -> bool:
        """Whether this is a folder of files."""
        return self.path.is_dir()

    @cached_property
    def head(self) -> bytes:
        """The first bytes; none of a folder."""
        if self.is_folder:
            return b""
        with self.path.open("rb") as file:
            return file.read(_HEAD_BYTES)

    @cached_property
    def encoding(self) -> str:
        """The encoding: what the byte order mark says, UTF-16 where every other byte is 0, else `plain_encoding`."""
        for mark, encoding in _BYTE_ORDER_MARKS.items():
            if self.head.startswith(mark):
                return encoding
        even, odd = self.head[0::2].count(0), self.head[1::2].count(0)
        if max(even, odd) > max(len(self.head) // 4, 10 * min(even, odd)):
            return "utf-16-le" if odd > even else "utf-16-be"
        return self.plain_encoding

    @cached_property
    def start(self) -> str:
        """The first characters, without the space before them."""
        return self.head.decode(self.encoding, errors="replace").removeprefix("\ufeff").lstrip()

    @property
    def is_json(self) -> bool:
        """Whether the text begins like JSON or JSON Lines."""
        return self.start[:1] in ("{", "[")

    @property
    def is_text(self) -> bool:
        """Whether this is a file that may be a sheet or a list."""
        return not (self.is_folder or self.is_json or self.start.startswith(("<", "PAR1")))

    def open_text(self) -> TextIO:
        """Open the file as text; line breaks stay as they are."""
        return self.path.open(encoding=self.encoding, newline="")

    @cached_property
    def is_json_lines(self) -> bool:
        """Whether the first of several lines is a JSON object of its own."""
        if not self.start.startswith("{"):
            return False
        with self.open_text() as file:
            lines = (line for line in iter(lambda: file.readline(_LONGEST_LINE), "") if line.strip("\ufeff \t\r\n"))
            first, second = next(lines, ""), next(lines, "")
        try:
            return isinstance(json.loads(first.removeprefix("\ufeff")), dict) and second.lstrip().startswith("{")
        except (ValueError, RecursionError):
            return False

    @cached_property
    def document(self) -> Any:
        """The file as one JSON value, None for JSON Lines and for other text. Raises UsageError for broken JSON."""
        if not self.is_json or self.is_json_lines:
            return None
        try:
            with self.open_text() as file:
                return json.loads(file.read().removeprefix("\ufeff"), object_hook=_without_mask)
        except (ValueError, RecursionError) as error:
            hint = "If it was cut off, export or download it again."
            raise UsageError(f"{self.path} is not JSON: {error}", hint) from error

    def json_lines(self) -> Iterator[tuple[int, Any]]:
        """Yield every line's number and JSON value."""
        number = 0
        try:
            with self.open_text() as file:
                for number, line in enumerate(file, 1):
                    if text := line.strip("\ufeff \t\r\n"):
                        yield number, json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.error(f"not JSON: {error}", line=max(1, number)) from error

    @cached_property
    def sheet(self) -> Sheet:
        """The file as lines of cells under a header."""
        from tagllm_cli.evaluation.truth.sheet import Sheet

        return Sheet(self)

    def error(self, message: str, hint: str = "", *, line: int | None = None) -> UsageError:
        """Return an error that names the file, and the line where there is one."""
        where = f"{self.path}" if line is None else f"{self.path}, line {line}"
        return UsageError(f"{where}: {message}", hint)

    def not_text(self, error: Exception) -> UsageError:
        """Return the error for bytes that no dialect can read."""
        message = f"this is neither JSON, Parquet nor a text in UTF-8 or UTF-16 with cells: {error}"
        return self.error(message, "Save it as CSV in UTF-8: Excel has that as `CSV UTF-8`.")


def _without_mask(record: dict[str, Any]) -> dict[str, Any]:
    # Polygons are nine tenths of a COCO file: dropped as they are parsed, they never pile up in memory.
    record.pop("segmentation", None)
    return record


def united(repeated: int) -> list[str]:
    """Return the warning about images that a file with a record per image has more than once."""
    return [f"images that are there more than once, and whose labels are united: {repeated:,}"] if repeated else []


@dataclass(frozen=True, slots=True)
class Dialect:
    """One form of human labels: whether a file has it, and the truth in it."""

    name: str
    recognizes: Callable[[TruthFile], bool]
    read: Callable[[TruthFile], Truth]


class Collector(LabelPairs):
    """Gathers judgments image by image. What is judged both present and absent counts as not judged."""

    def __contains__(self, key: str) -> bool:
        return key in self.keys

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, key: str, names: Iterable[str] = (), present: bool | None = True) -> None:
        """Record an image, and labels that are in it (True), that are not (False), or that were not judged (None)."""
        super().add(key, names, present)

    def truth(
        self,
        dialect: str,
        *,
        names: Sequence[str] = (),
        exhaustive: bool = False,
        federated: bool = False,
        notes: Iterable[str] = (),
        warnings: Iterable[str] = (),
    ) -> Truth:
        """Return what was gathered; with `federated`, what was not judged absent is not judged."""
        present, absent, unknown = (self.pairs(said) for said in (True, False, None))
        both = np.intersect1d(present, absent, assume_unique=True)
        for pairs in (present, absent) if len(unknown) else ():
            unknown = np.setdiff1d(unknown, pairs, assume_unique=True)
        if len(both):
            unknown = sorted_set(np.concatenate([unknown, both]))
            present, absent = (np.setdiff1d(pairs, both, assume_unique=True) for pairs in (present, absent))
        said = list(warnings)
        if len(both):
            said.append(f"pairs of image and label that are both present and absent, and are not judged: {len(both):,}")
        return Truth(
            self.sets(present, every_image=True),
            tuple(dict.fromkeys([*names, *self.names])),
            exhaustive or federated,
            self.sets(unknown, every_image=False),
            self.sets(absent, every_image=False) if federated else None,
            dialect,
            tuple(notes),
            tuple(said),
        )
