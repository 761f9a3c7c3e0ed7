"""Image files for tests, the odd ones byte by byte."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    """Return the bytes of a file of this format, as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def encode_heic(image: Image.Image, **options: Any) -> bytes:
    """Return the bytes of an HEIC file."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    return encode(image, "HEIF", **options)


def photo(width: int = 96, height: int = 72, seed: int = 0) -> Image.Image:
    """Return a smooth random RGB image, which survives JPEG."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def png(width: int, height: int, depth: int, color: int, pixels: bytes, **chunks: bytes) -> bytes:
    """Return a PNG that declares this size, bit depth and color type.

    `pixels` are its unfiltered rows, fitting or not; `chunks` (tRNS=..., eXIf=...) come before them.
    """

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = len(pixels) // height if height else 0
    rows = b"".join(b"\0" + pixels[start : start + row] for start in range(0, len(pixels), row or 1))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    extra = b"".join(chunk(name.encode(), data) for name, data in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bmp_header(width: int, height: int, compression: int = 0) -> bytes:
    """Return a 24-bit BMP that declares this size, without its pixels."""
    sizes = struct.pack("<IHHIIii", 54, 0, 0, 54, 40, width, height)
    return b"BM" + sizes + struct.pack("<HHIIiiII", 1, 24, compression, 0, 0, 0, 0, 0)
