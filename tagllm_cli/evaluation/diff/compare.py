"""Two tables compared: counts of images and labels, causes, and the flips that tell most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.diff.causes import CAUSES, Attribution, Cause
from tagllm_cli.evaluation.diff.pairs import (
    DOUBTFUL,
    NOT_THERE,
    THERE,
    Images,
    Pairing,
    Pairs,
    join_images,
    pair_up,
    union_names,
)
from tagllm_cli.evaluation.diff.settings import Differences, differences
from tagllm_cli.evaluation.diff.side import STATES, Side, read_side
from tagllm_cli.evaluation.diff.telling import Flips, Telling
from tagllm_cli.evaluation.entry_arrays import Array
from tagllm_cli.store.table import open_table

KINDS = ("added", "removed", "undecided", "decided")
_KIND = np.full((3, 3), -1, np.int8)  # what a flip is, by what both tables come to
_KIND[NOT_THERE, THERE], _KIND[THERE, NOT_THERE] = 0, 1
_KIND[[NOT_THERE, THERE], DOUBTFUL] = 2
_KIND[DOUBTFUL, [NOT_THERE, THERE]] = 3


@dataclass(frozen=True, slots=True)
class Example:
    """One flip. `image` is its id, `earlier` its id in the first table where that is another one ("": it is not).

    `states` are those of both tables, of STATES; `probabilities` None where there is none; `move` lies in [0, 1].
    """

    image: str
    earlier: str
    label: str
    kind: str
    states: tuple[str, str]
    probabilities: tuple[float | None, float | None]
    cause: Cause
    move: float


@dataclass(frozen=True, slots=True)
class Counts:
    """How many flips there are.

    `shared` [labels, causes, kinds] are those in images that both tables have, `of_added` and `of_removed` [labels] the
    labels of the other images, `pairs` [labels] what either table says yes or unknown to in shared images. `moved` is
    the mean of |difference| of the probabilities that both tables have, NaN without any, [labels]. `flipped` images
    have a flip, `images` of them are in both tables; `differing` have a flip, other bytes, or are in one table only.
    """

    shared: Array
    of_added: Array
    of_removed: Array
    pairs: Array
    moved: Array
    flipped: int
    images: int
    differing: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two tables side by side. `names` are the labels of both, `telling` the flips that tell most."""

    sides: tuple[Side, Side]
    images: Images
    names: tuple[str, ...]
    settings: Differences
    counts: Counts
    telling: Telling

    def examples(self, limit: int) -> list[Example]:
        """Return the flips that tell most, cause by cause in turn."""
        return [self.example(flips, place) for place, flips in islice(self.telling.in_turn(), limit)]

    def image_name(self, image: int) -> tuple[str, str]:
        """Return an image's id, and that in the first table where it is another one, else ""."""
        rows = int(self.images.first[image]), int(self.images.second[image])
        names = [side.ids[row].as_py() if row >= 0 else "" for side, row in zip(self.sides, rows, strict=True)]
        if not names[1]:
            return names[0], ""
        return names[1], names[0] if self.images.renamed[image] else ""

    def example(self, flips: Flips, place: int) -> Example:
        """Return one of some flips in words."""
        image, earlier = self.image_name(int(flips.images[place]))
        states, probabilities = flips.states[:, place], flips.probabilities[:, place]
        known = [None if np.isnan(each) else round(float(each), 4) for each in probabilities]
        return Example(
            image,
            earlier,
            self.names[flips.labels[place]],
            KINDS[kinds_of(*states)],
            (STATES[states[0]], STATES[states[1]]),
            (known[0], known[1]),
            CAUSES[flips.causes[place]],
            float(flips.moves[place]),
        )

    def flips_of(self, images: Array) -> tuple[Pairs, Flips]:
        """Return all pairs of some images, ascending, and the flips among them."""
        pairs = Pairing(*self.sides, self.images).of(images)
        return pairs, _attributed(Attribution(self.sides, self.images, self.settings), _flips(pairs))


def kinds_of(first: Array, second: Array) -> Array:
    """Return which of KINDS flips are, from the states of both tables; -1 where nothing flips."""
    come_to = np.array([NOT_THERE, NOT_THERE, DOUBTFUL, THERE], np.int8)
    return np.asarray(_KIND[come_to[first], come_to[second]])


def compare_tables(first: Path, second: Path, most: int) -> Comparison:
    """Compare two tables of the same stage; `most` flips of each cause are kept.

    Raises TableError for a table that cannot be read, UsageError for tables of two stages or without a common image.
    """
    tables = open_table(first), open_table(second)
    stages = [table.info.stage for table in tables]
    if stages[0] != stages[1]:
        raise UsageError(
            f"{first} is a table of {stages[0]}, and {second} is one of {stages[1]}",
            "Compare tables of the same stage; `tagllm evaluate --truth` says what a stage does.",
        )
    sides = read_side(tables[0]), read_side(tables[1])
    images = join_images(*sides)
    if not images.shared.any() and len(images.first):
        raise UsageError(
            f"{first} and {second} share no image, neither by name nor by bytes",
            "Compare tables of the same images.",
        )
    names = union_names(*sides)
    settings = differences(*tables, names)
    counts, telling = _count(sides, images, settings, names, most)
    return Comparison(sides, images, names, settings, counts, telling)


def _flips(pairs: Pairs) -> Pairs:
    return pairs.taken(pairs.kinds(0) != pairs.kinds(1))


def _attributed(attribution: Attribution, flips: Pairs) -> Flips:
    probabilities = attribution.probabilities(flips, 0), attribution.probabilities(flips, 1)
    return Flips.of(flips, probabilities, attribution.causes(flips))


def _count(
    sides: tuple[Side, Side], images: Images, settings: Differences, names: Sequence[str], most: int
) -> tuple[Counts, Telling]:
    attribution, telling, width = Attribution(sides, images, settings), Telling(most), len(names)
    shape = (width, len(CAUSES), len(KINDS))
    shared, both = np.zeros(shape, np.int64), images.shared
    outside, pairs = np.zeros((2, width), np.int64), np.zeros(width, np.int64)
    moves, moving = np.zeros(width), np.zeros(width, np.int64)
    has_flip = np.zeros(len(both), bool)
    for block in pair_up(*sides, images):
        known = attribution.probabilities(block, 0), attribution.probabilities(block, 1)
        move = np.abs(known[1] - known[0])
        at = ~np.isnan(move)
        moves += np.bincount(block.labels[at], move[at], width)
        moving += np.bincount(block.labels[at], minlength=width)
        stated = (block.kinds(0) + block.kinds(1) > 0) & both[block.images]
        pairs += np.bincount(block.labels[stated], minlength=width)
        flips = _attributed(attribution, _flips(block))
        telling.add(flips)
        inside = both[flips.images]
        has_flip[flips.images] = True
        kinds = kinds_of(*flips.states)
        places = np.ravel_multi_index((flips.labels[inside], flips.causes[inside], kinds[inside]), shape)
        shared += np.bincount(places, minlength=shared.size).reshape(shape)
        for number, rows in enumerate((images.first, images.second)):
            lone = flips.labels[rows[flips.images] < 0]
            outside[number] += np.bincount(lone, minlength=width)
    moved = np.divide(moves, moving, out=np.full(width, np.nan), where=moving > 0)
    differing = int((~both | images.replaced | has_flip).sum())
    of_images = (int(has_flip.sum()), int((has_flip & both).sum()), differing)
    return Counts(shared, outside[0], outside[1], pairs, moved, *of_images), telling
