"""A folder of image files, with all the folders below it."""

from __future__ import annotations

import glob
import os
import shlex
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tagllm_cli.errors import SourceError
from tagllm_cli.records import Image, Shard, SourceInfo
from tagllm_cli.sources.base import DEFAULT_OPTIONS, ReadFailure, SourceOptions, read_one_by_one
from tagllm_cli.sources.read import read_file
from tagllm_cli.sources.remote_folder import RemoteFolder
from tagllm_cli.sources.storage.file_names import why_left_out

# Only root may list it, at the top of every ext4 disk; it holds no images.
_ROOT_ONLY = "lost+found"

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
    """The image files below `root`, an absolute path; an image's id and uri are its POSIX path below it.

    The id is the path as the disk has it: neither its case nor its Unicode form is changed.
    """

    root: Path
    options: SourceOptions = DEFAULT_OPTIONS
    left_out: Counter[str] = field(default_factory=Counter, compare=False)
    is_ordered: ClassVar[bool] = False
    lists_by_reading: ClassVar[bool] = False
    readers: ClassVar[int] = min(16, max(2, os.cpu_count() or 1))

    @classmethod
    def at(cls, path: str, options: SourceOptions = DEFAULT_OPTIONS) -> Folder:
        """Return the folder at this path, which is not looked at."""
        return cls(Path(os.path.abspath(path)), options)

    def check(self) -> None:
        """Raise SourceError if the folder cannot be listed or its path cannot be stored as text."""
        if not os.path.lexists(self.root):
            raise SourceError(f"there is no folder {str(self.root)!r}", "Give the path of a folder of images.")
        if not self.root.is_dir():
            raise SourceError(f"{self.root} is not a folder", "Give the path of the folder that holds the images.")
        if not is_utf8(str(self.root)):
            raise SourceError(f"the path {str(self.root)!r} is not UTF-8", "Rename the folder.")
        self._top()

    def describe(self) -> SourceInfo:
        """Return the kind `folder`, the absolute path of the root, and the options that are not the defaults."""
        return SourceInfo("folder", str(self.root), self.options.to_json())

    def shards(self) -> Iterator[Shard]:
        """Yield the one shard without a name, of which no version is known."""
        yield Shard()

    def images(self, shard: Shard) -> Iterator[Image]:
        """Yield the images in the order of their paths' segments, one folder in memory at a time.

        An image is a file with one of EXTENSIONS in any case. Left out are hidden files and folders (a leading dot) and
        what `left_out` counts: other files by ending, SYSTEM_FOLDERS, what the options exclude. Links are followed,
        except to a folder that the link lies in. A FIFO or a broken link is yielded: `read` says what is wrong with it.
        Raises SourceError where a folder cannot be listed.
        """
        counts: Counter[str] = Counter()
        for entry, path in self._files(counts):
            yield _image(entry, path)
        self.left_out.clear()
        self.left_out.update(counts)

    def read(self, image: Image) -> bytes:
        """Return the image's encoded bytes.

        Raises ReadFailure of a kind of `read_file`, or `bad_name` where the name is not UTF-8 or leads out of the root.
        """
        path = self.locate(image)
        if path is None:
            raise ReadFailure("bad_name", "the file's name is not UTF-8, or leads out of the folder; rename it")
        return read_file(path)

    def stream(
        self, shard: Shard, images: Sequence[Image] | None = None
    ) -> Iterator[tuple[Image, bytes | ReadFailure]]:
        """Yield the images with their bytes, one file after the other."""
        return read_one_by_one(self, shard, images)

    def shard_of(self, uri: str) -> str:
        """Return the name of the only shard."""
        return ""

    def locate(self, image: Image) -> str | None:
        """Return the file's absolute path, None where no file below the root can have this uri."""
        return f"{self.root}/{image.uri}" if is_below(image.uri) else None

    def _top(self) -> tuple[tuple[int, int], Iterator[os.DirEntry[str]]]:
        try:
            top = os.stat(self.root)
            return (top.st_dev, top.st_ino), _list(str(self.root))
        except OSError as error:  # not an empty source: a disk that is not mounted has not lost its images
            message = f"the folder {str(self.root)!r} cannot be listed: {error.strerror}"
            raise SourceError(
                message, "Mount it or allow reading it, or name the folder where the images are."
            ) from error

    def _files(self, counts: Counter[str]) -> Iterator[tuple[os.DirEntry[str], str]]:
        """Yield every image with its path below the root; count what is left out on the way."""
        levels = [_Level("", *self._top())]
        while levels:
            level = levels[-1]
            entry = next(level.rest, None)
            if entry is None:
                levels.pop()
                continue
            path, is_folder = level.below + entry.name, _is_folder(entry)
            why = why_left_out(path, is_folder, self.options.exclude)
            if why is not None:
                counts[why] += 1
            elif not is_folder:
                yield entry, path
            elif (inode := _inode(entry)) and all(inode != above.inode for above in levels):
                levels.append(_Level(f"{path}/", inode, self._enter(entry, path, counts)))

    def _enter(self, entry: os.DirEntry[str], path: str, counts: Counter[str]) -> Iterator[os.DirEntry[str]]:
        try:
            return _list(entry.path)
        except (FileNotFoundError, NotADirectoryError):  # vanished since
            return iter(())
        except OSError as error:
            is_root_only = entry.name == _ROOT_ONLY and isinstance(error, PermissionError)
            if not is_root_only and not self.options.skip_unreadable:
                exclude = f"--exclude {shlex.quote(glob.escape(path))} or " if is_utf8(path) else ""
                message = f"the folder {entry.path!r} cannot be listed: {error.strerror}"
                raise SourceError(
                    message, f"Allow reading it, or leave it out with {exclude}--skip-unreadable."
                ) from error
            counts[f"{path if is_utf8(path) else escaped(path)}/ (unreadable)"] += 1
            return iter(())


def open_folder(root: str, options: SourceOptions) -> Folder | RemoteFolder:
    """Return the folder at a path or URL, which is not looked at."""
    return RemoteFolder(root, options) if "://" in root else Folder.at(root, options)


def is_below(uri: str) -> bool:
    """Tell whether a uri is a path below a root; a table from elsewhere may hold any text.

    Links below the root are followed, wherever they lead: whoever lays them decides what belongs to the folder.

    >>> is_below("a/b.jpg"), is_below("a/../../b.jpg"), is_below("/b.jpg")
    (True, False, False)
    """
    return not uri.startswith("/") and "\0" not in uri and ".." not in uri.split("/")


def _list(path: str) -> Iterator[os.DirEntry[str]]:
    """Return a folder's visible entries by name."""
    with os.scandir(path) as entries:
        return iter(sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
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
    name = path if is_utf8(path) else escaped(path)
    return Image(name, name, version)


def is_utf8(path: str) -> bool:
    """Tell whether the path can be encoded: bytes that are not UTF-8 are lone surrogates in it."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def escaped(path: str) -> str:
    """Return a printable name, different from that of every other file."""
    return _BAD_NAME + os.fsencode(path).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
