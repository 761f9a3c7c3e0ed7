"""Text formatting for messages."""

from __future__ import annotations

import re
from collections.abc import Sequence

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def shortened(names: Sequence[str], limit: int = 5) -> str:
    """Return the first `limit` names in one line, and how many more there are.

    >>> shortened(["cat", "dog", "cow"], 2)
    'cat, dog and 1 more'
    """
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def one_line(text: object, limit: int = 300) -> str:
    """Return the text with every run of white space as one space, cut to `limit` characters.

    >>> one_line("two\\n  lines", 8)
    'two l...'
    """
    line = " ".join(str(text).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def defused(cell: str) -> str:
    """Return a cell of CSV that no spreadsheet takes for a formula: with an apostrophe before it where one would.

    >>> defused("=1+1.jpg"), defused("a=b"), defused("'tis"), defused("'=1")
    ("'=1+1.jpg", 'a=b', "'tis", "''=1")
    """
    return f"'{cell}" if _FORMULA.match(cell) else cell


def undefused(cell: str) -> str:
    """Return the text that `defused` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
