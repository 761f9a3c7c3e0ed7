"""What the name of a file or folder says: an image, made by the system, or what to count it under."""

from __future__ import annotations

import re

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


def group_of(name: str, ending: str) -> str:
    """Return what to count a file under that is no image: its ending, or its name where the system makes it."""
    return _SYSTEM_FILES.get(name.lower()) or (ending if _ENDING.fullmatch(ending) else "without a known ending")
