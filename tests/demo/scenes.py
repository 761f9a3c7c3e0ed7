"""Pictures with known truth: glyphs of things on a background, drawn from a seed.

>>> scene = draw(7)
>>> scene.pixels.shape, scene.owner.shape
((224, 224, 3), (224, 224))
>>> draw(7).placed == scene.placed
True
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tests.demo.backgrounds import background
from tests.demo.glyphs import sprite
from tests.demo.things import MEANS, NAMES, PLACES, THINGS, Thing, label_of

__all__ = ["BACKGROUND", "MEANS", "NAMES", "THINGS", "Dials", "Placed", "Scene", "Thing", "draw"]

BACKGROUND = 255  # in Scene.owner: no thing shows here

_COUNTS = (0.04, 0.11, 0.15, 0.18, 0.17, 0.14, 0.11, 0.06, 0.04)  # probability of 0 to 8 things
_LARGEST = 0.45  # side of the largest thing as a share of the image side
_MIN_VISIBLE = 0.5  # no thing is hidden more than this by others
_MAX_OUTSIDE = 0.15  # share of a thing's box that may stick out of the picture
_TRIES = 12  # positions tried before a thing is left out
_SOLID = 128  # alpha from which a pixel belongs to a thing


@dataclass(frozen=True, slots=True)
class Dials:
    """What makes the scenes hard, each a number that an experiment can turn. DIALS.md gives the defaults' reasons."""

    other_sense: float = 1 / 3
    """0 to 1: how often an ambiguous name's picture shows the sense that the dataset does not mean."""
    alike: float = 0.2
    """0 to 0.5: how far each look-alike is cross-faded towards its partner (0.5: the same picture)."""
    company: float = 0.5
    """0 to 1: how often a thing comes from the scene's place instead of from anywhere."""
    smallest: float = 0.16
    """Above 0, up to 0.45: side of the smallest thing as a share of the image side."""

    def __post_init__(self) -> None:
        """Raise ValueError for a setting out of range."""
        limits = {"other_sense": (0, 1), "alike": (0, 0.5), "company": (0, 1), "smallest": (0.02, _LARGEST)}
        for dial, (low, high) in limits.items():
            if not low <= getattr(self, dial) <= high:
                raise ValueError(f"{dial} must be between {low} and {high}, not {getattr(self, dial)}")


@dataclass(frozen=True, slots=True)
class Placed:
    """One thing in a scene."""

    thing: str
    name: str
    label: str | None
    """The name, or None for the other sense, which the dataset does not mean."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels: all of the thing that lies within the picture, hidden or not."""
    visible: float
    """Share of its pixels within the picture that nothing hides, 0.5 to 1."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture and its truth. `placed` is in drawing order: later things hide earlier ones."""

    pixels: NDArray[np.uint8]
    """RGB, [side, side, 3]."""
    placed: tuple[Placed, ...]
    owner: NDArray[np.uint8]
    """[side, side]: index into `placed` of the thing that shows at a pixel, 255 for background."""
    place: str | None
    """Whose company the scene keeps; None where nothing was drawn."""


def draw(seed: int, dials: Dials | None = None, side: int = 224) -> Scene:
    """Draw the scene of `seed`, `side` x `side` pixels, at default dials if none are given. Same input, same bytes."""
    dials = dials or Dials()
    rng, texture = Random(seed), np.random.Generator(np.random.PCG64(seed))
    place, chosen = _choose(rng, dials)
    canvas = background(rng, texture, side)
    owner = np.full((side, side), BACKGROUND, np.uint8)
    put: list[tuple[str, int, tuple[float, float, float, float]]] = []
    for thing in chosen:
        patch = _turned(rng, thing, dials, side)
        spot = _free_spot(rng, np.asarray(patch.getchannel("A")) >= _SOLID, owner, [size for _, size, _ in put])
        if spot is not None:
            left, top, mask = spot
            canvas.paste(patch, (left, top), patch)
            put.append((thing, int(mask.sum()), _claim(owner, len(put), left, top, mask)))
    shown = np.bincount(owner.ravel(), minlength=256)
    placed = tuple(
        Placed(thing, THINGS[thing].name, label_of(thing), box, float(shown[index] / size))
        for index, (thing, size, box) in enumerate(put)
    )
    return Scene(_develop(rng, texture, canvas), placed, owner, place if placed else None)


def _choose(rng: Random, dials: Dials) -> tuple[str, list[str]]:
    """The scene's place and its things, distinct, in drawing order."""
    weights = _weights(dials.other_sense, dials.company)
    place = rng.choice(tuple(PLACES))
    count = rng.choices(range(len(_COUNTS)), _COUNTS)[0]
    chosen: list[str] = []
    while len(chosen) < count:
        pool: Sequence[str] = PLACES[place] if rng.random() < dials.company else tuple(THINGS)
        left = [thing for thing in pool if thing not in chosen and weights[thing] > 0]
        # A place may run out of things to show; a crowded scene then ends early.
        if not left:
            break
        chosen.append(rng.choices(left, [weights[thing] for thing in left])[0])
    return place, chosen


