"""Files that are broken, empty, gigantic or no images: each is a failure of the right kind, and nothing is printed."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image, features

from tagllm_cli.records import Failure
from tagllm_cli.sources import formats
from tagllm_cli.sources.decode import decode
from tagllm_cli.sources.formats import MAX_DECLARED_PIXELS
from tests.support.image_files import FORMATS, bmp_header, encode, encode_heic, photo, png

KINDS = {
    *("empty_file", "not_an_image", "unsupported_format", "truncated_file", "corrupt_file", "bad_size", "too_large"),
    "out_of_memory",
}
BUDGET = 2000


def kind_of(data: bytes) -> str:
    return failure_of(data).kind


def failure_of(data: bytes) -> Failure:
    info, decoded = decode(data, BUDGET)
    assert decoded is None
    assert info.failure is not None
    assert "\n" not in info.failure.message
    assert len(info.failure.message) < 250
    return info.failure


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_files_cut_short(form: str, share: float) -> None:
    data = encode(photo(), form)
    assert decode(data, BUDGET)[1] is not None
    assert kind_of(data[: int(len(data) * share)]) == "truncated_file"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "AVIF"])
def test_files_cut_within_the_header(form: str) -> None:
    assert kind_of(encode(photo(), form)[:20]) == "truncated_file"


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
def test_heic_files_cut_short(share: float) -> None:
    data = encode_heic(photo())
    assert kind_of(data[: int(len(data) * share)]) == "truncated_file"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(b"", "empty_file", id="nothing"),
        pytest.param(b"hello, this is a text\n", "not_an_image", id="text"),
        pytest.param(b"<!DOCTYPE html><html>404", "not_an_image", id="web page"),
        pytest.param(bytes(1000), "not_an_image", id="zeros"),
        pytest.param(b"\0\0\0\x1cftypavif\0\0\0\0", "truncated_file", id="AVIF without anything"),
        pytest.param(b"\0\0\0\x18ftypheic\0\0\0\0", "truncated_file", id="HEIC without anything"),
        pytest.param(b"\0\0\0\x0cJXL \r\n\x87\n", "unsupported_format", id="JPEG XL"),
        pytest.param(b"II*\0\x10\0\0\0CR\2\0", "unsupported_format", id="CR2"),
        pytest.param(b"\0\0\0\x18ftypcrx \0\0\0\1", "unsupported_format", id="CR3"),
        pytest.param(b"IIU\0\x18\0\0\0", "unsupported_format", id="RW2"),
        pytest.param(b"IIRO\x08\0\0\0", "unsupported_format", id="ORF"),
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
        pytest.param(png(8, 8, 8, 7, b""), "corrupt_file", id="PNG of an unknown color type"),
        pytest.param(bmp_header(8, 8, compression=7), "unsupported_format", id="BMP compressed somehow"),
    ],
)
def test_files_that_cannot_be_decoded(data: bytes, kind: str) -> None:
    assert kind_of(data) == kind


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a Git LFS pointer: the file itself"),
        (b"\n<HTML><head>404", "a web page"),
        (b'{"error": "no"}', "JSON"),
        (b"PK\x03\x04\x14\0", "a zip archive"),
        (b"\0\0\0\x20ftypisom\0\0", "a video"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "the AppleDouble half of a macOS file"),
        (bytes(1000), "zeros, as an interrupted copy leaves them"),
        (b"root:*:20228:0:99999:7:::\n", "text"),
        ("пароль: s3cret".encode(), "text"),
        (b"s3cret\0" * 20, "bytes of no format that is known here"),
    ],
)
def test_what_is_no_image_is_named_without_showing_its_bytes(data: bytes, said: str) -> None:
    info, _ = decode(data, 100)
    assert info.failure is not None
    assert info.failure.kind == "not_an_image"
    assert info.failure.message.startswith(said)
    assert not any(hidden in info.failure.message for hidden in ("root", "s3cret", "sha256", "20228"))


def test_a_jpeg_that_declares_no_height() -> None:
    data = encode(photo(), "JPEG")
    start = data.index(b"\xff\xc0") + 5
    assert kind_of(data[:start] + b"\0\0\0\0" + data[start + 4 :]) == "bad_size"


def test_a_png_with_a_flipped_bit_is_corrupt() -> None:
    data = bytearray(encode(photo(), "PNG"))
    data[len(data) // 2] ^= 1
    assert kind_of(bytes(data)) == "corrupt_file"


def test_too_little_memory_is_a_failure_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not `too_large`: it says nothing about the image, and a later run may succeed."""

    def exhausted(self: Image.Image) -> None:
        raise MemoryError

    data = encode(photo(), "BMP")
    with monkeypatch.context() as patch:
        patch.setattr("PIL.ImageFile.ImageFile.load", exhausted)
        assert kind_of(data) == "out_of_memory"
    assert decode(data, BUDGET)[1] is not None


