"""The image formats that are read: how a file of each begins and is opened, and why one cannot be decoded.

Not `PIL.Image.open`: it drops what a plugin says about a header, so that a TIFF of an unknown mode, a PNG without area
and a GIF cut short would all be "cannot identify image file". Safe in threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageFile, _imaging, features

from tagllm_cli.records import Failure

# A file that declares more pixels is not opened.
MAX_DECLARED_PIXELS = 500_000_000


def _pattern(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


_NEVER = _pattern(rb"(?!)")


@dataclass(frozen=True, slots=True)
class Format:
    """A format that is read where its codec is installed.

    `plugin` is Pillow's name of it; `starts` matches the first bytes of a file, `no_area` a header with a width or
    height of 0; `is_cut` tells whether the bytes end before the file does. `codec` is a feature of Pillow, `install`
    what to do where it is missing.
    """

    name: str
    plugin: str
    starts: re.Pattern[bytes]
    is_cut: Callable[[bytes], bool]
    no_area: re.Pattern[bytes] = _NEVER
    codec: str = ""
    install: str = "pip install --force-reinstall --only-binary pillow pillow"

    def is_readable(self) -> bool:
        """Tell whether the codec is installed."""
        if self.plugin == "HEIF":
            return _register_heif()
        return not self.codec or bool(features.check(self.codec))

    def open(self, data: bytes) -> ImageFile.ImageFile:
        """Return the image with its header read. Raises whatever Pillow and its plugins raise."""
        _register_plugins()
        return Image.OPEN[self.plugin][0](BytesIO(data), "")


def _integer(data: bytes, start: int, *, big: bool = False) -> int:
    return int.from_bytes(data[start : start + 4], "big" if big else "little")


def _boxes_are_cut(data: bytes) -> bool:
    """Tell whether the last box of an ISO base media file (AVIF, HEIC) is not whole."""
    position = 0
    while position < len(data):
        size = _integer(data, position, big=True)
        if size == 1:  # 64 bits, after the type
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if position + 8 <= len(data) and size < 8:  # 0: up to the end of the file; else nonsense
            return False
        position += max(size, 8)
    return position > len(data)


FORMATS = (
    Format(
        "JPEG",
        "JPEG",
        _pattern(rb"\xff\xd8\xff"),
        lambda data: not data.rstrip(b"\0").endswith(b"\xff\xd9"),
        _pattern(rb".{0,70000}?\xff[\xc0-\xc3]\0.\x08(\0\0|..\0\0)"),
        "jpg",
    ),
    Format(
        "PNG",
        "PNG",
        _pattern(rb"\x89PNG\r\n\x1a\n"),
        lambda data: data.rfind(b"IEND") < 0,
        _pattern(rb".{16}(\0{4}|.{4}\0{4})"),
        "zlib",
    ),
    Format("WebP", "WEBP", _pattern(rb"RIFF.{4}WEBP"), lambda data: _integer(data, 4) + 8 > len(data), codec="webp"),
    Format(
        "GIF",
        "GIF",
        _pattern(rb"GIF8[79]a"),
        lambda data: not data.rstrip(b"\0").endswith(b";"),
        _pattern(rb".{6}(\0\0|..\0\0)"),
    ),
    Format(
        "BMP",
        "BMP",
        _pattern(rb"BM"),
        lambda data: _integer(data, 2) > len(data),
        _pattern(rb".{18}(\0{4}|.{4}\0{4})"),
    ),
    Format(
        "TIFF",
        "TIFF",
        _pattern(rb"II[*+]\0(?!.{4}CR)|MM\0[*+]"),
        lambda data: _integer(data, 4, big=data.startswith(b"MM")) >= len(data),
        codec="libtiff",
    ),
    # mif1 and msf1 say nothing about the codec: the compatible brands that follow do.
    Format(
        "AVIF",
        "AVIF",
        _pattern(rb".{4}ftyp(avi[fs]|m[is]f1.{4}(.{4}){0,12}?avi[fs])"),
        _boxes_are_cut,
        codec="avif",
        install="pip install --upgrade pillow",
    ),
    Format(
        "HEIC",
        "HEIF",
        _pattern(rb".{4}ftyp(hei[a-z]|hev[a-z]|m[is]f1)"),
        _boxes_are_cut,
        install="pip install 'tagllm[heif]'",
    ),
)

# Known by their first bytes, so that the failure can name them.
_NOT_READ = {
    "JPEG 2000": _pattern(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    "JPEG XL": _pattern(rb"\0\0\0\x0cJXL |\xff\x0a"),
    "Camera raw": _pattern(rb"II\*\0.{4}CR|.{4}ftypcrx|IIR[OS]|MMOR|IIU\0|FUJIFILMCCD-RAW"),
    "Photoshop": _pattern(rb"8BPS"),
    "ICO": _pattern(rb"\0\0\x01\0"),
    "PDF": _pattern(rb"%PDF"),
    "SVG": _pattern(rb"\s*(<\?xml[^>]*>\s*)?<svg"),
    "Netpbm": _pattern(rb"P[1-6]\s"),
}

# What else is found under an image's name. A row says which of these, and never shows the bytes: a link may lead to a
# file that is nobody's business.
_NO_IMAGES = {
    "a Git LFS pointer: the file itself was not fetched": _pattern(rb"version https://git-lfs"),
    "a web page": _pattern(rb"(?i)\s*(<!doctype html|<html|<head)"),
    "JSON": _pattern(rb"\s*[{\[]\s*[\"{\[]"),
    "a zip archive": _pattern(rb"PK[\x03\x05]"),
    "a gzip archive": _pattern(rb"\x1f\x8b"),
    "a video": _pattern(rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI |\0\0\x01[\xba\xb3]"),
    "the AppleDouble half of a macOS file": _pattern(rb"\0\x05\x16\x07"),
    "zeros, as an interrupted copy leaves them": _pattern(rb"\0{16}"),
    "text": _pattern(rb"[\t\r\n\x20-\x7e\x80-\xff]{64}|[\t\r\n\x20-\x7e\x80-\xff]{1,63}\Z"),
    "bytes of no format that is known here": _pattern(rb""),
}
_CONVERT = "is not read; convert it to JPEG, PNG or WebP"

# TIFF tags of the first image of a file: "a smaller version of another one", and the mark of a DNG.
_NEW_SUBFILE_TYPE, _DNG_VERSION = 254, 50706


def recognize(data: bytes) -> Format | Failure:
    """Return the format that the bytes begin like, or why it cannot be read.

    Failures are of kind `empty_file`, `unsupported_format` or `not_an_image`.
    """
    if not data:
        return Failure("empty_file", "0 bytes")
    for form in FORMATS:
        if form.starts.match(data):
            return form if form.is_readable() else Failure("unsupported_format", f"{form.name} needs: {form.install}")
    for name, starts in _NOT_READ.items():
        if starts.match(data):
            return Failure("unsupported_format", f"{name} {_CONVERT}")
    return Failure("not_an_image", next(name for name, starts in _NO_IMAGES.items() if starts.match(data)))


def refuse_raw(image: Image.Image) -> Failure | None:
    """Return a failure for a camera raw file that is laid out as a TIFF: what can be read of it is a thumbnail."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    is_thumbnail = isinstance(kind := tags.get(_NEW_SUBFILE_TYPE, 0), int) and kind & 1
    return Failure("unsupported_format", f"Camera raw {_CONVERT}") if is_thumbnail or _DNG_VERSION in tags else None


