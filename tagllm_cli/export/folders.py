"""Exports that are folders: a mark tells an earlier export of a format, with nothing added, from anything else.

The mark is a file that names the format and sums up the names of all files beside it, and what is in those that people
and tools correct. A folder that somebody has put files into, or corrected a file of, is theirs, and is not replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from tagllm_cli.errors import UsageError
from tagllm_cli.records import digest16

MARK = ".tagllm-export.json"
CARD = "README.md"
# What file managers and readers of datasets leave behind.
_BYSTANDERS = frozenset([MARK, ".DS_Store", "Thumbs.db", "desktop.ini"])
_CACHE = ".cache"
_MOST = 1000  # bytes of a mark
_CORRECTED = (".json", ".jsonl", ".xml", ".csv")  # not the thousands of captions, whose record is one of these


def mark_folder(folder: Path, format_: str, *, keeps_card: bool = False) -> None:
    """Mark a folder, when all its files are written, as an export of a format.

    `keeps_card` is for formats that use `put_folder_card`: a `README.md` of somebody is no reason to leave a folder.
    """
    (folder / MARK).write_text(f"{json.dumps(_mark(folder, format_, keeps_card))}\n", encoding="utf-8")


def is_marked(format_: str, *, keeps_card: bool = False) -> Callable[[Path], bool]:
    """Return a test for `replacing`: is this a folder that `mark_folder` marked, with the files that it had then?

    It raises UsageError for one in which somebody corrected a file: what to do is another thing then.
    """

    def is_ours(path: Path) -> bool:
        mark = path / MARK
        if not path.is_dir():
            return False
        if not mark.is_file() or mark.stat().st_size > _MOST:
            return _mark(path, format_, keeps_card)["files"] == 0
        try:
            found = json.loads(mark.read_bytes())
        except ValueError:
            return False
        now = _mark(path, format_, keeps_card)
        content = found.pop("content", now["content"]) if isinstance(found, dict) else ""  # older marks have none
        if found != {key: value for key, value in now.items() if key != "content"}:
            return False
        if content != now["content"]:
            message = f"{path} holds an export that somebody changed, and is left as it is"
            hint = f"Move it away, after `tagllm import TABLE {path}` where labels were corrected in it."
            raise UsageError(message, hint)
        return True

    return is_ours


def put_folder_card(old: Path, new: Path, text: str) -> bool:
    """Write the card of a folder that takes the place of an older one; tell whether somebody's card was kept."""
    from tagllm_cli.store.dataset_card import is_untouched

    keep = old.is_file() and not is_untouched(old)
    new.write_bytes(old.read_bytes() if keep else text.encode("utf-8"))
    return keep


def _mark(folder: Path, format_: str, keeps_card: bool) -> dict[str, str | int]:
    files = total = content = 0
    for above, _, names in os.walk(folder):
        for name in names:
            path = os.path.relpath(os.path.join(above, name), folder)
            if name not in _BYSTANDERS and not name.endswith(_CACHE) and not (keeps_card and path == CARD):
                files += 1
                total += _number(os.fsencode(path))
                if name.endswith(_CORRECTED):
                    content += _number(_digest_of(os.path.join(above, name)) + os.fsencode(path))
    sums = {name: f"{value % (1 << 128):032x}" for name, value in (("names", total), ("content", content))}
    return {"tagllm_export": format_, "files": files, **sums}


def _number(data: bytes) -> int:
    return int.from_bytes(digest16(data), "big")


def _digest_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
