"""Standard output and error: terminals that lack characters, pipes that are closed, disks that are full."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_HANDLER = "tagllm"
_STAND_INS = {
    "→": "->",
    "←": "<-",
    "×": "x",
    "…": "...",
    "≤": "<=",
    "≥": ">=",
    "·": "-",
    "•": "*",
    "–": "-",
    "—": "-",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
}


def show_any_character() -> None:
    """Let both streams show a stand-in for what their encoding lacks: `->` for an arrow, else an escape sequence."""
    codecs.register_error(_HANDLER, _stand_in)
    for stream in (sys.stdout, sys.stderr):
        # Whoever chose another handler with PYTHONIOENCODING keeps it.
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape", "backslashreplace"):
            stream.reconfigure(errors=_HANDLER)


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    shown = (_STAND_INS.get(each) or each.encode("ascii", "backslashreplace").decode() for each in lacking)
    return "".join(shown), error.end


class StdoutError(OSError):
    """Stdout cannot be written."""


class _Stdout(io.TextIOWrapper):
    """Raises StdoutError where any other file raises OSError, and drops what is written from then on."""

    def write(self, text: str, /) -> int:
        with _as_stdout_error():
            return super().write(text)

    def flush(self) -> None:
        with _as_stdout_error():
            super().flush()


@contextmanager
def _as_stdout_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # The buffer would fail once more at exit, with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise StdoutError(*error.args) from error


def tell_stdout_errors() -> None:
    """Let errors of stdout be StdoutErrors, for the whole process."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.fileno() == 1:
        encoding, errors, at_once = sys.stdout.encoding, sys.stdout.errors, sys.stdout.line_buffering
        sys.stdout = _Stdout(sys.stdout.detach(), encoding, errors, line_buffering=at_once)
