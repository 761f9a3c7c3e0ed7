"""Files of every mode, orientation and frame count become upright RGB pixels within the budget."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from tagllm_cli.records import MOST_ASPECT, DecodedImage
from tagllm_cli.sources.decode import decode, fit, measure
from tests.support.image_files import encode, encode_heic, photo, png

LARGE = 1_000_000
# An upright array as it is stored in a file of each EXIF orientation.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def decoded(data: bytes, max_pixels: int = LARGE) -> DecodedImage:
    """Return the decoded image of valid bytes."""
    info, result = decode(data, max_pixels)
    assert result is not None, info.failure
    assert result.pixels.mode == "RGB"
    assert result.pixels.info == {}
    return result


def array(result: DecodedImage) -> np.ndarray:
    return np.asarray(result.pixels)


def color(data: bytes) -> list[int]:
    """Return the color in the middle of the image."""
    pixels = array(decoded(data))
    return pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].tolist()


def exif(orientation: object) -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


def plain(mode: str, value: float | tuple[int, ...]) -> Image.Image:
    return Image.new(mode, (8, 6), value)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(encode(plain("RGB", (200, 100, 50)), "PNG"), [200, 100, 50], id="RGB"),
        pytest.param(encode(plain("L", 77), "PNG"), [77, 77, 77], id="gray"),
        pytest.param(encode(plain("1", 1), "PNG"), [255, 255, 255], id="1-bit PNG"),
        pytest.param(encode(plain("1", 0), "TIFF", compression="group4"), [0, 0, 0], id="1-bit fax TIFF"),
        pytest.param(encode(plain("LA", (0, 128)), "PNG"), [127, 127, 127], id="gray with alpha"),
        pytest.param(encode(plain("RGBA", (255, 0, 0, 0)), "PNG"), [255, 255, 255], id="clear"),
        pytest.param(encode(plain("RGBA", (255, 0, 0, 51)), "WEBP", lossless=True), [255, 204, 204], id="WebP alpha"),
        pytest.param(encode(plain("RGBA", (255, 0, 0, 51)), "TIFF"), [255, 204, 204], id="TIFF alpha"),
        pytest.param(encode(plain("RGB", (9, 9, 9)).quantize(2), "PNG"), [9, 9, 9], id="palette"),
        pytest.param(
            png(1, 1, 8, 3, b"\1", PLTE=b"123\7\0\0", tRNS=b"\xff\0"), [255, 255, 255], id="palette, one clear"
        ),
        pytest.param(
            png(1, 1, 8, 3, b"\1", PLTE=b"123\0\0\0", tRNS=b"\0\x80"), [127, 127, 127], id="palette, half clear"
        ),
        pytest.param(encode(plain("P", 3), "GIF", transparency=3), [255, 255, 255], id="GIF, clear"),
        pytest.param(png(1, 1, 8, 2, bytes([1, 2, 3]), tRNS=b"\0\1\0\2\0\3"), [255, 255, 255], id="RGB, one clear"),
        pytest.param(png(1, 1, 16, 0, b"\x80\x12"), [128, 128, 128], id="16-bit gray PNG"),
        pytest.param(png(1, 1, 16, 2, b"\x80\x12\x40\x13\x20\x14"), [128, 64, 32], id="16-bit RGB PNG"),
        pytest.param(png(1, 1, 16, 6, b"\x80\x12\x40\x13\x20\x14\0\0"), [255, 255, 255], id="16-bit RGBA PNG"),
        pytest.param(png(1, 1, 2, 0, b"\x40"), [85, 85, 85], id="2-bit gray PNG"),
        pytest.param(encode(plain("I;16", 0x8012), "TIFF"), [128, 128, 128], id="16-bit TIFF"),
        pytest.param(encode(plain("I;16B", 0x8012), "TIFF"), [128, 128, 128], id="16-bit TIFF, big-endian"),
        pytest.param(encode(plain("I", 100), "TIFF"), [100, 100, 100], id="32-bit TIFF of 8-bit values"),
        pytest.param(encode(plain("I", 32768), "TIFF"), [127, 127, 127], id="32-bit TIFF of 16-bit values"),
        pytest.param(encode(plain("I", -5), "TIFF"), [0, 0, 0], id="32-bit TIFF below 0"),
        pytest.param(encode(plain("F", 0.5), "TIFF"), [127, 127, 127], id="float TIFF up to 1"),
        pytest.param(encode(plain("F", 200.0), "TIFF"), [200, 200, 200], id="float TIFF up to 255"),
        pytest.param(encode(plain("F", 1e9), "TIFF"), [255, 255, 255], id="float TIFF, any range"),
        pytest.param(encode(plain("F", float("nan")), "TIFF"), [0, 0, 0], id="float TIFF, not a number"),
        pytest.param(encode(plain("CMYK", (0, 255, 255, 0)), "TIFF"), [255, 0, 0], id="CMYK TIFF"),
        pytest.param(encode(plain("LAB", (255, 128, 128)), "TIFF"), [255, 255, 255], id="Lab TIFF"),
        pytest.param(encode(plain("YCbCr", (76, 85, 255)), "TIFF"), [254, 0, 0], id="YCbCr TIFF"),
        pytest.param(encode(plain("RGB", (200, 100, 50)), "BMP"), [200, 100, 50], id="BMP"),
    ],
)
def test_modes(data: bytes, expected: list[int]) -> None:
    assert np.abs(np.subtract(color(data), expected)).max() <= 1


def test_cmyk_jpeg() -> None:
    data = encode(plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=100)
    assert np.abs(np.subtract(color(data), (255, 0, 0))).max() <= 4
    assert decoded(data).encoded is None


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG", "MPO"])
def test_the_first_frame_is_decoded(form: str) -> None:
    first, second = Image.new("RGB", (32, 24), "red"), Image.new("RGB", (32, 24), "blue")
    data = encode(first, form, save_all=True, append_images=[second, second.rotate(90)])
    red, _, blue = color(data)
    assert (red > 240, blue < 15) == (True, True)
    assert decoded(data).encoded is None


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_orientations(form: str, orientation: int) -> None:
    upright = photo(96, 64)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](np.asarray(upright))))
    options = {"lossless": True} if form == "WEBP" else {"quality": 95} if form == "JPEG" else {}
    data = encode(stored, form, exif=exif(orientation), **options)
    assert measure(data) == (96, 64)
    for budget, size in ((LARGE, (96, 64)), (96 * 64 // 4, (48, 32))):
        info, result = decode(data, budget)
        assert result is not None
        assert ((info.width, info.height), result.pixels.size) == ((96, 64), size)
        expected = np.asarray(upright.resize(size, Image.Resampling.LANCZOS), dtype=int)
        assert np.abs(array(result) - expected).mean() < 2.5
        assert (result.encoded is None) == (orientation != 1 or form == "TIFF" or budget != LARGE)


@pytest.mark.parametrize("form", ["HEIC", "AVIF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heic_and_avif_are_read_upright(form: str, orientation: int) -> None:
    upright = photo(96, 64)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](np.asarray(upright))))
    stored.getexif()[ExifTags.Base.Orientation] = orientation  # HEIC has the turn in its container too, as from phones
    data = encode_heic(stored) if form == "HEIC" else encode(stored, form, exif=stored.getexif())
    info, result = decode(data, LARGE)
    assert result is not None
    assert measure(data) == (96, 64)
    assert ((info.width, info.height), result.pixels.size, result.encoded) == ((96, 64), (96, 64), None)
    assert np.abs(array(result).astype(int) - np.asarray(upright)).mean() < 4


def test_heic_over_white() -> None:
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert color(encode_heic(clear)) == [255, 255, 255]


@pytest.mark.parametrize("orientation", [0, 9, 65535, None])
def test_an_orientation_that_means_nothing_is_upright(orientation: int | None) -> None:
    tags = exif(orientation).tobytes() if orientation is not None else b"Exif\0\0MM\0*garbage and more"
    assert decoded(encode(photo(), "JPEG", exif=tags)).pixels.size == (96, 72)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_huge_metadata(form: str) -> None:
    tags = exif(6)
    tags[ExifTags.Base.ImageDescription] = "x" * (60_000 if form == "JPEG" else 5_000_000)
    assert decoded(encode(photo(), form, exif=tags)).pixels.size == (72, 96)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("profile", [b"", b"not a profile", b"\0" * 100_000])
def test_color_profiles_are_ignored(form: str, profile: bytes) -> None:
    with_profile, without = encode(photo(), form, icc_profile=profile), encode(photo(), form)
    assert (array(decoded(with_profile)) == array(decoded(without))).all()


def test_an_image_encoded_again_has_no_metadata() -> None:
    data = encode(photo(), "JPEG", exif=exif(6), icc_profile=b"profile", comment=b"comment")
    again = Image.open(io.BytesIO(encode(decoded(data).pixels, "JPEG")))
    assert dict(again.getexif()) == {}
    assert not {"icc_profile", "comment", "exif"} & set(again.info)


@pytest.mark.parametrize(("form", "mime"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")])
def test_a_file_that_shows_exactly_the_pixels_can_be_sent_as_it_is(form: str, mime: str) -> None:
    data = encode(photo(), form)
    result = decoded(data)
    assert (result.encoded, result.mime) == (data, mime)
    assert (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) == array(result)).all()
    assert decoded(data, 1000).encoded is None


@pytest.mark.parametrize(
    ("form", "mode"), [("JPEG", "L"), ("PNG", "L"), ("PNG", "P"), ("PNG", "RGBA"), ("WEBP", "RGBA")]
)
def test_a_file_that_has_to_be_converted_is_not_sent(form: str, mode: str) -> None:
    image = photo().convert(mode)
    if mode == "RGBA":
        image.putalpha(200)
    assert decoded(encode(image, form)).encoded is None


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF"])
def test_other_formats_are_encoded_anew(form: str) -> None:
    assert decoded(encode(photo(), form)).encoded is None


def test_the_reduced_decoding_of_jpeg_shows_the_same() -> None:
    whole = photo(1601, 1203)  # not a multiple of 8
    data = encode(whole, "JPEG", quality=90)
    for budget in (1_000_000, 200_000, 50_000, 300):
        result = decoded(data, budget)
        reference = whole.resize(result.pixels.size, Image.Resampling.LANCZOS)
        error = array(result).astype(float) - np.asarray(reference)
        assert (error**2).mean() < 1.0, budget
    assert Image.open(io.BytesIO(data)).draft("RGB", (300, 200)) == ("RGB", (0, 0, 400.25, 300.75))


def test_fingerprint_and_uuid() -> None:
    data = encode(photo(), "PNG")
    info, result = decode(data, LARGE)
    assert info.fingerprint == hashlib.blake2b(data, digest_size=16).digest()
    assert (info.width, info.height) == (96, 72)
    assert decode(b"no image", LARGE)[0].fingerprint == hashlib.blake2b(b"no image", digest_size=16).digest()
    others = [decoded(data, 1000), decoded(encode(photo(seed=1), "PNG"))]
    assert result is not None
    assert len({result.uuid, *(other.uuid for other in others)}) == 3
    assert decoded(data).uuid == result.uuid


sides = st.integers(1, 100_000)


@given(width=sides, height=sides, max_pixels=st.integers(1, 4_000_000))
def test_fit(width: int, height: int, max_pixels: int) -> None:
    new_width, new_height = fit((width, height), max_pixels)
    assert min(new_width, new_height) >= 1
    assert max(new_width, new_height) <= MOST_ASPECT * min(new_width, new_height)
    assert new_width * new_height <= max_pixels
    if max(width, height) <= MOST_ASPECT * min(width, height):
        assert (new_width <= width) & (new_height <= height)
    else:  # widened first
        width, height = (max(side, -(-max(width, height) // MOST_ASPECT)) for side in (width, height))
    if width * height <= max_pixels:
        assert (new_width, new_height) == (width, height)
    elif min(new_width, new_height) > 1 and max(new_width, new_height) < MOST_ASPECT * min(new_width, new_height):
        # Each side is at most one pixel short of the exact scale.
        scale = (max_pixels / (width * height)) ** 0.5
        assert width * scale - new_width < 1.001
        assert height * scale - new_height < 1.001


def test_the_header_alone_tells_the_size() -> None:
    whole = encode(photo(96, 64), "JPEG")
    assert measure(whole[: len(whole) // 2]) == (96, 64)
    assert [measure(data) for data in (b"", b"no picture", whole[:4])] == [None, None, None]


def test_extreme_aspects() -> None:
    assert decoded(encode(Image.new("RGB", (5000, 1)), "PNG"), 100).pixels.size == (100, 1)
    assert decoded(encode(Image.new("RGB", (1, 5000)), "JPEG"), 100).pixels.size == (1, 100)
    assert decoded(encode(photo(), "JPEG"), 1).pixels.size == (1, 1)


@pytest.mark.parametrize(
    ("size", "expected"), [((300, 1), (300, 2)), ((1, 10_000), (50, 10_000)), ((400, 2), (400, 2))]
)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF"])
def test_what_is_thinner_than_any_processor_takes_is_widened(
    size: tuple[int, int], expected: tuple[int, int], form: str
) -> None:
    info, result = decode(encode(Image.new("RGB", size, (10, 200, 30)), form), LARGE)
    assert (info.width, info.height) == size
    assert result is not None
    assert result.pixels.size == expected
    assert np.abs(array(result).astype(int) - (10, 200, 30)).max() <= 8
    assert (result.encoded is None) == (size != expected or form == "GIF")
