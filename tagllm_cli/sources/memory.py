"""How many bytes decoding an image takes at its peak, and a budget of bytes that threads share."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator

from PIL import Image

# Bytes per pixel of the copies that `decode` makes of a whole loaded image: as gray, as RGB, over white.
_COPIES = {"1": 1, "L": 0, "RGB": 0, "RGBA": 4, "I;16": 1, "I;16B": 1, "I": 1, "F": 1}
_OTHER_COPIES, _TRANSPARENT_COPIES = 4, 8

# What the codec holds beside the image: decoded frames, strips and tiles, a progressive JPEG's coefficients (of the
# full size, however small it is drafted). Upper bounds, found with files of 42 megapixels of every mode and format.
_CODECS = {"WEBP": 13, "AVIF": 8, "HEIF": 8, "TIFF": 4}
_PROGRESSIVE = 6

# Per pixel of the image that is handed on: scaling, turning, the last conversion.
_TARGET = 24


# From so many bytes on, what was held is given back to the system at once.
_LARGE = 64 << 20


class ByteBudget:
    """At most `limit` bytes held by all threads together; who asks first is served first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.peak = 0
        self._turn = threading.Lock()
        self._freed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes (at most `limit`) are free, and hold them inside the block."""
        if size > self.limit:
            raise ValueError(f"{size} bytes are more than the whole budget")
        with self._turn, self._freed:  # only the first in line waits for bytes: small images do not pass a large one
            self._freed.wait_for(lambda: self.held + size <= self.limit)
            self.held += size
            self.peak = max(self.peak, self.held)
        try:
            yield
        finally:
            if size >= _LARGE:
                _trim()
            with self._freed:
                self.held -= size
                self._freed.notify()


def _trim() -> None:
    """Let glibc return what is free: it keeps blocks of Pillow's size for each thread, all together many images."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def decoding_bytes(image: Image.Image, declared: tuple[int, int], target: tuple[int, int]) -> int:
    """Estimate the peak of memory that decoding takes, in bytes, from what the header says.

    `image` is opened and not loaded, drafted where it is a JPEG; `declared` is its size before that, `target` the size
    that it is scaled down to. Both (width, height) in pixels.
    """
    stored = 1 if image.mode in ("1", "L", "P") else 4
    if image.mode != "RGBA" and image.has_transparency_data:
        copies = _TRANSPARENT_COPIES
    else:
        copies = _COPIES.get(image.mode, _OTHER_COPIES)
    per_pixel = stored + copies + _CODECS.get(image.format or "", 0)
    needed = image.width * image.height * per_pixel + target[0] * target[1] * _TARGET
    return needed + (declared[0] * declared[1] * _PROGRESSIVE if image.info.get("progressive") else 0)
