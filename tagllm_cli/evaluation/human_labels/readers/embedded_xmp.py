"""Keywords in image files: the XMP packet that Lightroom and others write into JPEG, DNG, WebP, HEIC and others.

A packet is found by its marks, as the XMP specification (part 3, packet scanning) has it, so that no format needs a
decoder; it is looked for in the first and last megabyte of a file. Such a packet does not say who wrote a keyword.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tagllm_cli.evaluation.human_labels.base import YES, CheckedImage, HumanLabels, Reader, Statement
from tagllm_cli.evaluation.truth.base import TruthFile
from tagllm_cli.sources.storage.file_names import EXTENSIONS
from tagllm_cli.store.xmp.elements import XmpError
from tagllm_cli.store.xmp.keywords import Keywords
from tagllm_cli.store.xmp.packet import Packet
from tagllm_cli.text import shortened

_START, _END = b"<x:xmpmeta", b"</x:xmpmeta>"
_SCANNED = 1 << 20
_SAMPLE_IMAGES = 100


def recognizes(file: TruthFile) -> bool:
    """Return whether this is a folder of images, one of the first of which has keywords."""
    if not file.is_folder:
        return False
    return any(keywords.added for path in islice(_images(file.path), _SAMPLE_IMAGES) if (keywords := _keywords(path)))


def read(file: TruthFile) -> HumanLabels:
    """Read the keywords of every image that has some."""
    statements: list[Statement] = []
    checked: list[CheckedImage] = []
    others: Counter[str] = Counter()
    for path in _images(file.path):
        keywords = _keywords(path)
        if keywords is None or not keywords.added:
            continue
        image = path.relative_to(file.path).as_posix()
        when = keywords.when(path.stat().st_mtime_ns // 1000)
        checked.append(CheckedImage(image, when=when))
        for name in keywords.added:
            if file.table is None or file.table.knows(name):
                statements.append(Statement(image, name, YES, when=when))
            else:
                others[name] += 1
    notes = []
    if others:
        names = shortened([name for name, _ in others.most_common()])
        notes.append(f"keywords that are no labels of the table: {others.total():,} ({names})")
    warning = "keywords in images do not say who wrote them: labels that were copied into the images count as people's"
    form = f"XMP keywords in {len(checked):,} images"
    return HumanLabels(statements, checked, form, notes=tuple(notes), warnings=(warning,))


def _images(folder: Path) -> Iterator[Path]:
    for above, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(above, name) for name in sorted(names) if os.path.splitext(name)[1].lower() in EXTENSIONS)


def _keywords(path: Path) -> Keywords | None:
    try:
        with path.open("rb") as file:
            data = file.read(_SCANNED)
            rest = os.fstat(file.fileno()).st_size - len(data)
            if rest > 0 and _START not in data:
                file.seek(max(len(data), len(data) + rest - _SCANNED))
                data = file.read(_SCANNED)
            elif rest > 0 and _END not in data:
                data += file.read(_SCANNED)
        start = data.find(_START)
        end = data.find(_END, start)
        return Keywords.of(Packet(data[start : end + len(_END)])) if start >= 0 and end >= 0 else None
    except (OSError, XmpError):
        return None


READER = Reader("XMP keywords in images", recognizes, read)
