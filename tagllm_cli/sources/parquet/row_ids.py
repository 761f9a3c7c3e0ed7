"""Ids of rows: unique in a file by what is in it alone, and in a source by the name of the file before them.

    with an id column       ID           FILE/ID in Arrow files, and where another file has it too or it looks like that
    else, with a path       FILE/PATH
    else                    FILE/ROW     also where the id or the path is null

The second row of a file with the same id or path is FILE/ID#2 or FILE/PATH#2.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.sources.parquet.columns import is_bytes
from tagllm_cli.text import public_url

_LOOKS_LIKE_A_ROW = re.compile(r"\.(parquet|arrow)/", re.IGNORECASE)
_REPEAT = re.compile(r"#\d+")

_AT_A_TIME = 8  # files, of which little is read

Hashes = npt.NDArray[np.uint64]


class RowNames:
    """Names of a file's rows, in order: their own ones, or their numbers, with #2, #3 ... where a name comes again."""

    def __init__(self, *, are_unique: bool = False) -> None:
        self._are_unique = are_unique
        self._last: dict[str, int] = {}

    def name(self, row: int, own: str | None) -> str:
        """Return the name of the next row."""
        base = str(row) if own is None else own
        if self._are_unique:
            return base
        name, number = base, self._last.get(base, 0)
        while number and (name := f"{base}#{number + 1}") in self._last:
            number += 1
        self._last[base] = number + 1
        if name != base:
            self._last[name] = 1
        return name


def image_id(shard: str, own: str | None, name: str, shared: Set[int] | None) -> str:
    """Return the id of a row; `own` is its id or path, `name` the one of RowNames.

    `shared` are the hashes of ids that several files have, None where the file's name always goes before.
    """
    if shared is None or own != name or _LOOKS_LIKE_A_ROW.search(own) or hash_of(own) in shared:
        return f"{shard}/{name}"
    return own


def is_same(listed: str, shard: str, row: int, own: str | None) -> bool:
    """Tell whether a row that now has this name of its own can be the one that was listed with this id."""
    base = str(row) if own is None else own
    for name in (listed, listed.removeprefix(f"{shard}/")):
        if name.startswith(base) and (len(name) == len(base) or _REPEAT.fullmatch(name, len(base))):
            return True
    return False


def own_names(values: pa.Array) -> pa.Array:
    """Return the ids or paths of rows as strings, without the secrets of URLs; null where there is none."""
    return pa.array([None if text is None else public_url(text) for text in _texts(values)], pa.large_string())


def _texts(values: pa.Array) -> Iterable[str | None]:
    kind = values.type
    if pa.types.is_fixed_size_binary(kind):
        return [None if value is None else value.hex() for value in values.to_pylist()]
    if not is_bytes(kind):
        try:
            texts: list[str | None] = pc.cast(values, pa.large_string()).to_pylist()
            return texts
        except UnicodeDecodeError:  # nobody checked what the writer called text
            values = pc.cast(values, pa.large_binary())
        except pa.ArrowException:  # a type without a cast to text
            return [None if value is None else str(value) for value in values.to_pylist()]
    return [None if value is None else value.decode("utf-8", "backslashreplace") for value in values.to_pylist()]


def are_unique(names: pa.ChunkedArray) -> bool:
    """Tell whether no name comes twice, and either none or all are missing."""
    if names.null_count == len(names):
        return True  # numbers of rows
    return bool(names.null_count == 0 and pc.count_distinct(names).as_py() == len(names))


def hash_of(own: str) -> int:
    """Return a number that two ids share only by chance: 1 to 2**64."""
    return int.from_bytes(hashlib.blake2b(own.encode(), digest_size=8).digest(), "little")


def hashes_of(names: Iterable[str | None]) -> Hashes:
    """Return the hashes of the ids of a file, each once."""
    return np.unique(np.fromiter((hash_of(name) for name in names if name is not None), np.uint64))


def shared_hashes(files: Iterable[Hashes]) -> frozenset[int]:
    """Return the hashes that more than one file has."""
    found, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *files]), return_counts=True)
    return frozenset(found[counts > 1].tolist())


class SharedIds:
    """The hashes of ids that more than one file has; a file is read again only where its version is another one.

    Args:
        read: returns the hashes of a file's ids, None where they cannot be read now.
    """

    def __init__(self, read: Callable[[str], Hashes | None]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._files: dict[str, tuple[str, Hashes | None]] = {}
        self._versions: Mapping[str, str] | None = None
        self._shared: Set[int] = frozenset()

    def of(self, name: str, versions: Mapping[str, str]) -> Set[int] | None:
        """Return the hashes that a file may share; None: any.

        `versions` are all files by name with their versions; the same mapping as last time is not looked at again.
        """
        with self._lock:
            if versions is not self._versions:
                with ThreadPoolExecutor(_AT_A_TIME) as pool:
                    hashes = pool.map(self._hashes, versions, versions.values())
                    self._files = dict(zip(versions, hashes, strict=True))
                self._shared = shared_hashes(known for _, known in self._files.values() if known is not None)
                self._versions = versions
            is_known = name in self._files and self._files[name][1] is not None
            return self._shared if is_known else None

    def _hashes(self, name: str, version: str) -> tuple[str, Hashes | None]:
        old = self._files.get(name)
        if old is not None and version and old[0] == version and old[1] is not None:
            return old
        return version, self._read(name)
