"""What the demo world is made of: `things.yaml`, read and checked.

A *thing* is something with a picture of its own; its *name* is what people call it. Two things may share a name
("mouse"): the dataset then means one of them, and `MEANS` says which. A *label* is the name of a thing that the
dataset means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import yaml

_FILE = Path(__file__).with_name("things.yaml")


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing: its glyph, and the phrases for "a COLOUR SHAPE KIND with PART that USE" (one or more of each)."""

    id: str
    name: str
    sense: str | None
    glyph: str
    kind: tuple[str, ...]
    colour: tuple[str, ...]
    shape: tuple[str, ...]
    part: tuple[str, ...]
    use: tuple[str, ...]


def _thing(thing_id: str, entry: Mapping[str, object]) -> Thing:
    name, _, sense = thing_id.partition("/")
    phrases: dict[str, tuple[str, ...]] = {}
    for key in ("kind", "colour", "shape", "part", "use"):
        values = entry[key]
        if not isinstance(values, list) or not values:
            raise ValueError(f"{thing_id}: {key} needs at least one phrase")
        phrases[key] = tuple(str(value) for value in values)
    return Thing(thing_id, name, sense or None, str(entry["glyph"]), **phrases)


_WORLD = yaml.safe_load(_FILE.read_text(encoding="utf-8"))

THINGS: Mapping[str, Thing] = MappingProxyType({key: _thing(key, entry) for key, entry in _WORLD["things"].items()})
"""Every thing by id, in file order."""

NAMES: tuple[str, ...] = tuple(dict.fromkeys(thing.name for thing in THINGS.values()))
"""Every name once, in file order; these are the labels."""

MEANS: Mapping[str, str] = MappingProxyType({name: f"{name}/{sense}" for name, sense in _WORLD["means"].items()})
"""Ambiguous name -> id of the thing that the dataset means by it."""

PLACES: Mapping[str, tuple[str, ...]] = MappingProxyType({k: tuple(ids) for k, ids in _WORLD["places"].items()})
"""Place -> ids of the things that are at home there."""

ALIKE: tuple[tuple[str, str], ...] = tuple((first, second) for first, second in _WORLD["alike"])
"""Pairs of ids that look alike; a thing is in one pair at most."""


def label_of(thing_id: str) -> str | None:
    """The label that a thing answers to; None for the sense of an ambiguous name that the dataset does not mean."""
    name = THINGS[thing_id].name
    return name if MEANS.get(name, thing_id) == thing_id else None
