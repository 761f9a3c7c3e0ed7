"""What classifiers see of the images: each is read and decoded once, and lies in one temporary file.

The file (below TMPDIR) holds features of a frozen backbone, or the pixels that it is fine-tuned on; all label sets and
seeds read from it, so that memory does not grow with the images.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.downstream.label_sets import LabelSets
from tagllm_cli.evaluation.entries import Array
from tagllm_cli.sources.base import ReadFailure, Source, read_all, recall
from tagllm_cli.sources.decode import decode
from tagllm_cli.sources.registry import reopen

# Image processors scale images down further; larger ones are not kept in memory.
MAX_PIXELS = 1 << 20

# Images in flight between reading and encoding.
_AHEAD = 64

Count = Callable[[str, int, int], None]
# Pixels float32 [3, height, width] of one image.
Prepare = Callable[[PIL.Image.Image], Array]
# Some images' pixels [n, 3, height, width] as what is stored of them [n, ...].
Encode = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Inputs:
    """The stored images: `values` [images, ...] in a file, bool `kept` [images], and why others are not there."""

    values: Array
    kept: Array
    left_out: Mapping[str, int]

    def of(self, places: Array) -> Array:
        """Return a copy [places, ...] of some of the images that were kept, by their numbers among these."""
        return np.array(self.values[np.flatnonzero(self.kept)[places]])


@contextmanager
def stored(
    sets: LabelSets, root: str | None, prepare: Prepare, encode: Encode, dtype: type, count: Count
) -> Iterator[Inputs]:
    """Read all images and hold them in a file until the context ends.

    Images that cannot be read or decoded, or that changed since they were labeled, are left out and counted. Raises
    SourceError where the source is not there, UsageError where images have several shapes or the disk is too small.
    """
    source = reopen(sets.source, root)
    folder = Path(tempfile.mkdtemp(prefix="tagllm-downstream-"))
    try:
        yield _store(folder / "inputs", sets, source, prepare, encode, dtype, count)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _store(
    path: Path, sets: LabelSets, source: Source, prepare: Prepare, encode: Encode, dtype: type, count: Count
) -> Inputs:
    total = len(sets.ids)
    kept, left_out = np.zeros(total, bool), Counter[str]()
    values: Array | None = None
    for done, some in _batches(_prepared(sets, source, prepare)):
        left_out.update(each for _, each in some if isinstance(each, str))
        ready = [(place, pixels) for place, pixels in some if not isinstance(pixels, str)]
        if ready:
            encoded = encode(_stacked([pixels for _, pixels in ready]))
            if values is None:
                values = _file(path, (total, *encoded.shape[1:]), dtype)
            if encoded.shape[1:] != values.shape[1:]:
                raise _several_shapes(encoded.shape[1:], values.shape[1:])
            places = [place for place, _ in ready]
            values[places], kept[places] = encoded, True
        count("reading images", done, total)
    if values is None:
        raise UsageError(
            f"not one image of the table can be read below {source.describe().uri}",
            f"Say with --root where they are now. Left out: {_counted(left_out)}.",
        )
    return Inputs(values, kept, dict(left_out))


def _prepared(sets: LabelSets, source: Source, prepare: Prepare) -> Iterator[tuple[int, Array | str]]:
    """Yield each image's place with its pixels, or why there are none; decoding is done in threads."""
    places = {image: place for place, image in enumerate(sets.ids)}
    images = (recall(source, *each) for each in zip(sets.ids, sets.uris, strict=True))

    def pixels(data: bytes | ReadFailure, fingerprint: bytes) -> Array | str:
        if isinstance(data, ReadFailure):
            return data.kind
        info, decoded = decode(data, MAX_PIXELS)
        if info.fingerprint != fingerprint:
            return "changed since they were labeled"
        if decoded is None:
            return "not decoded" if info.failure is None else info.failure.kind
        return prepare(decoded.pixels)

    ahead: deque[tuple[int, Future[Array | str]]] = deque()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for image, data in read_all(source, images):
            place = places[image.id]
            ahead.append((place, pool.submit(pixels, data, sets.fingerprints[place])))
            if len(ahead) == _AHEAD:
                first, future = ahead.popleft()
                yield first, future.result()
        for place, future in ahead:
            yield place, future.result()


def _batches(
    prepared: Iterable[tuple[int, Array | str]], size: int = 32
) -> Iterator[tuple[int, list[tuple[int, Array | str]]]]:
    """Yield up to `size` images at a time, with how many were yielded so far."""
    some: list[tuple[int, Array | str]] = []
    done = 0
    for done, each in enumerate(prepared, 1):
        some.append(each)
        if len(some) == size:
            yield done, some
            some = []
    if some:
        yield done, some


def _stacked(pixels: list[Array]) -> Array:
    odd = next((each for each in pixels if each.shape != pixels[0].shape), None)
    if odd is not None:
        raise _several_shapes(odd.shape, pixels[0].shape)
    return np.stack(pixels)


def _several_shapes(one: tuple[int, ...], other: tuple[int, ...]) -> UsageError:
    return UsageError(
        f"the backbone's image processor gives images of several shapes, as {list(one)} and {list(other)}",
        "Choose a backbone whose processor resizes or crops all images to one size.",
    )


def _file(path: Path, shape: tuple[int, ...], dtype: type) -> Array:
    needed = int(np.prod(shape)) * np.dtype(dtype).itemsize
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise UsageError(
            f"the images take {needed / 1e9:.1f} GB in {path.parent.parent}, which has {free / 1e9:.1f} GB left",
            "Set TMPDIR to a folder on a larger disk, or leave out --fine-tune.",
        )
    return np.memmap(path, dtype, "w+", shape=shape)


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
