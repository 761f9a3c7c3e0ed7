"""Backgrounds that carry no label: flat, gradient, stripes, checks, soft blobs, speckle; dull and vivid."""

from __future__ import annotations

import colorsys
import math
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def background(rng: Random, texture: np.random.Generator, side: int) -> Image.Image:
    """A random RGB picture of `side` x `side` pixels. What it looks like does not depend on `side`, up to texture."""
    paint = rng.choice((_flat, _gradient, _stripes, _checks, _blobs, _speckle))
    return paint(rng, texture, side)


def _colour(rng: Random) -> tuple[int, int, int]:
    vivid = rng.random() < 0.35
    saturation = rng.uniform(0.4, 0.95) if vivid else rng.uniform(0.0, 0.3)
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), saturation, rng.uniform(0.2, 1.0))
    return round(255 * red), round(255 * green), round(255 * blue)


def _pair(rng: Random) -> NDArray[np.uint8]:
    """Two colours, uint8 [2, 3]: the second is the first mixed with another, so that patterns are rarely glaring."""
    first, other = np.array(_colour(rng), float), np.array(_colour(rng), float)
    return np.rint([first, first + (other - first) * rng.uniform(0.25, 1.0)]).astype(np.uint8)


def _flat(rng: Random, _texture: np.random.Generator, side: int) -> Image.Image:
    return Image.new("RGB", (side, side), _colour(rng))


def _gradient(rng: Random, _texture: np.random.Generator, side: int) -> Image.Image:
    corners = np.stack([_pair(rng), _pair(rng)])
    if rng.random() < 0.5:
        corners[1] = corners[0]  # a plain gradient from left to right, perhaps turned below
    picture = Image.fromarray(corners).resize((side, side), Image.Resampling.BILINEAR, box=(0.5, 0.5, 1.5, 1.5))
    return picture.transpose(Image.Transpose.ROTATE_90) if rng.random() < 0.5 else picture


def _phase(rng: Random, side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two perpendicular coordinates, float32 [side, side], in periods of a turned pattern."""
    angle, periods = rng.uniform(0, math.pi), rng.uniform(2, 14)
    axis = np.arange(side, dtype=np.float32) * np.float32(periods / side)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    across = (axis * cos)[None, :] + (axis * sin)[:, None] + np.float32(100)
    along = (axis * cos)[:, None] - (axis * sin)[None, :] + np.float32(100)
    return across, along


def _stripes(rng: Random, _texture: np.random.Generator, side: int) -> Image.Image:
    across, _ = _phase(rng, side)
    return Image.fromarray(_pair(rng)[(across * 2).astype(np.uint8) & 1])


def _checks(rng: Random, _texture: np.random.Generator, side: int) -> Image.Image:
    across, along = _phase(rng, side)
    return Image.fromarray(_pair(rng)[((across * 2).astype(np.uint8) ^ (along * 2).astype(np.uint8)) & 1])


def _blobs(rng: Random, _texture: np.random.Generator, side: int) -> Image.Image:
    cells = rng.randint(3, 9)
    pair = _pair(rng).astype(float)
    mix = np.array([rng.random() for _ in range(cells * cells)]).reshape(cells, cells, 1)
    colours = np.rint(pair[0] * mix + pair[1] * (1 - mix)).astype(np.uint8)
    return Image.fromarray(colours).resize((side, side), Image.Resampling.BICUBIC)


def _speckle(rng: Random, texture: np.random.Generator, side: int) -> Image.Image:
    grain = rng.choice((1, 2, 4))
    cells = -(-side // grain)
    mix = (texture.integers(0, 256, (cells, cells), dtype=np.uint8) < rng.randint(10, 128)).astype(np.uint8)
    picture = Image.fromarray(_pair(rng)[mix])
    return picture.resize((side, side), Image.Resampling.NEAREST)
