"""Text without a header: lines of an image and its labels, or a folder with a text file of labels per image."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from tagllm_cli.evaluation.truth.base import Collector, Dialect, Truth, TruthFile
from tagllm_cli.evaluation.truth.cells import choose_cut
from tagllm_cli.evaluation.truth.sheet import SAMPLE_LINES

# How a line divides: the image, then its labels. A file name may hold spaces, so that spaces come last.
_DIVIDERS = ("\t", ": ", ":", ",", ";", "|", " ")
_LEAST_SHARE = 0.5  # of the lines must begin with an image of the table
_BOX = re.compile(r"\d+( -?\d+(\.\d+)?){4,}\s*$")


def recognizes_lines(file: TruthFile) -> bool:
    """Return whether lines begin with an image of the table, the first line included: there is no header."""
    return file.is_text and _divider(file) is not None


def read_lines(file: TruthFile) -> Truth:
    """Read the lines; several lines may be about one image."""
    divider = _divider(file) or "\t"
    lines = [_divided(line, divider) for _, line in _lines(file)]
    several = len({key for key, _ in lines}) == len(lines)
    cut = choose_cut(file, {cell for _, cell in lines}, "after the image", several=True, spaces=several)
    found = Collector()
    for key, cell in lines:
        found.add(key, cut(cell))
    return found.truth(f"text without a header, image and labels divided by {divider!r}")


def _divider(file: TruthFile) -> str | None:
    if file.table is None:
        return None
    first = [line for _, line in islice(_lines(file), SAMPLE_LINES)]

    def share(divider: str) -> float:
        keys = [_divided(line, divider)[0] for line in first]
        return file.table.image_index.share(keys) if file.table and file.table.image_index.share(keys[:1]) else 0.0

    shares = {divider: share(divider) for divider in _DIVIDERS if all(divider in line for line in first[:1])}
    best = max(shares, key=lambda divider: shares[divider], default=None)
    return best if best is not None and shares[best] >= _LEAST_SHARE else None


def _divided(line: str, divider: str) -> tuple[str, str]:
    key, _, labels = line.partition(divider)
    return key.strip().strip('"'), labels.strip().strip('"')


def _lines(file: TruthFile) -> Iterator[tuple[int, str]]:
    try:
        with file.open_text() as text:
            for number, line in enumerate(text, 1):
                if stripped := line.removeprefix("\ufeff").strip():
                    yield number, stripped
    except UnicodeError as error:
        raise file.not_text(error) from error


def recognizes_folder(file: TruthFile) -> bool:
    """Return whether this is a folder with text files."""
    return file.is_folder and next(file.path.rglob("*.txt"), None) is not None


def read_folder(file: TruthFile) -> Truth:
    """Read a text file per image, named like it. Raises UsageError for boxes with class numbers (YOLO)."""
    texts: dict[str, list[str]] = {}
    for path in sorted(file.path.rglob("*.txt")):
        lines = [line for _, line in _lines(TruthFile(path))]
        if any(_BOX.match(line) for line in lines):
            message = "these are boxes with numbers of classes (YOLO), and not names"
            raise TruthFile(path).error(message, "Convert them to COCO instances JSON, which names its classes.")
        texts[path.relative_to(file.path).with_suffix("").as_posix()] = lines
    cut: Callable[[str], list[str]] = choose_cut(
        file, {line for lines in texts.values() for line in lines}, "of a text file", several=True, spaces=True
    )
    found = Collector()
    for key, lines in texts.items():
        found.add(key)
        for line in lines:
            found.add(key, cut(line))
    return found.truth(f"folder of text files, {len(texts):,} files")


def metadata_file(folder: Path) -> Path | None:
    """Return the file in which a Hugging Face image folder keeps its labels."""
    return next((path for name in ("metadata.jsonl", "metadata.csv") if (path := folder / name).is_file()), None)


LINES_DIALECT = Dialect("text without a header", recognizes_lines, read_lines)
FOLDER_DIALECT = Dialect("folder of text files", recognizes_folder, read_folder)
