"""Decoding is bounded in bytes, by what headers declare and however many threads there are."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image, ImageFile

from tagllm_cli.sources import decode as decoding
from tagllm_cli.sources.decode import decode
from tagllm_cli.sources.memory import ByteBudget, decoding_bytes
from tests.support.image_files import encode, photo, png

BIT_BOMB = png(20_000, 20_000, 1, 0, b"")  # 400 megapixels in a file of 100 bytes


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> ByteBudget:
    budget = ByteBudget(2 << 30)
    monkeypatch.setattr(decoding, "DECODING_BYTES", budget)
    return budget


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images in loading, at each load; loading is replaced by a wait for others that might come in."""
    running: list[int] = []
    counts: list[int] = []
    lock = threading.Lock()

    def load(self: ImageFile.ImageFile) -> None:
        with lock:
            running.append(id(self))
            counts.append(len(running))
        threading.Event().wait(0.02)
        with lock:
            running.remove(id(self))
        raise OSError("image file is truncated")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    return counts


def test_many_threads_stay_within_the_budget(budget: ByteBudget, loads: list[int]) -> None:
    with ThreadPoolExecutor(16) as pool:
        infos = [info for info, _ in pool.map(decode, [BIT_BOMB] * 16, [1_000_000] * 16)]
    assert {info.failure.kind for info in infos if info.failure} == {"truncated_file"}
    # 2 bytes per pixel, 0.8 GB each: two of them fit.
    assert 1_600_000_000 < budget.peak <= budget.limit
    assert (max(loads), len(loads), budget.held) == (2, 16, 0)


def test_small_images_do_not_wait_for_one_another(budget: ByteBudget, loads: list[int]) -> None:
    data = encode(photo(), "PNG")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [data] * 64, [1000] * 64))
    assert budget.peak <= 8 * (96 * 72 * 4 + 1000 * 24)
    assert max(loads) > 2


def test_an_image_larger_than_the_whole_budget_is_too_large(budget: ByteBudget, loads: list[int]) -> None:
    data = png(20_000, 20_000, 8, 6, b"")
    info, decoded = decode(data, 1_000_000)
    assert (decoded, info.failure and info.failure.kind) == (None, "too_large")
    assert info.failure is not None
    assert info.failure.message == "PNG of 20000 x 20000 pixels: decoding takes 3.0 GiB, more than 2.0"
    assert (loads, budget.peak) == ([], 0)


def test_the_budget_is_given_back_when_decoding_fails(budget: ByteBudget) -> None:
    assert decode(encode(photo(), "PNG")[:-60], 1000)[1] is None
    assert budget.peak > 0
    assert budget.held == 0


def test_who_asks_first_is_served_first() -> None:
    """A large image is not passed for ever by small ones."""
    budget = ByteBudget(10)
    order: list[int] = []
    holding, release = threading.Event(), threading.Event()

    def first() -> None:
        with budget.hold(6):
            holding.set()
            release.wait(10)

    def later(size: int) -> None:
        with budget.hold(size):
            order.append(size)

    threads = [threading.Thread(target=first), *(threading.Thread(target=later, args=[size]) for size in (9, 1))]
    threads[0].start()
    holding.wait(10)
    threads[1].start()
    while not budget._turn.locked():
        pass
    threads[2].start()
    release.set()
    for thread in threads:
        thread.join(10)
    assert (order, budget.held) == ([9, 1], 0)


def test_more_than_the_whole_budget_is_refused_instead_of_waited_for() -> None:
    with pytest.raises(ValueError, match="whole budget"), ByteBudget(10).hold(11):
        pass


@pytest.mark.parametrize(
    ("mode", "form", "options", "per_pixel"),
    [
        ("1", "PNG", {}, 2),
        ("L", "PNG", {}, 1),
        ("P", "PNG", {}, 5),
        ("P", "PNG", {"transparency": 3}, 9),
        ("RGB", "PNG", {}, 4),
        ("RGBA", "PNG", {}, 8),
        ("I;16", "PNG", {}, 5),
        ("F", "TIFF", {}, 9),
        ("RGB", "WEBP", {}, 17),
        ("RGB", "JPEG", {"progressive": True}, 10),
    ],
)
def test_the_estimate(mode: str, form: str, options: dict, per_pixel: int) -> None:
    image = Image.open(io.BytesIO(encode(Image.new(mode, (400, 300)), form, **options)))
    assert decoding_bytes(image, image.size, (0, 0)) == 400 * 300 * per_pixel


def test_a_jpeg_is_counted_at_its_reduced_size(budget: ByteBudget) -> None:
    assert decode(encode(photo(1600, 1200), "JPEG"), 400 * 300 // 2)[1] is not None
    assert budget.peak < 1600 * 1200 * 2
