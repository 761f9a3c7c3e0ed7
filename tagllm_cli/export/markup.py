"""What XML can hold, and what it takes for something else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tagllm_cli.errors import UsageError

_NO_CHARACTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def fits(text: str) -> bool:
    """Return whether XML 1.0 can hold a text.

    >>> fits("<&>\\n"), fits("\\x00")
    (True, False)
    """
    return _NO_CHARACTER.search(text) is None


def check_names(names: Sequence[str]) -> None:
    """Raise UsageError for a label that XML cannot hold."""
    if bad := [name for name in names if not fits(name)]:
        message = f"the label {bad[0]!r} has a control character, which XML cannot hold"
        raise UsageError(message, "Rename it in the vocabulary, or leave it out with --labels.")


def escaped(text: str) -> str:
    """Return a text as it stands between tags: line breaks come back as they are.

    >>> escaped("a<b\\r")
    'a&lt;b&#13;'
    """
    from xml.sax.saxutils import escape  # it loads urllib.request, and `--help` loads every format

    return escape(text, {"\r": "&#13;"})


def quoted(text: str) -> str:
    """Return a text as the value of an attribute, with its quotes: line breaks come back as they are.

    >>> quoted("a<b\\n")
    '"a&lt;b&#10;"'
    """
    from xml.sax.saxutils import quoteattr

    return quoteattr(text)
