"""Concept cards: what a dataset means by a label, as the question about a candidate says it.

A card file is YAML: `cards:` is a list of mappings with `name`, `description` and, if needed, `similar` (labels that it
must be told apart from), `synonyms`, `includes` and `excludes` (short phrases).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from tagllm_cli.errors import VocabularyError
from tagllm_cli.schema import Vocabulary
from tagllm_cli.shipped import read_yaml

_LISTS = ("similar", "synonyms", "includes", "excludes")
_KEYS = ("name", "description", *_LISTS)


@dataclass(frozen=True, slots=True)
class Card:
    """One label's concept card. `description` completes "Here it means ...", without a stop; `similar` are labels."""

    name: str
    description: str
    similar: tuple[str, ...] = ()


def cards_of(vocabulary: Vocabulary) -> Mapping[str, Card]:
    """Return the cards that a vocabulary's own descriptions make; a label without a description has none."""
    return {
        label.name: Card(label.name, _phrase(label.description), label.similar)
        for label in vocabulary.labels
        if _phrase(label.description)
    }


def load_cards(path: Path, vocabulary: Vocabulary) -> Mapping[str, Card]:
    """Return a card file's cards by label name; labels that it leaves out have none.

    What a card says beyond its description becomes part of it: "..., also called X, including Y, but not Z". Raises
    VocabularyError for an unreadable file, an unknown label or key, a missing description, or two cards for one label.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or set(content) != {"cards"} or not isinstance(content["cards"], list):
        raise VocabularyError(f"{path} holds no cards", "A card file is one key, `cards`, with a list of mappings.")
    names = frozenset(vocabulary.names)
    cards: dict[str, Card] = {}
    for number, entry in enumerate(content["cards"], 1):
        try:
            card = _card(entry, names)
            if card.name in cards:
                raise ValueError(f"{card.name!r} has a card already")
        except ValueError as error:
            raise VocabularyError(
                f"{path}, card {number}: {error}", f"Labels are those of {vocabulary.name}."
            ) from error
        cards[card.name] = card
    return cards


def _card(entry: object, names: Collection[str]) -> Card:
    if not isinstance(entry, dict):
        raise ValueError("it is not a mapping")
    if unknown := [key for key in entry if key not in _KEYS]:
        raise ValueError(f"unknown key {unknown[0]!r} (known: {', '.join(_KEYS)})")
    name, description = entry.get("name"), entry.get("description")
    if not isinstance(name, str) or name not in names:
        raise ValueError(f"{name!r} is no label" if name else "it has no name")
    if not isinstance(description, str) or not _phrase(description):
        raise ValueError(f"{name!r} has no description")
    lists = {key: _phrases(entry, key) for key in _LISTS}
    for other in lists["similar"]:
        if other not in names or other == name:
            raise ValueError(
                f"{name!r} is called similar to {'itself' if other == name else f'{other!r}, which is no label'}"
            )
    parts = (("also called", lists["synonyms"]), ("including", lists["includes"]), ("but not", lists["excludes"]))
    extras = [f"{word} {', '.join(phrases)}" for word, phrases in parts if phrases]
    return Card(name, ", ".join([_phrase(description), *extras]), lists["similar"])


def _phrases(entry: Mapping[object, object], key: str) -> tuple[str, ...]:
    value = entry.get(key) or []
    if isinstance(value, list) and all(isinstance(phrase, str) and _phrase(phrase) for phrase in value):
        return tuple(value if key == "similar" else map(_phrase, value))
    raise ValueError(f"`{key}` of {entry['name']!r} is not a list of texts")


def _phrase(text: str) -> str:
    return " ".join(text.split()).rstrip(". ")
