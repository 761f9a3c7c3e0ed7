"""Files that are broken, empty, gigantic or no images: each is a failure of the right kind, in silence."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from tagllm_cli.sources.decode import decode
from tests.support.image_files import FORMATS, bmp_header, encode, photo, png

KINDS = {
    *("empty_file", "not_an_image", "unsupported_format", "truncated_file", "corrupt_file", "bad_size", "too_large"),
}
BUDGET = 2000


def kind_of(data: bytes) -> str:
    info, picture = decode(data, BUDGET)
    assert picture is None
    assert info.failure is not None
    assert "\n" not in info.failure.message
    assert len(info.failure.message) < 250
    return info.failure.kind


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_files_cut_short(form: str, share: float) -> None:
    data = encode(photo(), form)
    assert decode(data, BUDGET)[1] is not None
    assert kind_of(data[: int(len(data) * share)]) == "truncated_file"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_files_cut_within_the_header(form: str) -> None:
    assert kind_of(encode(photo(), form)[:20]) == "truncated_file"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(b"", "empty_file", id="nothing"),
        pytest.param(b"hello, this is a text\n", "not_an_image", id="text"),
        pytest.param(b"<!DOCTYPE html><html>404", "not_an_image", id="web page"),
        pytest.param(bytes(1000), "not_an_image", id="zeros"),
        pytest.param(b"\0\0\0\x1cftypavif\0\0\0\0", "unsupported_format", id="AVIF"),
        pytest.param(b"\0\0\0\x18ftypheic\0\0\0\0", "unsupported_format", id="HEIC"),
        pytest.param(b'<?xml version="1.0"?>\n<svg xmlns=""/>', "unsupported_format", id="SVG"),
        pytest.param(b"%PDF-1.7", "unsupported_format", id="PDF"),
        pytest.param(encode(photo(), "JPEG2000"), "unsupported_format", id="JPEG 2000"),
        pytest.param(encode(photo(), "PPM"), "unsupported_format", id="Netpbm"),
        pytest.param(png(60_000, 60_000, 8, 2, b""), "too_large", id="PNG bomb"),
        pytest.param(bmp_header(60_000, 60_000), "too_large", id="BMP bomb"),
        pytest.param(b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\0;", "too_large", id="GIF bomb"),
        pytest.param(png(0, 0, 8, 2, b""), "bad_size", id="PNG 0x0"),
        pytest.param(png(5, 0, 8, 2, b""), "bad_size", id="PNG 5x0"),
        pytest.param(bmp_header(0, 0), "bad_size", id="BMP 0x0"),
        pytest.param(b"GIF89a\0\0\0\0\0\0\0;", "bad_size", id="GIF 0x0"),
        pytest.param(png(8, 8, 8, 7, b""), "corrupt_file", id="PNG of an unknown colour type"),
        pytest.param(bmp_header(8, 8, compression=7), "unsupported_format", id="BMP compressed somehow"),
    ],
)
def test_files_that_are_no_pictures(data: bytes, kind: str) -> None:
    assert kind_of(data) == kind


def test_a_jpeg_that_declares_no_height() -> None:
    data = encode(photo(), "JPEG")
    start = data.index(b"\xff\xc0") + 5
    assert kind_of(data[:start] + b"\0\0\0\0" + data[start + 4 :]) == "bad_size"


def test_a_png_with_a_flipped_bit_is_corrupt() -> None:
    data = bytearray(encode(photo(), "PNG"))
    data[len(data) // 2] ^= 1
    assert kind_of(bytes(data)) == "corrupt_file"


def test_the_limit_on_pixels_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for form in ("JPEG", "PNG", "BMP"):
        assert decode(encode(photo(), form), BUDGET)[1] is not None


def test_too_little_memory_is_a_failure_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(self: Image.Image) -> None:
        raise MemoryError

    data = encode(photo(), "BMP")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", exhausted)
    assert kind_of(data) == "too_large"


def damaged(seed: int, count: int) -> list[bytes]:
    """Return files of every format with a few bytes changed, removed or cut off."""
    chance = random.Random(seed)
    frames = {"save_all": True, "append_images": [photo(seed=1)]}
    whole = [encode(photo(), form) for form in FORMATS]
    whole += [encode(photo(), form, **frames) for form in ("GIF", "PNG", "WEBP", "TIFF", "MPO")]
    whole += [encode(photo(), "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "tiff_adobe_deflate")]
    whole += [encode(photo().convert("CMYK"), "JPEG"), encode(photo().quantize(), "PNG", transparency=3)]
    files = []
    for data in whole * count:
        changed = bytearray(data)
        for _ in range(chance.choice([1, 2, 10])):
            changed[chance.randrange(chance.choice([300, len(changed)]))] = chance.randrange(256)
        start = chance.randrange(len(changed))
        del changed[start : start + chance.choice([0, 0, 1, 50, len(changed)])]
        files.append(bytes(changed))
    return files


def test_no_bytes_whatever_raise() -> None:
    for data in damaged(seed=1, count=60):
        info, picture = decode(data, BUDGET)
        if picture is None:
            assert info.failure is not None
            assert info.failure.kind in KINDS
        else:
            assert info.failure is None
            assert picture.pixels.mode == "RGB"
            assert picture.pixels.width * picture.pixels.height <= BUDGET


def test_many_threads_see_what_one_sees() -> None:
    files = damaged(seed=2, count=10)
    with ThreadPoolExecutor(8) as pool:
        together = [info for info, _ in pool.map(decode, files, [BUDGET] * len(files))]
    assert together == [decode(data, BUDGET)[0] for data in files]


def test_nothing_is_printed_or_warned_about(tmp_path: Path) -> None:
    """In a process of its own: pytest has its own ideas about warnings, and libtiff writes past `sys.stderr`."""
    odd = [
        encode(photo(), "TIFF", compression="tiff_lzw")[:-200],
        encode(photo(), "TIFF").replace(b"\x15\1\3\0\1\0\0\0\3\0", b"\x15\1\3\0\1\0\0\0\3\xe0"),
        encode(photo(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0garbage"),
        *damaged(seed=3, count=5),
    ]
    for number, data in enumerate(odd):
        (tmp_path / str(number)).write_bytes(data)
    code = "import pathlib, sys; from tagllm_cli.sources.decode import decode\n"
    code += "for path in pathlib.Path(sys.argv[1]).iterdir(): decode(path.read_bytes(), 2000)"
    command = [sys.executable, "-W", "always", "-c", code, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_odd_files_do_make_pillow_talk() -> None:
    """Without what `formats` does about it, one of those files warns: the test above is able to fail."""
    data = encode(photo(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0garbage")
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        Image.open(io.BytesIO(data)).getexif()
