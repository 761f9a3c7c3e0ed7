"""Files of a local disk, for storage.py."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import BinaryIO, TypeVar

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.base import ReadFailure
from tagllm_cli.sources.read import failure_of
from tagllm_cli.sources.storage.file_names import SYSTEM_FOLDERS
from tagllm_cli.sources.storage.patterns import match_segments, split_folder
from tagllm_cli.sources.storage.stored import StoredFile

_T = TypeVar("_T")


class LocalFiles:
    """The files below a folder, an absolute path. Links are followed, but not to a folder that they lie in."""

    def __init__(self, root: str) -> None:
        self._root = root

    def check(self) -> None:
        """Raise SourceError where the folder is not there or cannot be listed."""
        if not os.path.isdir(self._root):
            raise SourceError(f"there is no folder {self._root!r}", "Give the path of a folder that exists.")
        _scan(self._root)

    def find(self, endings: Collection[str], globs: Sequence[str]) -> dict[str, StoredFile]:
        """Return the matching files. Raises SourceError where a folder cannot be listed."""
        found: dict[str, StoredFile] = {}
        wanted = tuple(endings)
        for glob in globs:
            folder, rest = split_folder(glob)
            segments = rest.split("/")
            for path in self.walk(folder, None if "**" in segments else len(segments) - 1):
                below = path[len(folder) + 1 :] if folder else path
                if path.lower().endswith(wanted) and match_segments(below.split("/"), segments):
                    found[path] = self._stored(path)
        return found

    def stat_all(self, names: Sequence[str]) -> dict[str, StoredFile]:
        """Return those of the named files that are there."""
        there = [name for name in names if os.path.lexists(self._path(name)) and not os.path.isdir(self._path(name))]
        return {name: self._stored(name) for name in there}

    def stat(self, name: str) -> StoredFile:
        """Return a file as it is now. Raises ReadFailure."""
        stored = _guarded(self._path(name), lambda path: _stored(name, os.stat(path)))
        if stored.size < 0:
            raise ReadFailure("not_a_file", "not a regular file")
        return stored

    def open(self, name: str) -> BinaryIO:
        """Open a regular file. Raises ReadFailure, also while it is read."""
        return _guarded(self._path(name), _open)

    def read(self, name: str, start: int, length: int | None) -> bytes:
        """Return bytes of a regular file. Raises ReadFailure."""

        def read(path: str) -> bytes:
            with _open(path) as file:
                file.seek(start)
                return file.read(-1 if length is None else length)

        return _guarded(self._path(name), read)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _stored(self, name: str) -> StoredFile:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise SourceError(f"the path {self._path(name)!r} is not UTF-8", "Rename the file.") from None
        try:
            status = os.stat(self._path(name))
        except OSError:  # a link to nothing: opening it will say so
            return StoredFile(name, -1, "")
        return _stored(name, status)

    def walk(self, folder: str = "", depth: int | None = None) -> Iterator[str]:
        """Yield the paths below the root of all visible entries below a folder that are no folders, in no order.

        `depth` is how many folders to go down, None: all. SYSTEM_FOLDERS are left out. Raises SourceError where a
        folder may not be listed.
        """
        levels: list[tuple[str, tuple[int, int]]] = []
        todo = [(folder, 0)]
        while todo:
            below, level = todo.pop()
            del levels[level:]
            path = self._path(below) if below else self._root
            try:
                status = os.stat(path)
                entries = _scan(path)
            except OSError:  # vanished since, or never there
                continue
            inode = status.st_dev, status.st_ino
            if any(inode == above for _, above in levels):
                continue
            levels.append((below, inode))
            for entry in entries:
                name = f"{below}/{entry.name}" if below else entry.name
                if entry.name.startswith("."):
                    continue
                if not _is_folder(entry):
                    yield name
                elif (depth is None or level < depth) and entry.name.lower() not in SYSTEM_FOLDERS:
                    todo.append((name, level + 1))


def _scan(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except PermissionError as error:
        message = f"the folder {path!r} cannot be listed: {error.strerror}"
        raise SourceError(message, "Allow reading it, or name the files with a pattern.") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _open(path: str) -> BinaryIO:
    # Without O_NONBLOCK opening a FIFO waits for a writer; on a regular file it changes nothing.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ReadFailure("not_a_file", "not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _stored(name: str, status: os.stat_result) -> StoredFile:
    if not stat.S_ISREG(status.st_mode):
        return StoredFile(name, -1, "")
    return StoredFile(name, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def _guarded(path: str, operation: Callable[[str], _T]) -> _T:
    try:
        return operation(path)
    except OSError as error:
        raise failure_of(path, error) from error
