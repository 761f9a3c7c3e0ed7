"""Training scenes, drawn once by several processes and kept on disk as arrays that training maps into memory.

A chunk is two files under the pool folder: `NNNNN.pixels.npy` (uint8 [chunk, 224, 224, 3]) and `NNNNN.cells.npy`
(uint8 [chunk, 49, things]): how much of a thing shows in a cell of 32 x 32 pixels, 255 for "plainly there".
"""

from __future__ import annotations

import io
import multiprocessing
import os
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.demo.scenes import THINGS, Dials, Scene, draw

CHUNK = 500
FIRST_SEED = 10_000_000
SIDE, CELLS = 224, 7
INDEX = {thing: index for index, thing in enumerate(THINGS)}
_LEFT_OVER = 0.4  # a thing counts as still there when a crop leaves this share of what was visible


def cells(scene: Scene, owner: NDArray[np.uint8], before: NDArray[np.int64]) -> NDArray[np.uint8]:
    """How much of each thing shows in each cell of `owner` ([224, 224]): uint8 [49, things].

    The larger of the share of the cell that the thing covers and the share of the thing that lies in the cell, doubled
    and cut at 255. `before` are the visible pixels of each placed thing before any crop, int [placed].
    """
    target = np.zeros((CELLS * CELLS, len(THINGS)), np.uint8)
    step = SIDE // CELLS
    for index, placed in enumerate(scene.placed):
        count = (owner == index).reshape(CELLS, step, CELLS, step).sum((1, 3)).ravel()
        if count.sum() >= _LEFT_OVER * before[index]:
            share = np.maximum(count / step**2, count / max(count.sum(), 1))
            target[:, INDEX[placed.thing]] = np.minimum(510 * share, 255)
    return target


def example(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One training picture and its cells, with dials, stretch and compression drawn from the seed."""
    rng = Random(seed)
    senses, alike = rng.uniform(0.4, 0.6), rng.uniform(0, 0.45)
    dials = Dials(senses, alike, company=rng.random(), smallest=rng.uniform(0.12, 0.25))
    scene = draw(seed, dials)
    before = np.array([(scene.owner == index).sum() for index in range(len(scene.placed))], np.int64)
    image, owner = Image.fromarray(scene.pixels), scene.owner
    if rng.random() < 0.25:
        # Pictures that are not square are squeezed into the square: cut one to a ratio of up to 4:3 and stretch it.
        width, height = rng.choice(((rng.randint(168, SIDE), SIDE), (SIDE, rng.randint(168, SIDE))))
        left, top = rng.randint(0, SIDE - width), rng.randint(0, SIDE - height)
        box, square = (left, top, left + width, top + height), (SIDE, SIDE)
        image = image.resize(square, Image.Resampling.BICUBIC, box)
        owner = np.asarray(Image.fromarray(owner).resize(square, Image.Resampling.NEAREST, box))
        before = (before * (SIDE * SIDE / (width * height))).astype(np.int64)
    if rng.random() < 0.4:
        image = _stored(image, rng)
    return np.asarray(image), cells(scene, owner, before)


def _stored(image: Image.Image, rng: Random) -> Image.Image:
    """The picture after it was scaled, saved with losses, read and scaled back."""
    side = rng.randint(190, 420)
    file = io.BytesIO()
    scaled = image.resize((side, side), Image.Resampling.LANCZOS)
    scaled.save(file, rng.choice(("JPEG", "WEBP")), quality=rng.randint(55, 95))
    return Image.open(file).convert("RGB").resize(image.size, Image.Resampling.LANCZOS)


def write_chunk(folder: Path, number: int) -> None:
    """Draws chunk `number` unless it is there; the cells, written last, make it complete."""
    done = folder / f"{number:05d}.cells.npy"
    if done.exists():
        return
    pairs = [example(FIRST_SEED + number * CHUNK + offset) for offset in range(CHUNK)]
    for part, arrays in zip(("pixels", "cells"), zip(*pairs, strict=True), strict=True):
        fresh = folder / f".{number:05d}.{part}.{os.getpid()}"
        with fresh.open("wb") as file:
            np.save(file, np.stack(arrays))
        fresh.rename(folder / f"{number:05d}.{part}.npy")


def _work(folder: Path, numbers: list[int], parent: int) -> None:
    os.nice(10)
    for number in numbers:
        # Training that was killed cannot stop its helpers: they leave by themselves.
        if os.getppid() != parent:
            return
        write_chunk(folder, number)


def fill(folder: Path, chunks: int, workers: int) -> list[BaseProcess]:
    """Starts `workers` processes that draw the first `chunks` chunks, lowest numbers first, beside training.

    They end when all is drawn, when they are terminated, or one chunk after the process that started them has died.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = sorted(set(range(chunks)) - set(ready(folder)))
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    for start in range(min(workers, len(missing))):
        share = missing[start::workers]
        processes.append(context.Process(target=_work, args=(folder, share, os.getpid()), daemon=True))
        processes[-1].start()
    return processes


def ready(folder: Path) -> list[int]:
    """Numbers of the chunks that are complete."""
    return sorted(int(path.name[:5]) for path in folder.glob("[0-9]*.cells.npy"))
