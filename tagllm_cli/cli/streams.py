"""Standard output and error: terminals that lack characters, pipes that are closed, disks that are full."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys

_HANDLER = "tagllm"
_STAND_INS = {
    **{"→": "->", "←": "<-", "×": "x", "…": "...", "≤": "<=", "≥": ">=", "·": "-", "•": "*"},
    **{"–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"'},
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


def stdout_fails() -> bool:
    """Return whether stdout cannot be written (any more); what is in its buffer is dropped then."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # or the buffer would fail once more at exit, with a traceback
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
