"""What a kind of storage does for storage.py."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file: its name below the root, its size in bytes (-1: not known), its opaque version (size and mtime, ETag)."""

    name: str
    size: int
    version: str


class Files(Protocol):
    """What a kind of storage does; names are safe to append to the root."""

    def check(self) -> None:
        """Raise SourceError where the root cannot be listed now."""

    def find(self, endings: Collection[str], globs: Sequence[str]) -> dict[str, StoredFile]:
        """Return the files below the root with one of the endings that match one of the globs (of segments)."""

    def stat_all(self, names: Sequence[str]) -> dict[str, StoredFile]:
        """Return those of the named files that are there."""

    def stat(self, name: str) -> StoredFile:
        """Return a file as it is now."""

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading from front to back."""

    def read(self, name: str, start: int, length: int | None) -> bytes:
        """Return bytes of a file."""
