"""Files below a root, on a local disk or on whatever fsspec opens: list them, open one, read some bytes of one."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import BinaryIO

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.base import ReadFailure


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file: its name below the root, its size in bytes (-1: not known), and its opaque version (size and mtime, an ETag)."""

    name: str
    size: int
    version: str


class Storage:
    """A root: an absolute local path, or a URL without secrets. Methods may be called from several threads at once.

    `find` and `check` raise SourceError; `open`, `read` and `stat` raise ReadFailure (`vanished`, `not_a_file`,
    `unreadable`, `forbidden`, `unreachable`).
    """

    def __init__(self, root: str) -> None:
        self.is_local = "://" not in root
        self.root = os.path.abspath(root) if self.is_local else root.rstrip("/")

    def check(self) -> None:
        """Raise SourceError where the root cannot be listed now."""
        if self.is_local and not os.path.isdir(self.root):
            raise SourceError(f"there is no folder {self.root!r}", "Give the path of a folder.")

    def find(self, endings: Collection[str], pattern: str = "") -> list[StoredFile]:
        """Return the files below the root with one of these endings (lower case: ".tar"), by name as plain strings.

        `pattern` is a glob with braces for the name below the root; "": all. Hidden files are left out.
        """
        raise NotImplementedError

    def stat(self, name: str) -> StoredFile:
        """Return a file as it is now."""
        raise NotImplementedError

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading from front to back: buffered, and `seekable` where the storage allows."""
        raise NotImplementedError

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes of a file, to its end without a `length`."""
        raise NotImplementedError

    def locate(self, name: str) -> str:
        """Return the absolute path or URL of a file."""
        return f"{self.root}/{name}"
