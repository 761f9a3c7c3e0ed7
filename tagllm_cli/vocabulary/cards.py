"""Concept cards: what a dataset means by a label, as the question about a candidate says it.

A card file is YAML: `cards:` is a list of mappings with `name`, `description` and, if needed, `similar` (labels that it
must be told apart from), `synonyms`, `includes` and `excludes` (short phrases). `tagllm concepts` adds `author` and
`history` to the cards that it writes, and two more lists: `proposed:`, cards that wait for a person's decision, and
`unwritten:`, labels that have no card, with the reason. Only `cards:` is ever used in a question.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from tagllm_cli.errors import VocabularyError
from tagllm_cli.resources import UserModel, in_one_line, read_yaml, validated
from tagllm_cli.vocabulary.model import Vocabulary

LISTS = ("similar", "synonyms", "includes", "excludes")


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
    """One entry of a card's history: what was drafted in a round (1, 2, ...), by whom, and whether it was kept.

    `wording` is empty where the answer was unusable. `reading` is what the bare name means to the multimodal model,
    `relation` how that compares with the wording; `disputed` are images whose decision the card changes.
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
    found, problems = validated(_FileModel, read_yaml(path), {"names": frozenset(vocabulary.names)})
    if found is None:
        raise VocabularyError(
            f"{path}: {in_one_line(problems)}",
            "A card file lists cards under `cards`, each with `name` and `description`; the names are labels of "
            f"{vocabulary.name}.",
        )
    return CardFile(_by_name(found.cards), _by_name(found.proposed), _by_name(found.unwritten))


def read_card(value: object, names: Collection[str]) -> Entry:
    """Return one card of a card file for one of the labels `names`; ValueError says in a line what is wrong with it."""
    found, problems = validated(_CardModel, value, {"names": names})
    if found is None:
        raise ValueError(in_one_line(problems))
    return found.entry()


def phrase(text: str) -> str:
    """Return a text as one phrase: without line breaks, double spaces and the stop at its end."""
    return " ".join(text.split()).rstrip(". ")


def _filled(text: str) -> str:
    if not phrase(text):
        raise ValueError("is empty")
    return text


_Text = Annotated[str, AfterValidator(_filled)]
_Phrase = Annotated[_Text, AfterValidator(phrase)]


class _WordingModel(UserModel):
    description: Annotated[str, AfterValidator(phrase)] = ""
    similar: tuple[_Text, ...] = ()
    synonyms: tuple[_Phrase, ...] = ()
    includes: tuple[_Phrase, ...] = ()
    excludes: tuple[_Phrase, ...] = ()

    def wording(self) -> Wording:
        return Wording(self.description, *(getattr(self, key) for key in LISTS))


class _AttemptModel(_WordingModel):  # a label that was removed since may still be among its similar ones
    round: Annotated[int, Field(ge=0)] = 0
    author: str = ""
    kept: bool
    why: str = ""
    date: str = ""
    reading: str = ""
    relation: str = ""
    disputed: tuple[_Text, ...] = ()

    def attempt(self) -> Attempt:
        facts = (self.date, self.reading, self.relation, self.disputed)
        return Attempt(self.round, self.author, self.wording(), self.kept, self.why, *facts)


class _CardModel(_WordingModel):
    name: str
    author: str = ""
    history: tuple[_AttemptModel, ...] = ()

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> _CardModel:
        names = info.context["names"] if info.context else ()
        _check_label(self.name, names)
        if not self.description:
            raise ValueError(f"{self.name!r} has no description")
        for other in self.similar:
            if other not in names or other == self.name:
                reason = "itself" if other == self.name else f"{other!r}, which is no label{_meant(other, names)}"
                raise ValueError(f"{self.name!r} is called similar to {reason}")
        return self

    def entry(self) -> Entry:
        return Entry(self.name, self.wording(), self.author, tuple(each.attempt() for each in self.history))


class _UnwrittenModel(UserModel):
    name: str
    why: str = ""
    round: Annotated[int, Field(ge=0)] = 0
    history: tuple[_AttemptModel, ...] = ()

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> _UnwrittenModel:
        _check_label(self.name, info.context["names"] if info.context else ())
        return self

    def entry(self) -> Entry:
        history = tuple(each.attempt() for each in self.history)
        return Entry(self.name, history=history, why=self.why, round=self.round)


class _FileModel(UserModel):
    cards: tuple[_CardModel, ...]
    proposed: tuple[_CardModel, ...] = ()
    unwritten: tuple[_UnwrittenModel, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> _FileModel:
        for section in ("cards", "proposed", "unwritten"):
            counts = Counter(each.name for each in getattr(self, section))
            if twice := [name for name, count in counts.items() if count > 1]:
                raise ValueError(f"`{section}` has two entries for {twice[0]!r}")
        return self


def _by_name(entries: Iterable[_CardModel | _UnwrittenModel]) -> dict[str, Entry]:
    return {each.name: each.entry() for each in entries}


def _check_label(name: str, names: Collection[str]) -> None:
    if name not in names:
        raise ValueError(f"{name!r} is no label{_meant(name, names)}" if name else "it has no name")


def _meant(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
