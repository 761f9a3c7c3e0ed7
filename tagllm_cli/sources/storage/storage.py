"""Files below a root, on a local disk or on whatever fsspec opens: list them, open one, read some bytes of one."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import BinaryIO

from tagllm_cli.errors import SourceError
from tagllm_cli.sources import read
from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.storage.local_files import LocalFiles
from tagllm_cli.sources.storage.patterns import expand_braces, literal
from tagllm_cli.sources.storage.remote import RemoteFiles
from tagllm_cli.sources.storage.stored import Files, StoredFile
from tagllm_cli.sources.storage.url_secrets import hide
from tagllm_cli.text import shortened

__all__ = ["Storage", "StoredFile"]


class Storage:
    """A root: an absolute local path, or a URL. Methods may be called from several threads at once.

    `root` is without the secrets of the URL, and so is every message. Nothing is cached: each call sees the storage as
    it is. Options and credentials are those of fsspec's own configuration files and environment. What is transient is
    tried again for about a minute.

    `find` and `check` raise SourceError; `open`, `read`, `stat` and the opened file raise ReadFailure: `vanished`,
    `not_a_file`, `unreadable`, `forbidden`, `unreachable`, `changed` (while it was open), `bad_name` (leads out of the
    root).
    """

    def __init__(self, root: str) -> None:
        self.is_local = "://" not in root
        self._files: Files
        if self.is_local:
            self.root = os.path.abspath(root)
            self._files = LocalFiles(self.root)
        else:
            self.root = hide(root).rstrip("/")
            self._files = RemoteFiles(self.root)

    def check(self, pattern: str = "") -> None:
        """Raise SourceError where the root cannot be listed now.

        Where a pattern begins with a name that is no glob, only this file is looked for: a bucket may allow reading and
        forbid listing.
        """
        first = literal(expand_braces(pattern)[0]) if pattern else None
        if first is None or self.is_local:
            self._files.check()
        elif not self._files.stat_all([first]):
            raise self._missing([first], 1)

    def find(self, endings: Collection[str], pattern: str = "") -> list[StoredFile]:
        """Return the files below the root with one of these endings (lower case: ".tar"), by name as plain strings.

        `pattern` is a glob with braces for the name below the root, as in patterns.py; "": all at any depth. A name
        without wildcards is taken whatever its ending, and SourceError raised where it is missing. Hidden files and
        SYSTEM_FOLDERS are left out. A link to nothing is a file of size -1.
        """
        names = expand_braces(pattern) if pattern else ["**"]
        named = [name for name in map(literal, names) if name is not None]
        globs = [name for name in names if literal(name) is None]
        found = self._files.find(endings, globs) if globs else {}
        if named:
            there = self._files.stat_all(named)
            missing = [name for name in named if name not in there]
            if missing:
                raise self._missing(missing, len(named))
            found |= there
        return [found[name] for name in sorted(found)]

    def stat(self, name: str) -> StoredFile:
        """Return a file as it is now."""
        return self._files.stat(_checked(name))

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading from front to back: buffered, and `seekable` where the storage allows.

        Remote files are read ahead in blocks of BLOCK_BYTES; a connection that breaks is opened again at the same
        place, where the server knows ranges.
        """
        return self._files.open(_checked(name))

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes of a file, to its end without a `length`; fewer where it ends before."""
        return self._files.read(_checked(name), start, length)

    def read_whole(self, name: str) -> bytes:
        """Return all bytes of an image's file. Raises ReadFailure, also `too_large` (more than MAX_FILE_BYTES)."""
        data = self.read(name, 0, read.MAX_FILE_BYTES + 1)
        if len(data) > read.MAX_FILE_BYTES:
            raise ReadFailure("too_large", f"more than {read.MAX_FILE_BYTES} bytes")
        return data

    def locate(self, name: str) -> str:
        """Return the absolute path or URL of a file."""
        return f"{self.root}/{name}"

    def _missing(self, missing: Sequence[str], of: int) -> SourceError:
        if of == 1:
            return SourceError(f"there is no file {self.locate(missing[0])!r}", "Give the path of a file that exists.")
        count = f"{len(missing):,} of {of:,} named files are missing in {self.root}"
        return SourceError(f"{count}: {shortened(missing, 3)}", "Complete them, or name only those that exist.")


def _checked(name: str) -> str:
    if not name or name.startswith("/") or "\0" in name or ".." in name.split("/"):
        raise ReadFailure("bad_name", "the name leads out of the source")
    return name
