"""The image formats that we read: how a file of each is known and opened, and what is wrong with one that fails.

Files are opened through Pillow's format classes instead of `PIL.Image.open`, for three reasons: only the formats that
we promise are tried, a broken file says what is wrong with it, and the limit on declared pixels is ours without a
change to Pillow's global one. Safe in threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    _imaging,
)

from tagllm_cli.records import Failure


def _pattern(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


_NEVER = _pattern(rb"(?!)")


@dataclass(frozen=True, slots=True)
class Format:
    """A format that we read: how a file of it starts, and how to see that it was cut short or declares no area.

    `opener` reads the header and raises whatever Pillow raises. `no_area` matches a header with a width or height of 0.
    """

    name: str
    starts: re.Pattern[bytes]
    opener: Callable[[BytesIO], ImageFile.ImageFile]
    is_cut: Callable[[bytes], bool]
    no_area: re.Pattern[bytes] = _NEVER


def _integer(data: bytes, start: int, *, big: bool = False) -> int:
    return int.from_bytes(data[start : start + 4], "big" if big else "little")


FORMATS = (
    Format(
        "JPEG",
        _pattern(rb"\xff\xd8\xff"),
        JpegImagePlugin.jpeg_factory,
        lambda data: not data.rstrip(b"\0").endswith(b"\xff\xd9"),
        _pattern(rb".{0,70000}?\xff[\xc0-\xc3]\0.\x08(\0\0|..\0\0)"),
    ),
    Format(
        "PNG",
        _pattern(rb"\x89PNG\r\n\x1a\n"),
        PngImagePlugin.PngImageFile,
        lambda data: data.rfind(b"IEND") < 0,
        _pattern(rb".{16}(\0{4}|.{4}\0{4})"),
    ),
    Format(
        "WebP",
        _pattern(rb"RIFF.{4}WEBP"),
        WebPImagePlugin.WebPImageFile,
        lambda data: _integer(data, 4) + 8 > len(data),
    ),
    Format(
        "GIF",
        _pattern(rb"GIF8[79]a"),
        GifImagePlugin.GifImageFile,
        lambda data: not data.rstrip(b"\0").endswith(b";"),
        _pattern(rb".{6}(\0\0|..\0\0)"),
    ),
    Format(
        "BMP",
        _pattern(rb"BM"),
        BmpImagePlugin.BmpImageFile,
        lambda data: _integer(data, 2) > len(data),
        _pattern(rb".{18}(\0{4}|.{4}\0{4})"),
    ),
    Format(
        "TIFF",
        _pattern(rb"II[*+]\0|MM\0[*+]"),
        TiffImagePlugin.TiffImageFile,
        lambda data: _integer(data, 4, big=data.startswith(b"MM")) >= len(data),
    ),
)

# Known by their first bytes, so that people learn what they have.
_NOT_READ = {
    "AVIF": _pattern(rb".{4}ftypavi[fs]"),
    "HEIC": _pattern(rb".{4}ftyp(hei|hev|mif|msf)"),
    "JPEG 2000": _pattern(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    "JPEG XL": _pattern(rb"\0\0\0\x0cJXL |\xff\x0a"),
    "Photoshop": _pattern(rb"8BPS"),
    "ICO": _pattern(rb"\0\0\x01\0"),
    "PDF": _pattern(rb"%PDF"),
    "SVG": _pattern(rb"\s*(<\?xml[^>]*>\s*)?<svg"),
    "Netpbm": _pattern(rb"P[1-6]\s"),
}


def recognise(data: bytes) -> Format | Failure:
    """Return the format that the bytes begin like, or why it is none that we read.

    Failures are of kind `empty_file`, `unsupported_format` or `not_an_image`.
    """
    if not data:
        return Failure("empty_file", "0 bytes")
    for form in FORMATS:
        if form.starts.match(data):
            return form
    for name, starts in _NOT_READ.items():
        if starts.match(data):
            return Failure("unsupported_format", f"{name} is not read; convert it to JPEG, PNG or WebP")
    return Failure("not_an_image", f"starts with {data[:16]!r}")


def diagnose(form: Format, data: bytes, error: Exception) -> Failure:
    """Say in one line why a file of this format could not be decoded, given what Pillow raised.

    Failures are of kind `too_large`, `bad_size`, `truncated_file`, `unsupported_format` or `corrupt_file`.
    """
    said = " ".join(str(error).split())[:160] or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return Failure("too_large", f"{form.name}: {said.partition(',')[0]}")
    if isinstance(error, MemoryError):
        return Failure("too_large", f"{form.name}: there is not enough memory to decode it")
    if form.no_area.match(data):
        return Failure("bad_size", f"{form.name} with a width or height of 0")
    if form.is_cut(data) or "truncated" in said.lower():
        return Failure("truncated_file", f"{form.name} that ends too early: {said}")
    if re.search("unsupported|unknown|cannot handle|not implemented", said, re.IGNORECASE):
        return Failure("unsupported_format", f"{form.name} of a kind that is not read: {said}")
    return Failure("corrupt_file", f"{form.name}: {said}")


def _hush() -> None:
    """Keep what Pillow and libtiff think about odd files off the terminal: what matters comes back as a failure.

    Once per process, because `warnings.catch_warnings` is not safe in threads and libtiff writes to the descriptor.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with contextlib.suppress(OSError, AttributeError):  # a Pillow without libtiff, or with its symbols hidden
        silence = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        silence.argtypes, silence.restype = [ctypes.c_void_p], ctypes.c_void_p
        silence(None)


_hush()
