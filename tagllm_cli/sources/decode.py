"""Encoded bytes in, an upright RGB picture within the pixel budget out; never an exception for what the bytes hold.

What counts as the picture: the first frame, turned as its EXIF orientation says, transparency over white, colour
profiles ignored. Everything here may run in many threads at once.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin

from tagllm_cli.records import DecodedImage, Failure, ImageInfo
from tagllm_cli.sources.formats import diagnose, recognise

# Goes into every request's identity: raise it when the same bytes come out as other pixels.
IMAGING_VERSION = 1

# A file that declares more is taken for a decompression bomb. For TIFF, WebP and the frames of a GIF Pillow's own
# limit, 179 million, comes first: it could only be moved for the whole process.
MAX_DECLARED_PIXELS = 500_000_000

# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that leaves this many times the wanted size or more. From 12
# megapixels to 1: 0.09 s instead of 0.24 s, and 43 dB from the full way, which is less than JPEG's own loss.
DRAFT_MARGIN = 1.5

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

# Types that any server takes: a file of one of them can be sent as it is, when it shows exactly the picture's pixels.
_SENDABLE = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


@dataclass(frozen=True, slots=True)
class _Decoded:
    """The picture, the upright size of the whole image, and the media type if the file shows just these pixels."""

    pixels: Image.Image
    size: tuple[int, int]
    mime: str | None


def decode(data: bytes, max_pixels: int) -> tuple[ImageInfo, DecodedImage | None]:
    """Decode a file's bytes to upright RGB of at most `max_pixels` (at least 1) pixels, keeping the aspect.

    Returns what was seen and the picture. Bytes that cannot be decoded make no picture and an
    `ImageInfo.failure` of kind
    `empty_file`, `not_an_image`, `unsupported_format`, `truncated_file`, `corrupt_file`, `bad_size` (no area) or
    `too_large` (more than MAX_DECLARED_PIXELS, or than there is memory for).
    `ImageInfo.fingerprint` is set in any case.
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


def fit(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """Return the largest (width, height) in pixels with the aspect of `size`, its area at most `max_pixels`.

    Never larger than `size`, and no side below 1.

    >>> fit((4000, 3000), 1_000_000)
    (1154, 866)
    >>> fit((640, 480), 1_000_000)
    (640, 480)
    """
    width, height = size
    if width * height <= max_pixels:
        return size
    scale = math.sqrt(max_pixels / (width * height))
    low, high = sorted((max(1, int(width * scale)), max(1, int(height * scale))))
    high = min(high, max_pixels // low)  # where the short side was rounded up to 1
    return (low, high) if width < height else (high, low)


def _decode(data: bytes, max_pixels: int) -> _Decoded | Failure:
    form = recognise(data)
    if isinstance(form, Failure):
        return form
    try:
        with form.opener(BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_DECLARED_PIXELS:
                return Failure("too_large", f"{form.name} that declares {width} x {height} pixels")
            return _picture(image, max_pixels)
    except Exception as error:  # Pillow's plugins raise a dozen kinds, from SyntaxError to zlib.error
        return diagnose(form, data, error)


def _picture(image: ImageFile.ImageFile, max_pixels: int) -> _Decoded:
    size = image.size
    box = None
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        plan_options = [math.ceil(side * DRAFT_MARGIN) for side in fit(size, max_pixels)]
        drafted = image.draft("RGB", (plan_options[0], plan_options[1]))
        box = drafted[1] if drafted else None
    image.load()
    target = fit(size, max_pixels)
    orientation = _orientation(image)  # not before loading: a TIFF turns itself upright there
    pixels = _rgb(image)
    if pixels.size != target:
        pixels = pixels.resize(target, Image.Resampling.LANCZOS, box=box)
    if orientation in _TURNS:
        pixels = pixels.transpose(_TURNS[orientation])
    mime = None
    if pixels is image:
        pixels = image.copy()
        if not getattr(image, "is_animated", False):
            mime = _SENDABLE.get(image.format or "")
    # Whoever encodes the picture would write the file's metadata again, its orientation included.
    pixels.info = {}
    return _Decoded(pixels, size[::-1] if orientation in _SIDEWAYS else size, mime)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) to 8; 1 where the metadata say nothing that can be understood."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken metadata do not spoil good pixels, and Pillow raises many kinds over them
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _rgb(image: Image.Image) -> Image.Image:
    """Return the image in mode RGB, transparency over white; `image` itself where it is that already."""
    if image.mode.startswith(("I", "F")):
        image = _grey(image)
    if image.has_transparency_data:
        overlay = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(overlay, mask=overlay.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """Return 16-bit, 32-bit or float grey values as 8 bits: Pillow would cut them off at 255 instead of scaling them.

    White is 65535 for 16 bits. For the others, whose range no file states, it is the first of 1 (floats only), 255,
    65535 and the largest value that no value exceeds; what is negative or not a number is black.
    """
    values = np.asarray(image)
    if values.dtype.kind == "u":
        return Image.fromarray((values >> 8).astype(np.uint8))
    values = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
    brightest = float(values.max())
    steps = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    white = next((step for step in steps if brightest <= step), brightest)
    return Image.fromarray((values * (255.0 / white)).clip(0.0, 255.0).astype(np.uint8))
