"""Concept cards: what a dataset means by a label, as the question about a candidate says it.

A card file is YAML: `cards:` is a list of mappings with `name`, `description` and, if needed, `similar` (labels that it
must be told apart from), `synonyms`, `includes` and `excludes` (short phrases). `tagllm concepts` adds `author` and
`history` to the cards that it writes, and two more lists: `proposed:`, cards that wait for a person's decision, and
`unwritten:`, labels that have no card, with the reason. Only `cards:` is ever used in a question.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tagllm_cli.errors import VocabularyError
from tagllm_cli.resources import read_yaml
from tagllm_cli.vocabulary.model import Vocabulary

LISTS = ("similar", "synonyms", "includes", "excludes")
_SAYS = ("description", *LISTS)
_CARD_KEYS = ("name", *_SAYS, "author", "history")
_UNWRITTEN_KEYS = ("name", "why", "round", "history")
_ATTEMPT_KEYS = ("round", "author", *_SAYS, "kept", "why", "date", "reading", "relation", "disputed")
_SECTIONS = {"cards": "card", "proposed": "proposed card", "unwritten": "unwritten label"}


@dataclass(frozen=True, slots=True)
class Card:
    """One label's concept card. `description` completes "Here it means ...", without a stop; `similar` are labels."""

    name: str
    description: str
    similar: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wording:
    """What a card says, as it is written down. `similar` are labels, the other lists are short phrases."""

    description: str = ""
    similar: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()

    def card(self, name: str) -> Card:
        """Return the card that a question shows: "DESCRIPTION, also called X, including Y, but not Z"."""
        parts = (("also called", self.synonyms), ("including", self.includes), ("but not", self.excludes))
        extras = [f"{word} {', '.join(phrases)}" for word, phrases in parts if phrases]
        return Card(name, ", ".join([self.description, *extras]), self.similar)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One entry of a card's history: what was written in a round (1, 2, ...), by whom, and what became of it.

    `wording` is empty where nothing usable came. `reading` is what the bare name means to the multimodal model,
    `relation` how that compares with the wording; `disputed` are pictures whose decision the card changes.
    """

    round: int
    author: str
    wording: Wording
    kept: bool
    why: str
    date: str = ""
    reading: str = ""
    relation: str = ""
    disputed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One label in a card file; without an `author` it was written by hand. `why` and `round`: why it has no card."""

    name: str
    wording: Wording = Wording()
    author: str = ""
    history: tuple[Attempt, ...] = ()
    why: str = ""
    round: int = 0


@dataclass(frozen=True, slots=True)
class CardFile:
    """A card file's three lists, each by label name."""

    cards: Mapping[str, Entry] = field(default_factory=dict)
    proposed: Mapping[str, Entry] = field(default_factory=dict)
    unwritten: Mapping[str, Entry] = field(default_factory=dict)


def cards_of(vocabulary: Vocabulary) -> Mapping[str, Card]:
    """Return the cards that a vocabulary's own descriptions make; a label without a description has none."""
    return {
        label.name: Card(label.name, phrase(label.description), label.similar)
        for label in vocabulary.labels
        if phrase(label.description)
    }


def load_cards(path: Path, vocabulary: Vocabulary) -> Mapping[str, Card]:
    """Return a card file's cards by label name, for the labels that it has cards for.

    What a card says beyond its description becomes part of it: "..., also called X, including Y, but not Z". Raises
    VocabularyError as `load_card_file` does.
    """
    return {name: entry.wording.card(name) for name, entry in load_card_file(path, vocabulary).cards.items()}


