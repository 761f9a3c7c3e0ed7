"""Exports that are folders: a mark tells an earlier export of a format, with nothing added, from anything else.

The mark is a file that names the format and sums up the names of all files beside it. A folder that somebody has put
files into is theirs, and is not replaced.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from tagllm_cli.records import digest16

MARK = ".tagllm-export.json"
CARD = "README.md"
# What file managers and readers of datasets leave behind.
_BYSTANDERS = frozenset([MARK, CARD, ".DS_Store", "Thumbs.db", "desktop.ini"])
_CACHE = ".cache"


def mark_folder(folder: Path, format_: str) -> None:
    """Mark a folder, when all its files are written, as an export of a format."""
    (folder / MARK).write_text(f"{json.dumps(_mark(folder, format_))}\n", encoding="utf-8")


def is_marked(format_: str) -> Callable[[Path], bool]:
    """Return a test for `replacing`: is this a folder that `mark_folder` marked, with the files that it had then?"""

    def is_ours(path: Path) -> bool:
        mark = path / MARK
        if not path.is_dir() or not mark.is_file() or mark.stat().st_size > 1000:
            return False
        try:
            found = json.loads(mark.read_bytes())
        except ValueError:
            return False
        return bool(found == _mark(path, format_))

    return is_ours


def _mark(folder: Path, format_: str) -> dict[str, str | int]:
    files = total = 0
    for above, _, names in os.walk(folder):
        for name in names:
            if name not in _BYSTANDERS and not name.endswith(_CACHE):
                files += 1
                path = os.path.relpath(os.path.join(above, name), folder)
                total += int.from_bytes(digest16(os.fsencode(path)), "big")
    return {"tagllm_export": format_, "files": files, "names": f"{total % (1 << 128):032x}"}
