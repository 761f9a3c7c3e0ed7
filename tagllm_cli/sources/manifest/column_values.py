"""What the lines of a manifest say in one column, to be looked up by image."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable

import numpy as np


def lookup(values: Iterable[tuple[str, str]]) -> Callable[[str], str | None]:
    """Return what finds the value that goes with a uri, None where there is none; of a uri's lines, any may count.

    Sixteen bytes of each line are kept, and each distinct value once.

    >>> find = lookup([("a.jpg", "ward 1"), ("b.jpg", "")])
    >>> find("a.jpg"), find("b.jpg"), find("c.jpg")
    ('ward 1', None, None)
    """
    numbers, codes, known = array("Q"), array("Q"), dict[str, int]()
    for uri, value in values:
        if value.strip():
            numbers.append(_hash(uri))
            codes.append(known.setdefault(value, len(known)))
    # A copy: an array that a buffer was taken of cannot grow, and numpy keeps it.
    hashes = np.array(numbers, np.uint64)
    order = np.argsort(hashes, kind="stable")
    hashes, places, distinct = hashes[order], np.array(codes, np.uint64)[order], list(known)

    def find(uri: str) -> str | None:
        wanted = _hash(uri)
        place = int(np.searchsorted(hashes, np.uint64(wanted)))
        return distinct[int(places[place])] if place < len(hashes) and int(hashes[place]) == wanted else None

    return find


def _hash(uri: str) -> int:
    return int.from_bytes(hashlib.blake2b(uri.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
