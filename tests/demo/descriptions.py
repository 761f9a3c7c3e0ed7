"""Descriptions of things, put together from their attributes in many wordings, and which of them training may use."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.demo.things import THINGS

ASPECTS = ("colour", "shape", "kind", "part", "use")
_ROOT = Path(__file__).parents[2]


@lru_cache
def _grammar() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("frames.yaml").read_text(encoding="utf-8"))
    return loaded


@lru_cache
def aspect_of(thing: str) -> dict[str, str]:
    """Attribute value -> aspect (colour, shape, kind, part, use) of a thing; insertion in that order."""
    return {value: aspect for aspect in ASPECTS for value in getattr(THINGS[thing], aspect)}


@lru_cache
def values_of(thing: str) -> frozenset[str]:
    """All attribute values of a thing."""
    return frozenset(aspect_of(thing))


def every_value() -> tuple[str, ...]:
    """Every attribute value of every thing, once."""
    return tuple(dict.fromkeys(value for thing in THINGS for value in aspect_of(thing)))


@lru_cache
def _published() -> frozenset[frozenset[str]]:
    """Attribute combinations that a description in vocab/scenes.yaml uses."""
    labels = yaml.safe_load((_ROOT / "vocab" / "scenes.yaml").read_text(encoding="utf-8"))["labels"]
    found = set()
    for label in labels:
        for thing in THINGS.values():
            if thing.name == label["name"]:
                found.add(frozenset(value for value in values_of(thing.id) if value in label["description"]))
    return frozenset(found)


@lru_cache(maxsize=65536)
def held_out(thing: str, values: frozenset[str]) -> bool:
    """Whether training must not describe `thing` by exactly these values: a quarter, and all of vocab/scenes.yaml."""
    digest = hashlib.blake2b("|".join([thing, *sorted(values)]).encode(), digest_size=2).digest()
    return (len(values) > 1 and digest[0] < 64) or values in _published()


@lru_cache
def _rivals(thing: str) -> frozenset[str]:
    """Attribute values of the other thing under the same name."""
    name = THINGS[thing].name
    others = [values_of(other.id) for other in THINGS.values() if other.name == name and other.id != thing]
    return frozenset().union(*others)


def attributes(rng: Random, thing: str, least: int = 1, held: bool = False) -> tuple[str, ...]:
    """One to five values of a thing, of different aspects; they tell it from the other thing under its name.

    Args:
        rng: where chance comes from.
        thing: id of the thing.
        least: the fewest values.
        held: take a combination that training does not use, instead of one that it does.
    """
    aspects = aspect_of(thing)
    for _ in range(200):
        count = max(least, rng.choices((1, 2, 3, 4, 5), (1, 2, 4, 4, 2))[0])
        chosen = rng.sample(ASPECTS, count)
        values = tuple(rng.choice([v for v, a in aspects.items() if a == aspect]) for aspect in chosen)
        if set(values) - _rivals(thing) and held_out(thing, frozenset(values)) == held:
            return values
    raise ValueError(f"no combination left for {thing}")


def article(word: str) -> str:
    """`a` or `an`.

    >>> article("orange thing"), article("tall tree")
    ('an', 'a')
    """
    return "an" if word[:1].lower() in "aeiou" else "a"


def phrase(rng: Random, thing: str, values: tuple[str, ...]) -> str:
    """The values of a thing as a description, in one of many wordings."""
    grammar, aspects = _grammar(), aspect_of(thing)
    looks = [v for v in values if aspects[v] in ("colour", "shape")]
    kinds = [v for v in values if aspects[v] == "kind"]
    clauses = []
    ahead = looks if rng.random() < 0.75 else []
    head_kind = kinds if rng.random() < 0.85 else []
    late = [v for v in values if v not in ahead and v not in head_kind]
    for value in late:
        aspect = aspects[value]
        key = {"part": "parts", "use": "uses", "kind": "kinds"}.get(aspect, "looks")
        clauses.append(str(rng.choice(grammar[key])).format(value))
    rng.shuffle(clauses)
    text = _head(rng, ahead, head_kind)
    for clause in clauses:
        text += rng.choice(grammar["joints"]) + clause
    return text.replace(" a o", " an o").replace(" a a", " an a").replace(" a i", " an i").replace(" a e", " an e")


def _head(rng: Random, looks: list[str], kinds: list[str]) -> str:
    """The noun of a description with the adjectives before it."""
    noun = kinds[0] if kinds else str(rng.choice(_grammar()["nouns"]))
    words = list(looks)
    rng.shuffle(words)
    if not kinds and rng.random() < 0.4:
        return " ".join((rng.choice(("something", "anything")), *words))
    if words and rng.random() < 0.15:
        return f"{article(noun)} {noun} {rng.choice(('in', 'that is', 'which is', 'both'))} {' and '.join(words)}"
    before = rng.choice((" ", " ", ", ", " and ")).join(words)
    start = str(rng.choice(("a", "a", "a", "the", "the", "any", "some", "one", "every", "the sort of", "")))
    body = f"{before} {noun}".strip()
    return f"{article(body) if start == 'a' else start} {body}".strip()


def describe(rng: Random, thing: str) -> str:
    """A description of a thing that training may use."""
    return phrase(rng, thing, attributes(rng, thing))


def plain(rng: Random, thing: str) -> str:
    """A short description as a person would answer: "a round red fruit with a stem and a leaf"."""
    entry = THINGS[thing]
    body = f"{rng.choice(entry.shape)} {rng.choice(entry.colour)} {rng.choice(entry.kind)}"
    return f"{article(body)} {body} with {rng.choice(entry.part)}"


def unseen_frame(rng: Random, thing: str) -> str:
    """A description of a thing in a frame that training never uses."""
    entry = THINGS[thing]
    frame = str(rng.choice(_grammar()["held_out"]))
    kind = rng.choice(entry.kind)
    colour, shape = rng.choice(entry.colour), rng.choice(entry.shape)
    return frame.format(
        a=article(colour if "{a} {c}" in frame else shape if "{a} {s}" in frame else kind), c=colour, s=shape, k=kind,
        p=rng.choice(entry.part), u=rng.choice(entry.use),
    )  # fmt: skip
