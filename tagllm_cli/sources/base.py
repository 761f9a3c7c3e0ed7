"""What a listing of images leaves out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a listing leaves out: paths that match a glob of `exclude`, and folders that cannot be listed."""

    exclude: tuple[str, ...] = ()
    skip_unreadable: bool = False
