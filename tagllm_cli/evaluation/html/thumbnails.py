"""Small pictures of chosen images of a table, from the source that it was made from, within a limit of bytes.

Images are read as the source reads them best, decoded at the size that is needed, upright, in threads, a few at a
time. One that cannot be shown has a reason instead.
"""

from __future__ import annotations

import base64
import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tagllm_cli.errors import SourceError
from tagllm_cli.records import Image, SourceInfo, digest16
from tagllm_cli.sources.base import ReadFailure, Source, read_all, read_or_failure, recall
from tagllm_cli.sources.folder import is_below
from tagllm_cli.sources.registry import reopen
from tagllm_cli.text import one_line

if TYPE_CHECKING:
    import PIL.Image

# Tried in this order until one fits: the longer side in pixels, and WebP's quality.
SIZES = ((320, 72), (320, 50), (240, 50), (160, 50), (112, 40), (64, 30), (32, 20))
# Pages on which people judge small things: as large as a page can carry.
_JUDGING_SIZES = ((1024, 78), (1024, 60), (768, 60), (512, 60), (384, 50), (256, 50), (128, 40), (64, 30))
_JUDGING_BYTES = 40 << 20
_JUDGING_PICTURE = 200_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image of a table: its id and uri, and the hash of its bytes as they were labeled (b"": never read)."""

    image_id: str
    uri: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture as WebP, `width` x `height` pixels; or b"" and the `reason` why there is none."""

    webp: bytes = b""
    width: int = 0
    height: int = 0
    reason: str = ""

    @property
    def url(self) -> str:
        """The picture as a data URL, "" where there is none."""
        return f"data:image/webp;base64,{base64.b64encode(self.webp).decode('ascii')}" if self.webp else ""


def make_thumbnails(
    info: SourceInfo,
    root: str | None,
    images: Sequence[Wanted],
    max_bytes: int,
    sizes: Sequence[tuple[int, int]] = SIZES,
) -> Iterator[Thumbnail]:
    """Yield a thumbnail for each of `images`, which are in the order of their table.

    Each may take an equal share of `max_bytes`, of WebP, and gets the first of `sizes` (longer side in pixels, WebP's
    quality) that fits: the more images, the smaller they are. `root` is where the images are now, None: where the table
    says. Raises SourceError where nothing is at a `root` that was given; without one, a source that is gone is the
    reason of every image.
    """
    try:
        source = reopen(info, root)
    except SourceError as error:
        if root is not None:
            raise
        yield from [Thumbnail(reason=one_line(error.message))] * len(images)
        return
    most = max_bytes // max(1, len(images))
    workers = min(source.readers, 2 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[Thumbnail]] = deque()
        for job in _jobs(source, info.kind, images, _Limits(most, tuple(sizes))):
            ahead.append(pool.submit(job))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def judging_pictures(info: SourceInfo, root: str | None, images: Sequence[Wanted]) -> Iterator[Thumbnail]:
    """Yield pictures that people can judge, as `make_thumbnails` does: up to 1024 pixels, 40 MB together."""
    limit = min(_JUDGING_BYTES, _JUDGING_PICTURE * len(images))
    return make_thumbnails(info, root, images, limit, _JUDGING_SIZES)


@dataclass(frozen=True, slots=True)
class _Limits:
    """How many bytes a thumbnail may take, and the sizes that are tried."""

    most: int
    sizes: tuple[tuple[int, int], ...]

    @property
    def pixels(self) -> int:
        """What is decoded of an image: as much as a picture of 4:3 has in the first size."""
        side = self.sizes[0][0]
        return side * side * 3 // 4


def _jobs(source: Source, kind: str, images: Sequence[Wanted], limits: _Limits) -> Iterator[Callable[[], Thumbnail]]:
    """Yield what a thread is to do for each image; a source without an order is read in threads, too."""
    named = [recall(source, each.image_id, each.uri) for each in images]
    if source.is_ordered:
        for wanted, (_, data) in zip(images, read_all(source, named), strict=True):
            yield partial(_thumbnail, wanted, data, limits)
        return
    for wanted, image in zip(images, named, strict=True):
        if kind == "folder" and not is_below(wanted.uri):  # no listing has such a path
            yield partial(_thumbnail, wanted, ReadFailure("bad_name", "leads out of its folder"), limits)
        else:
            yield partial(_read_thumbnail, source, image, wanted, limits)


def _read_thumbnail(source: Source, image: Image, wanted: Wanted, limits: _Limits) -> Thumbnail:
    return _thumbnail(wanted, read_or_failure(source, image), limits)


def _thumbnail(wanted: Wanted, data: bytes | ReadFailure, limits: _Limits) -> Thumbnail:
    from tagllm_cli.sources.decode import decode

    if isinstance(data, ReadFailure):
        return Thumbnail(reason=one_line(f"{data.kind}: {data.message}"))
    if wanted.fingerprint and digest16(data) != wanted.fingerprint:
        return Thumbnail(reason="changed: the labels are about other bytes")
    info, decoded = decode(data, limits.pixels)
    if decoded is None:
        return Thumbnail(reason=one_line(str(info.failure)))
    for side, quality in limits.sizes:
        thumbnail = _encoded(decoded.pixels, side, quality)
        if len(thumbnail.webp) <= limits.most:
            return thumbnail
    return Thumbnail(reason=f"too_large: no picture of it fits into {limits.most:,} bytes")


def _encoded(pixels: PIL.Image.Image, side: int, quality: int) -> Thumbnail:
    small = pixels.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality, method=2)
    return Thumbnail(buffer.getvalue(), *small.size)
