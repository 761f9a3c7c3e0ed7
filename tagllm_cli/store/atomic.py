"""Putting a file in place with one rename: readers, and a killed run, find the old one or the whole new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tagllm_cli.errors import UsageError


@contextlib.contextmanager
def replacing(path: Path, kind: type[UsageError] = UsageError) -> Iterator[Path]:
    """Give the path to write to; what is there at the end of the block is on disk and becomes `path`.

    An exception in the block leaves the old file. One of the operating system is raised as an error of this `kind`.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise kind(
            f"cannot write {path}: {error.strerror or error}", "Free some space, or choose another --out."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
