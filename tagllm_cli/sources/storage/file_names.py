"""What the name of a file or folder says: an image, made by the system, or what to count it under."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

from tagllm_cli.sources.storage.patterns import is_match

# Everything that people call an image file. What no decoder here reads is listed too: its row says why it failed.
_COMMON = "jpg jpeg jpe jfif png webp gif bmp dib tif tiff avif heic heif hif jxl jp2 j2k"
_CAMERA_RAW = "dng cr2 cr3 nef arw orf rw2 raf"
EXTENSIONS = frozenset(f".{name}" for name in f"{_COMMON} {_CAMERA_RAW}".split())

# Thumbnails, bins and snapshots of NAS systems, Windows and macOS archives: copies of images, or deleted ones.
_NAS_FOLDERS = ("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot")
SYSTEM_FOLDERS = frozenset([*_NAS_FOLDERS, "$recycle.bin", "system volume information", "__macosx"])

# An ending worth counting by; ".2024" and such are parts of names.
_ENDING = re.compile(r"\.(?=[0-9]*[a-z])[a-z0-9]{1,10}")
_SYSTEM_FILES = {"thumbs.db": "Thumbs.db", "desktop.ini": "desktop.ini"}


def why_left_out(path: str, is_folder: bool, exclude: Sequence[str]) -> str | None:
    """Return what to count a path below the root under that a folder of images leaves out; None: it is taken.

    >>> why_left_out("a/b.jpg", False, ()), why_left_out("a/b.MP4", False, ()), why_left_out("a/@eaDir", True, ())
    (None, '.mp4', '@eaDir/')
    """
    if excluded := why_excluded(path, exclude):
        return excluded
    name = path.rpartition("/")[2]
    if is_folder:
        return f"{name}/" if name.lower() in SYSTEM_FOLDERS else None
    ending = os.path.splitext(name)[1].lower()
    return None if ending in EXTENSIONS else group_of(name, ending)


def why_excluded(path: str, exclude: Sequence[str]) -> str | None:
    """Return what to count a path under that a glob of `exclude` leaves out; None: none does."""
    pattern = next((each for each in exclude if is_match(path, each)), None)
    return None if pattern is None else f"by --exclude {shlex.quote(pattern)}"


def group_of(name: str, ending: str) -> str:
    """Return what to count a file under that is no image: its ending, or its name where the system makes it."""
    return _SYSTEM_FILES.get(name.lower()) or (ending if _ENDING.fullmatch(ending) else "without a known ending")