@lru_cache(maxsize=32)
def _weights(other_sense: float, company: float) -> Mapping[str, float]:
    """How heavily each thing is drawn: 1, save that the two senses of a name share 2 as `other_sense` says.

    Some senses are at home in more or smaller places than their rivals, so equal weights would not give equal numbers.
    The weights are found by repeated correction of the shares that they lead to.
    """
    weights = dict.fromkeys(THINGS, 1.0)
    rivals = {meant: next(t.id for t in THINGS.values() if t.name == n and t.id != meant) for n, meant in MEANS.items()}
    for _ in range(40):
        share = dict.fromkeys(THINGS, 0.0)
        pools = [(company / len(PLACES), ids) for ids in PLACES.values()] + [(1 - company, tuple(THINGS))]
        for chance, ids in pools:
            total = sum(weights[thing] for thing in ids)
            for thing in ids:
                share[thing] += chance * weights[thing] / total
        for meant, other in rivals.items():
            pull_meant = weights[meant] / share[meant] * (1 - other_sense) if share[meant] else 0.0
            pull_other = weights[other] / share[other] * other_sense if share[other] else 0.0
            both = pull_meant + pull_other
            weights[meant], weights[other] = 2 * pull_meant / both, 2 * pull_other / both
    return weights


def _turned(rng: Random, thing: str, dials: Dials, side: int) -> Image.Image:
    """A thing at a random size, turn, flip and brightness, as an RGBA patch with little around it."""
    size = side * math.exp(rng.uniform(math.log(dials.smallest), math.log(_LARGEST)))
    angle, flip, light = math.radians(rng.uniform(-25, 25)), rng.choice((1, -1)), rng.uniform(0.75, 1.2)
    source = sprite(thing, dials.alike, size)
    cos, sin = math.cos(angle), math.sin(angle)
    reach = math.ceil(size * (abs(cos) + abs(sin)))
    zoom, middle, centre = source.width / size, reach / 2, source.width / 2
    # Output pixel -> source pixel: to the middle, turned, mirrored, scaled, and back.
    a, b = flip * zoom * cos, flip * zoom * sin
    d, e = -zoom * sin, zoom * cos
    matrix = (a, b, centre - (a + b) * middle, d, e, centre - (d + e) * middle)
    patch = source.transform((reach, reach), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC).convert("RGBA")
    texels = np.array(patch.crop(patch.getbbox()))
    texels[..., :3] = _relight(texels[..., :3], light, 0)
    return Image.fromarray(texels)


def _relight(levels: NDArray[np.uint8], gain: float, offset: float) -> NDArray[np.uint8]:
    """Levels of any shape, multiplied and shifted; by table, which is far faster than arithmetic on every pixel."""
    table = np.clip(np.rint(np.arange(256) * gain + offset), 0, 255).astype(np.uint8)
    return np.take(table, levels)


def _free_spot(
    rng: Random, mask: NDArray[np.bool_], owner: NDArray[np.uint8], sizes: list[int]
) -> tuple[int, int, NDArray[np.bool_]] | None:
    """A corner (left, top) where a thing hides no other too much, and its mask cut to the picture; None if not found.

    `mask` is bool [height, width]; `sizes` are the pixels, hidden or not, of the things that `owner` has so far.
    """
    side, (height, width) = owner.shape[0], mask.shape
    shown = np.bincount(owner.ravel(), minlength=256)[: len(sizes)] if sizes else np.zeros(0, int)
    for _ in range(_TRIES):
        left = round(rng.uniform(-_MAX_OUTSIDE * width, side - (1 - _MAX_OUTSIDE) * width))
        top = round(rng.uniform(-_MAX_OUTSIDE * height, side - (1 - _MAX_OUTSIDE) * height))
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, side), min(top + height, side)
        if (x1 - x0) * (y1 - y0) < (1 - _MAX_OUTSIDE) * width * height:
            continue
        inside = mask[y0 - top : y1 - top, x0 - left : x1 - left]
        hidden = np.bincount(owner[y0:y1, x0:x1][inside], minlength=256)[: len(sizes)]
        if np.all(shown - hidden >= _MIN_VISIBLE * np.array(sizes, int)):
            return left, top, inside
    return None


def _claim(
    owner: NDArray[np.uint8], index: int, left: int, top: int, mask: NDArray[np.bool_]
) -> tuple[float, float, float, float]:
    """Write a thing's `index` where it shows; return its box. `mask` is cut to the picture."""
    x0, y0 = max(left, 0), max(top, 0)
    owner[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]][mask] = index
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return float(x0 + columns[0]), float(y0 + rows[0]), float(x0 + columns[-1] + 1), float(y0 + rows[-1] + 1)


def _develop(rng: Random, texture: np.random.Generator, canvas: Image.Image) -> NDArray[np.uint8]:
    """What a camera does: light and contrast always, blur and noise sometimes. Returns uint8 [side, side, 3]."""
    light, contrast = rng.uniform(-30, 25), rng.uniform(0.7, 1.2)
    if rng.random() < 0.3:
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3) * canvas.width / 224))
    pixels = _relight(np.asarray(canvas), contrast, 128 * (1 - contrast) + light)
    if rng.random() < 0.3:
        grain = texture.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(3, 18))
        pixels = np.clip(pixels + grain, 0, 255).astype(np.uint8)
    return pixels
