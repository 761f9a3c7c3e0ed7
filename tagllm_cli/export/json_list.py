"""A list in JSON that is written as it comes, an element per line: memory does not grow with it."""

from __future__ import annotations

import json
from typing import Any, TextIO


class JsonList:
    """Writes the elements of one list into a file that has what stands before, and gets what stands behind.

    Text is ASCII, so that no reader has to guess the encoding.
    """

    def __init__(self, file: TextIO, before: str = "") -> None:
        self._file = file
        self.length = 0
        file.write(f"{before}[")

    def add(self, value: Any) -> int:
        """Append an element; return how many characters it has."""
        text = json.dumps(value)
        self._file.write(f"{',' if self.length else ''}\n{text}")
        self.length += 1
        return len(text)

    def end(self, behind: str = "") -> None:
        """Write the end of the list."""
        self._file.write(f"\n]{behind}\n")