def load_card_file(path: Path, vocabulary: Vocabulary) -> CardFile:
    """Return everything that a card file holds.

    Raises VocabularyError for an unreadable file, an unknown label or key, a missing description, or two cards for one
    label.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("cards"), list) or content.keys() - _SECTIONS:
        known = ", ".join(f"`{section}`" for section in _SECTIONS)
        raise VocabularyError(
            f"{path} holds no cards", f"A card file is a list of mappings under the key `cards` (its keys: {known})."
        )
    names = frozenset(vocabulary.names)
    lists: dict[str, dict[str, Entry]] = {}
    for section, what in _SECTIONS.items():
        found = lists[section] = {}
        entries = content.get(section) or []
        for number, value in enumerate(entries if isinstance(entries, list) else [entries], 1):
            try:
                entry = read_entry(value, names, written=section != "unwritten")
                if entry.name in found:
                    raise ValueError(f"{entry.name!r} has a card already")
            except ValueError as error:
                raise VocabularyError(
                    f"{path}, {what} {number}: {error}", f"Labels are those of {vocabulary.name}."
                ) from error
            found[entry.name] = entry
    return CardFile(**lists)


def read_entry(value: object, names: Collection[str], *, written: bool = True) -> Entry:
    """Return one element of a card file's lists; ValueError says in a line what is wrong with it.

    `written`: it is a card and must have a description; else it is a label without one.
    """
    if not isinstance(value, dict):
        raise ValueError("it is not a mapping")
    _check_keys(value, _CARD_KEYS if written else _UNWRITTEN_KEYS)
    name = value.get("name")
    if not isinstance(name, str) or name not in names:
        raise ValueError(f"{name!r} is no label" if name else "it has no name")
    wording = _wording(value, name, names)
    if written and not wording.description:
        raise ValueError(f"{name!r} has no description")
    entries = value.get("history") or []
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise ValueError(f"`history` of {name!r} is not a list of mappings")
    history = tuple(_attempt(each, name) for each in entries)
    author, why = _text(value, "author", name), _text(value, "why", name)
    return Entry(name, wording, author, history, why, _number(value, name))


def _attempt(value: Mapping[str, object], name: str) -> Attempt:
    _check_keys(value, _ATTEMPT_KEYS)
    if value.get("kept") not in ("true", "false"):
        raise ValueError(f"`kept` in the history of {name!r} is neither true nor false")
    texts = {key: _text(value, key, name) for key in ("author", "why", "date", "reading", "relation")}
    return Attempt(
        round=_number(value, name),
        wording=_wording(value, name, None),  # a label that was removed since may still stand in a history
        kept=value["kept"] == "true",
        disputed=_phrases(value, "disputed", name),
        **texts,
    )


def _wording(value: Mapping[str, object], name: str, names: Collection[str] | None) -> Wording:
    description = value.get("description")
    if not isinstance(description, str | None):
        raise ValueError(f"`description` of {name!r} is not a text")
    similar = _phrases(value, "similar", name)
    for other in similar if names is not None else ():
        if names is not None and (other not in names or other == name):
            raise ValueError(
                f"{name!r} is called similar to {'itself' if other == name else f'{other!r}, which is no label'}"
            )
    rest = {key: tuple(map(phrase, _phrases(value, key, name))) for key in LISTS if key != "similar"}
    return Wording(phrase(description or ""), similar, **rest)


def _check_keys(value: Mapping[str, object], known: Sequence[str]) -> None:
    if unknown := [key for key in value if key not in known]:
        raise ValueError(f"unknown key {unknown[0]!r} (known: {', '.join(known)})")


def _phrases(value: Mapping[str, object], key: str, name: str) -> tuple[str, ...]:
    found = value.get(key) or []
    if isinstance(found, list) and all(isinstance(each, str) and phrase(each) for each in found):
        return tuple(found)
    raise ValueError(f"`{key}` of {name!r} is not a list of texts")


def _text(value: Mapping[str, object], key: str, name: str) -> str:
    found = value.get(key) or ""
    if isinstance(found, str):
        return found
    raise ValueError(f"`{key}` of {name!r} is not a text")


def _number(value: Mapping[str, object], name: str) -> int:
    found = value.get("round") or "0"
    if isinstance(found, str) and found.isdecimal():
        return int(found)
    raise ValueError(f"`round` of {name!r} is not a number")


def phrase(text: str) -> str:
    """Return a text as one phrase: without line breaks, double spaces and the stop at its end."""
    return " ".join(text.split()).rstrip(". ")
