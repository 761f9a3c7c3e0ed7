"""Files and folders put in place by one rename: tables, concept cards, scenes, exports.

Pattern: the new content is written into a private folder (mode 0700, a name that cannot be guessed) beside the target,
synced to disk, and renamed over the target; then the target's folder is synced. A reader, and a process that is killed,
find the old content or the whole new one. A symbolic link stays, and what it points to is replaced.

Trade-off: twice the space while writing, a new inode (hard links keep the old content), and permission to write in the
target's folder. A killed process leaves its private folder behind; the next write of the same target removes it.

Scope: one writer at a time per target, on one file system. An existing folder cannot be replaced by one rename: it is
moved aside first, so for a moment there is none. SQLite files have their own journal (`store.sqlite`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tagllm_cli.errors import TableError, UsageError

# What SQLite's log takes before it is written into the file for the first time.
LEAST_ROOM = 4 << 20

PRIVATE = ".tagllm-"  # begins the names of folders in which files are written

# `Path` makes one slash of two: `s3://bucket/key` arrives as `s3:/bucket/key`.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


def check_writable_path(path: Path, kind: type[UsageError] = UsageError, *, may_be_folder: bool = False) -> None:
    """Raise an error of this `kind` for an output path that can never be written. Creates nothing.

    Refused: URLs, an existing folder (unless `may_be_folder`), names that end in `.evidence`, a path through a file,
    and a new file in a folder that takes none.
    """
    if (url := _URL.fullmatch(str(path))) and not os.path.lexists(f"{url[1]}:"):
        raise kind(
            f"{url[1]}://{url[2]} is a URL, and outputs are written to local disks",
            "Give a local path, and copy the file there when it is finished.",
        )
    if path.suffix == ".evidence":
        raise kind(f"{path} is the name of an evidence file, which a table keeps beside it", "Choose another ending.")
    try:
        if path.is_dir() and not may_be_folder:
            raise kind(f"{path} is a folder", "Name a file.")
        if os.path.lexists(path):
            return
        above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        if not above.is_dir():
            raise kind(f"cannot write below {above}: it is not a folder", "Choose another place.")
        if not os.access(above, os.W_OK | os.X_OK):
            raise kind(f"cannot write {path}: the folder {above} takes no new files", "Choose another place.")
        path.stat()
    except FileNotFoundError:
        return
    except OSError as error:  # a name that is too long, links in a circle
        raise kind(f"cannot write {path}: {error.strerror}", "Choose another place.") from error


def check_free_space(folder: Path) -> None:
    """Raise TableError where a folder has less than LEAST_ROOM bytes free, or is not writable. Leaves no file."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(LEAST_ROOM))
    except OSError as error:
        raise TableError(
            f"{folder} has less than {LEAST_ROOM >> 20} MiB of free space: {error.strerror}",
            "Free some space; nothing was asked.",
        ) from error


def file_state(path: Path) -> list[int] | None:
    """Return what tells one state of a file from another (size, mtime in ns), None where there is no file."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [found.st_size, found.st_mtime_ns] if stat.S_ISREG(found.st_mode) else None


def starts_with(signature: bytes) -> Callable[[Path], bool]:
    """Return a test for `replacing`: is this a file that starts with `signature`?"""

    def is_ours(path: Path) -> bool:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(signature)) == signature

    return is_ours


def check_replaceable(path: Path, is_ours: Callable[[Path], bool], kind: type[UsageError] = UsageError) -> None:
    """Raise an error of this `kind` unless nothing is at `path`, it is empty, or it passes the test `is_ours`."""
    target = Path(os.path.realpath(path))
    if os.path.lexists(target) and not _is_empty(target) and not is_ours(target):
        raise kind(f"{path} holds something else, and is left as it is", "Move it away, or name another place.")


@contextlib.contextmanager
def replacing(
    path: Path, kind: type[UsageError] = UsageError, *, is_ours: Callable[[Path], bool] | None = None
) -> Iterator[Path]:
    """Yield the path to write a new file or folder to; at the end of the block it becomes `path`.

    An exception in the block leaves `path` as it was; an OSError is raised as an error of this `kind`. With `is_ours`,
    what is at `path` must be nothing, empty, or pass that test; otherwise UsageError, before anything is written.

        with replacing(Path("labels.csv"), is_ours=starts_with(b"image_id,")) as new:
            new.write_text("image_id,labels\\n")
    """
    target = Path(os.path.realpath(path))
    try:
        if is_ours:
            check_replaceable(path, is_ours, kind)
        target.parent.mkdir(parents=True, exist_ok=True)
        with private_folder(target) as folder:
            new = folder / "new"
            yield new
            _sync(new)
            _put(new, target, aside=folder / "old")
            _sync_entry(target.parent)
    except OSError as error:
        hint = "Free some space, or choose another place."
        raise kind(f"cannot write {path}: {error.strerror or error}", hint) from error


def _put(new: Path, target: Path, aside: Path) -> None:
    if target.is_file():
        new.chmod(stat.S_IMODE(target.stat().st_mode))
    if not target.is_dir():
        os.replace(new, target)
        return
    target.rename(aside)
    try:
        new.rename(target)
    except OSError:
        aside.rename(target)
        raise


@contextlib.contextmanager
def private_folder(target: Path) -> Iterator[Path]:
    """Make a folder beside `target`, locked while it is in use, and remove those that killed processes left."""
    prefix = f"{PRIVATE}{hashlib.blake2b(os.fsencode(target.name), digest_size=6).hexdigest()}-"
    for left in target.parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError), _opened(left) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
            shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        with _opened(folder) as descriptor:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_empty(path: Path) -> bool:
    if path.is_dir():
        return not any(path.iterdir())
    return path.is_file() and path.stat().st_size == 0


def _sync(path: Path) -> None:
    for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
        _sync_entry(each)


def _sync_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
