"""The border where content that makes no sense (flipped bytes, other JSON than ours) becomes a TableError."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tagllm_cli.errors import TableError

# JSONDecodeError, UnicodeDecodeError and ArrowInvalid are ValueErrors.
_SENSELESS = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError)


@contextlib.contextmanager
def damage_as_table_error(path: Path | None) -> Iterator[None]:
    """Raise TableError for what a block raises that parses the content of `path` (None: a database in memory)."""
    try:
        yield
    except _SENSELESS as error:
        raise damaged(path, error) from error


def damaged(path: Path | None, error: Exception) -> TableError:
    """Return the error for a file whose content makes no sense, with what `error` says about it in one line."""
    said = next(iter(str(error).splitlines()), "") or type(error).__name__
    if isinstance(error, KeyError):
        said = f"{said} is missing"
    return TableError(f"{path} is damaged: {said}", "Restore it from a backup, or choose another --out.")
