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
