"""Where images come from: anything that is a stream of `Image`s whose bytes can be read one by one."""

from __future__ import annotations

import os
from pathlib import Path

from tagllm_cli.errors import SourceError
from tagllm_cli.sources.folder import Folder
from tagllm_cli.sources.read import ReadFailure

__all__ = ["Folder", "ReadFailure", "open_source"]


def open_source(spec: str) -> Folder:
    """Return the source that a user named: the path of a folder.

    Raises SourceError where there is nothing, something that is no folder, or no permission to list it.
    """
    path = Path(spec)
    if not spec or not os.path.lexists(path):
        raise SourceError(f"there is no folder {spec!r}", "Give the path of a folder of images.")
    if not path.is_dir():
        raise SourceError(f"{spec} is not a folder", "Give the path of the folder that holds the images.")
    folder = Folder.rooted(path)
    folder.check()
    return folder