def diagnose(form: Format, data: bytes, error: Exception) -> Failure:
    """Say in one line why a file of this format could not be decoded, given what Pillow raised.

    Failures are of kind `out_of_memory`, `too_large`, `bad_size`, `truncated_file`, `unsupported_format` or
    `corrupt_file`.
    """
    said = " ".join(str(error).split())[:160] or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in said.lower():
        return Failure("out_of_memory", f"{form.name}: not enough memory to decode it")
    if isinstance(error, Image.DecompressionBombError):
        return Failure("too_large", f"{form.name}: {said.partition(',')[0]}")
    if form.no_area.match(data):
        return Failure("bad_size", f"{form.name} with a width or height of 0")
    if form.is_cut(data) or "truncated" in said.lower():
        return Failure("truncated_file", f"{form.name} that ends too early: {said}")
    if re.search("unsupported|unknown|cannot handle|not implemented", said, re.IGNORECASE):
        return Failure("unsupported_format", f"{form.name} of a kind that is not read: {said}")
    return Failure("corrupt_file", f"{form.name}: {said}")


@functools.cache
def _register_heif() -> bool:
    """Make Pillow read HEIC where pillow-heif is installed, and tell whether it is."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


@functools.cache
def _register_plugins() -> None:
    Image.init()


def _configure_pillow() -> None:
    """Set Pillow's limit on pixels, and keep its messages about odd files, and libtiff's, off the terminal.

    Once per process: the limit is global (an error from twice its value on), `warnings.catch_warnings` is not safe in
    threads, and libtiff writes to the file descriptor; Pillow silences its warnings, but not its errors.
    """
    Image.MAX_IMAGE_PIXELS = MAX_DECLARED_PIXELS // 2
    warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with contextlib.suppress(OSError, AttributeError):  # a Pillow without libtiff, or with its symbols hidden
        set_error_handler = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
        set_error_handler.argtypes, set_error_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_error_handler(None)


_configure_pillow()
