"""Encoded bytes in, an upright RGB image within the pixel budget out; never an exception for what the bytes hold.

The image is the first frame (of HEIC the primary image), turned as its EXIF orientation says, transparency over white,
color profiles ignored. Safe in threads: what they hold together while decoding is bounded by DECODING_BYTES.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin

from tagllm_cli.records import MOST_ASPECT, DecodedImage, Failure, ImageInfo
from tagllm_cli.sources.formats import MAX_DECLARED_PIXELS, Format, diagnose, recognize, refuse_raw
from tagllm_cli.sources.memory import ByteBudget, decoding_bytes

# Goes into every request's identity: raise it when the same bytes come out as other pixels. (It was not raised when
# images thinner than 1 : MOST_ASPECT were widened: what was answered about one before is an answer all the same.)
IMAGING_VERSION = 1

# All threads of the process together. An image that would take more than this by itself is not decoded.
DECODING_BYTES = ByteBudget(2 << 30)

# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that leaves this many times the wanted size or more. From 12
# megapixels to 1: 0.09 s instead of 0.24 s, and 43 dB from the full way, which is less than JPEG's own loss.
DRAFT_MARGIN = 1.5

# Values of more than 8 bits are scaled in strips of this many pixels: numpy's copies of a whole image would add up.
_STRIP_PIXELS = 1 << 22

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)

# Types that any server takes: a file of one of them can be sent as it is, if it shows exactly the decoded pixels.
_SENDABLE = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


@dataclass(frozen=True, slots=True)
class _Decoded:
    """The pixels, the upright size of the whole image, and the media type if the file shows exactly these pixels."""

    pixels: Image.Image
    size: tuple[int, int]
    mime: str | None


def decode(data: bytes, max_pixels: int) -> tuple[ImageInfo, DecodedImage | None]:
    """Decode a file's bytes to upright RGB of at most `max_pixels` (at least 1) pixels, keeping the aspect.

    Returns the hash and the size of the file with the decoded image, or with None and an `ImageInfo.failure` of kind
    `empty_file`, `not_an_image`, `unsupported_format`, `truncated_file`, `corrupt_file`, `bad_size` (no area),
    `too_large` (more than MAX_DECLARED_PIXELS, or than DECODING_BYTES allows) or `out_of_memory` (now: later it may
    succeed). `ImageInfo.fingerprint` is set in any case. Waits while other threads hold too many of DECODING_BYTES.
    """
    fingerprint = hashlib.blake2b(data, digest_size=16).digest()
    decoded = _decode(data, max_pixels)
    if isinstance(decoded, Failure):
        return ImageInfo(fingerprint, failure=decoded), None
    info = ImageInfo(fingerprint, *decoded.size)
    uuid = f"{fingerprint.hex()}-{IMAGING_VERSION}-{max_pixels}"
    if decoded.mime is None:
        return info, DecodedImage(decoded.pixels, uuid)
    return info, DecodedImage(decoded.pixels, uuid, data, decoded.mime)


def measure(data: bytes) -> tuple[int, int] | None:
    """Return the upright (width, height) in pixels that a file's header declares; None where it declares none.

    No pixels are decoded: a file that is damaged behind its header has a size.
    """
    form = recognize(data)
    if isinstance(form, Failure):
        return None
    try:
        with form.open(data) as image:
            width, height = image.size
            is_turned = form.plugin != "TIFF" and _orientation(image) in _SIDEWAYS  # a TIFF says its upright size
            return (height, width) if is_turned else (width, height)
    except Exception:  # as for `decode`
        return None


def fit(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """Return the largest (width, height) in pixels with the aspect of `size`, its area at most `max_pixels`.

    Never larger than `size`, and no side below 1; but what is thinner than 1 : MOST_ASPECT is made as wide as that.

    >>> fit((4000, 3000), 1_000_000)
    (1154, 866)
    >>> fit((640, 480), 1_000_000)
    (640, 480)
    >>> fit((1000, 1), 1_000_000)
    (1000, 5)
    """
    least = math.ceil(max(size) / MOST_ASPECT)
    width, height = (max(side, least) for side in size)
    if width * height <= max_pixels:
        return width, height
    scale = math.sqrt(max_pixels / (width * height))
    low, high = sorted((max(1, int(width * scale)), max(1, int(height * scale))))
    high = min(high, MOST_ASPECT * low, max_pixels // low)  # the short side was rounded
    return (low, high) if width < height else (high, low)


def _decode(data: bytes, max_pixels: int) -> _Decoded | Failure:
    form = recognize(data)
    if isinstance(form, Failure):
        return form
    try:
        with form.open(data) as image:
            return refuse_raw(image) or _within_bounds(form, image, max_pixels)
    except Exception as error:  # Pillow's plugins raise a dozen kinds, from SyntaxError to zlib.error
        return diagnose(form, data, error)


def _within_bounds(form: Format, image: ImageFile.ImageFile, max_pixels: int) -> _Decoded | Failure:
    width, height = size = image.size
    if width * height > MAX_DECLARED_PIXELS:
        return Failure("too_large", f"{form.name} that declares {width} x {height} pixels")
    target, box = fit(size, max_pixels), None
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        drafted = image.draft("RGB", (math.ceil(target[0] * DRAFT_MARGIN), math.ceil(target[1] * DRAFT_MARGIN)))
        box = drafted[1] if drafted else None
    needed, limit = decoding_bytes(image, size, target), DECODING_BYTES.limit
    if needed > limit:
        detail = f"decoding takes {needed / 2**30:.1f} GiB, more than {limit / 2**30:.1f}"
        return Failure("too_large", f"{form.name} of {width} x {height} pixels: {detail}")
    with DECODING_BYTES.hold(needed):
        return _load(image, size, box, max_pixels)


def _load(
    image: ImageFile.ImageFile, size: tuple[int, int], box: tuple[float, float, float, float] | None, max_pixels: int
) -> _Decoded:
    """Load an opened image of declared `size`; `box` is what a drafted JPEG shows of it."""
    image.load()
    if box is None:
        size = image.size  # a TIFF turns itself upright while loading
    target = fit(size, max_pixels)
    orientation = _orientation(image)  # not before loading, for the same reason
    pixels = _opaque(image)
    if pixels.size != target:
        pixels = pixels.resize(target, Image.Resampling.LANCZOS, box=box)
    if orientation in _TURNS:
        pixels = pixels.transpose(_TURNS[orientation])
    if pixels.mode != "RGB":
        pixels = pixels.convert("RGB")
    mime = None
    if pixels is image:
        pixels = image.copy()
        if not getattr(image, "is_animated", False):
            mime = _SENDABLE.get(image.format or "")
    pixels.info = {}  # an encoder would write the file's metadata again, its orientation included
    return _Decoded(pixels, size[::-1] if orientation in _SIDEWAYS else size, mime)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) to 8; 1 where the metadata have none that is valid."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken metadata do not spoil good pixels, and Pillow raises many kinds over them
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _opaque(image: Image.Image) -> Image.Image:
    """Return the image in mode RGB or L, transparency over white; `image` itself where it is that already.

    Gray stays L until it is scaled down: RGB takes four times the memory and gives the same pixels.
    """
    if image.mode.startswith(("I", "F")):
        image = _gray(image)
    if image.has_transparency_data:
        overlay = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(overlay, mask=overlay)
        return white
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("RGB", "L") else image.convert("RGB")


def _gray(image: Image.Image) -> Image.Image:
    """Return 16-bit, 32-bit or float gray values as 8 bits; Pillow would clip them at 255 instead of scaling them.

    White is 65535 for 16 bits. For the others, whose range no file states, it is the first of 1 (floats only), 255,
    65535 and the largest value that no value exceeds; what is negative or not a number is black.
    """
    rows = max(1, _STRIP_PIXELS // image.width)
    boxes = [(0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)]
    white = 0.0 if image.mode.startswith("I;16") else _white(image, boxes)
    gray = Image.new("L", image.size)
    for box in boxes:
        values = np.asarray(image.crop(box))
        if values.dtype.kind == "u":
            scaled = (values >> 8).astype(np.uint8)
        else:
            scaled = (_finite(values) * (255.0 / white)).clip(0.0, 255.0).astype(np.uint8)
        gray.paste(Image.fromarray(scaled), box)
    return gray


def _white(image: Image.Image, boxes: list[tuple[int, int, int, int]]) -> float:
    brightest = max(float(_finite(np.asarray(image.crop(box))).max()) for box in boxes)
    steps = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    return next((step for step in steps if brightest <= step), brightest)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
