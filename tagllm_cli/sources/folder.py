"""A folder of image files, with all the folders below it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tagllm_cli.errors import SourceError
from tagllm_cli.records import Image, SourceInfo
from tagllm_cli.sources.read import ReadFailure, read_file

EXTENSIONS = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"])

# Begins the id of a file whose name is not UTF-8. No path below a root begins like this.
_BAD_NAME = "//"


@dataclass(frozen=True, slots=True)
class _Level:
    """A folder that is being listed: its path below the root ("" or ending in /), its identity, what is left of it."""

    below: str
    inode: tuple[int, int]
    rest: Iterator[os.DirEntry[str]]


@dataclass(frozen=True, slots=True)
class Folder:
    """The image files below `root`; an image's id and uri are its POSIX path below it."""

    root: Path

    @classmethod
    def rooted(cls, root: Path) -> Folder:
        """Return the folder under its absolute path, without looking whether it is there."""
        return cls(Path(os.path.abspath(root)))

    def check(self) -> None:
        """Raise SourceError if the folder cannot be listed or its path cannot be written down."""
        if not _is_utf8(str(self.root)):
            raise SourceError(f"the path {str(self.root)!r} is not UTF-8", "Rename the folder.")
        _list(str(self.root))

    def describe(self) -> SourceInfo:
        """Return what `open_source` reopens this folder with."""
        return SourceInfo("folder", str(self.root))

    def images(self) -> Iterator[Image]:
        """Yield the images in the order of their paths' segments, one folder in memory at a time.

        An image is what has one of EXTENSIONS in any case and is no folder; what is hidden (a leading dot) is left out.
        Links are followed, except to a folder that the link lies in. What cannot be read (a FIFO, a broken link) is
        yielded too. Raises SourceError where a folder cannot be listed: a listing is complete or nothing.
        """
        try:
            top = os.stat(self.root)
        except OSError as error:  # not an empty source: a disk that is not mounted has not lost its images
            message = f"the folder {str(self.root)!r} cannot be listed: {error.strerror}"
            raise SourceError(message, "Bring it back, or say where it is now.") from error
        levels = [_Level("", (top.st_dev, top.st_ino), _list(str(self.root)))]
        while levels:
            level = levels[-1]
            entry = next(level.rest, None)
            if entry is None:
                levels.pop()
            elif not _is_folder(entry):
                if os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                    yield _image(entry, level.below + entry.name)
            elif (inode := _inode(entry)) and all(inode != above.inode for above in levels):
                levels.append(_Level(f"{level.below}{entry.name}/", inode, _list(entry.path)))

    def read(self, image: Image) -> bytes:
        """Return the image's encoded bytes.

        Raises ReadFailure of a kind of `read_file`, or `bad_name` where the file's name is not UTF-8.
        """
        if image.uri.startswith(_BAD_NAME) or "\0" in image.uri:
            raise ReadFailure("bad_name", "the file's name is not UTF-8; rename it")
        return read_file(f"{self.root}/{image.uri}")


def _list(path: str) -> Iterator[os.DirEntry[str]]:
    """Return a folder's visible entries by name; none if it has vanished."""
    try:
        with os.scandir(path) as entries:
            return iter(sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return iter(())
    except OSError as error:
        message = f"the folder {path!r} cannot be listed: {error.strerror}"
        raise SourceError(message, "Allow reading it, or move it out of the source.") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle
        return False


def _inode(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    try:
        status = entry.stat()
    except OSError:  # vanished since
        return None
    return status.st_dev, status.st_ino


def _image(entry: os.DirEntry[str], path: str) -> Image:
    try:
        status = entry.stat()
    except OSError:  # a broken link: reading it will say so
        version = ""
    else:
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        version = f"{size}-{status.st_mtime_ns}"
    name = path if _is_utf8(path) else _escaped(path)
    return Image(name, name, version)


def _is_utf8(path: str) -> bool:
    """Tell whether the path can be written down: bytes that are not UTF-8 stand as lone surrogates in it."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _escaped(path: str) -> str:
    """Return a printable name, different from that of every other file."""
    return _BAD_NAME + os.fsencode(path).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
