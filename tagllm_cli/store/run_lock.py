"""One `tagllm run` at a time per table: `labels.lock` beside `labels.parquet`, from the first look to the last export.

Each evidence file has a lock of its own (`store.sqlite`), but only while it is open.

The lock is the process's own (POSIX): a dead process leaves none, whatever became of the engine that it started; the
file that it may leave means nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tagllm_cli.errors import TableError
from tagllm_cli.store.sqlite import make_folders, remove_folders


@contextlib.contextmanager
def run_lock(table: Path) -> Iterator[None]:
    """Hold the lock of a table. Raises TableError at once where another process holds it.

    Folders that are made for it are removed at the end if they are still empty. Where the folder takes no new files,
    nothing is written either, and there is no lock.
    """
    path = lock_path(table)
    made = make_folders(path)
    try:
        descriptor = _acquired(path)
    except BlockingIOError as error:
        raise TableError(
            f"another `tagllm run` is working on {table}{_holder(path)}",
            "Wait until it is done, or choose another --out.",
        ) from error
    except OSError as error:
        remove_folders(made)
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise TableError(
                f"cannot lock {path}: {error.strerror}", "Free some space, or choose another --out."
            ) from error
        descriptor = None
    try:
        yield
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)  # before the lock is given up: who waits for it looks for the file again
            os.close(descriptor)
            remove_folders(made)


def lock_path(table: Path) -> Path:
    """Return the path of a table's lock.

    >>> str(lock_path(Path("a/labels.parquet")))
    'a/labels.lock'
    """
    return table.with_name(f"{table.name.removesuffix('.parquet')}.lock")


def _acquired(path: Path) -> int:
    """Return the descriptor of the locked file. Raises BlockingIOError where another process has locked it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()}, since {time.strftime('%F %T')}\n".encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder has removed the file since it was opened


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if said := path.read_text(encoding="utf-8").strip():
            return f" ({said})"
    return ""