def test_a_codec_without_memory_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(self: Image.Image) -> None:
        raise OSError("out of memory when reading image file")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", exhausted)
    assert kind_of(encode(photo(), "PNG")) == "out_of_memory"


@pytest.mark.parametrize("width", [179_000_000, 499_000_000])
def test_pillow_asks_for_no_less_than_our_own_limit(width: int) -> None:
    """Pillow's default, 179 megapixels, would refuse frames and tiles of images that fit the budget of bytes."""
    Image._decompression_bomb_check((width, 1))
    with pytest.raises(Image.DecompressionBombError):
        Image._decompression_bomb_check((MAX_DECLARED_PIXELS + 1, 1))


def test_heic_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_register_heif", lambda: False)
    failure = failure_of(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert failure == Failure("unsupported_format", "HEIC needs: pip install 'tagllm[heif]'")


def test_the_package_for_heic_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_heic(photo())
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    formats._register_heif.cache_clear()
    try:
        assert kind_of(data) == "unsupported_format"
    finally:
        formats._register_heif.cache_clear()


def test_avif_without_its_codec_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda feature: feature != "avif")
    assert failure_of(encode(photo(), "AVIF")).message == "AVIF needs: pip install --upgrade pillow"


def test_the_brand_that_avif_and_heic_share_is_told_apart() -> None:
    data = encode(photo(), "AVIF")
    size = int.from_bytes(data[:4], "big")
    generic = data[:8] + b"mif1" + data[12:]
    assert b"avif" in generic[16:size]
    assert decode(generic, BUDGET)[1] is not None


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}], ids=["thumbnail first", "DNG"])
def test_a_raw_file_is_not_labeled_by_its_thumbnail(tags: dict[int, object]) -> None:
    assert kind_of(encode(photo(), "TIFF", tiffinfo=tags)) == "unsupported_format"


def test_a_page_of_a_document_is_an_image() -> None:
    assert decode(encode(photo(), "TIFF", tiffinfo={254: 2}), BUDGET)[1] is not None


def damaged(seed: int, count: int) -> list[bytes]:
    """Return files of every format with a few bytes changed, removed or cut off."""
    chance = random.Random(seed)
    frames = {"save_all": True, "append_images": [photo(seed=1)]}
    whole = [*(encode(photo(), form) for form in FORMATS), encode_heic(photo())]
    whole += [encode(photo(), form, **frames) for form in ("GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF")]
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


def test_no_bytes_raise() -> None:
    for data in damaged(seed=1, count=60):
        info, decoded = decode(data, BUDGET)
        if decoded is None:
            assert info.failure is not None
            assert info.failure.kind in KINDS
        else:
            assert info.failure is None
            assert decoded.pixels.mode == "RGB"
            assert decoded.pixels.width * decoded.pixels.height <= BUDGET


def test_many_threads_find_what_one_finds() -> None:
    files = damaged(seed=2, count=10)
    with ThreadPoolExecutor(8) as pool:
        together = [info for info, _ in pool.map(decode, files, [BUDGET] * len(files))]
    assert together == [decode(data, BUDGET)[0] for data in files]


def test_nothing_is_printed_or_warned_about(tmp_path: Path) -> None:
    """In a process of its own: pytest changes the filters of warnings, and libtiff writes past `sys.stderr`."""
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


def test_pillow_does_warn_about_the_odd_files() -> None:
    """Without the settings in `formats`, one of those files warns: the test above is able to fail."""
    data = encode(photo(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0garbage")
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        Image.open(io.BytesIO(data)).getexif()
