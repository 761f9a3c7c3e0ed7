"""Words for people that several rooms say alike."""

from __future__ import annotations

from collections.abc import Sequence


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first names, at most so many, and how many more there are.

    >>> some(["cat", "dog", "cow"], 2)
    'cat, dog and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def one_line(text: object, limit: int = 300) -> str:
    """Return the text with every run of white space as one space, cut to `limit` characters.

    >>> one_line("two\\n  lines", 8)
    'two l...'
    """
    line = " ".join(str(text).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
