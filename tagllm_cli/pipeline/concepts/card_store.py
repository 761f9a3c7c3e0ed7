"""The card file while cards are written: what humans decided, each label's history, every change at once on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from tagllm_cli.errors import UsageError
from tagllm_cli.store.atomic import file_state, replacing
from tagllm_cli.vocabulary.cards import LISTS, Attempt, CardFile, Entry, Wording, load_card_file, phrase
from tagllm_cli.vocabulary.model import Vocabulary

HUMAN = "person"
_WIDTH = 110
_HEADER = """\
# Concept cards: what this dataset means by a label. Edit what you like: a card that a person wrote or changed is never
# overwritten. Delete a card, or a label under `unwritten`, with its history to have it written anew. Comments are kept
# here, at the head of the file, and nowhere else.
"""


class CardStore:
    """The cards of one file; every method that changes something has written the file when it returns.

    Args:
        path: the card file; it need not exist.
        vocabulary: whose labels the cards are about.
    """

    def __init__(self, path: Path, vocabulary: Vocabulary) -> None:
        """Read the file. Raises VocabularyError where there is one that is no card file."""
        found = load_card_file(path, vocabulary) if path.exists() else CardFile()
        self._path = path
        self._position = {name: index for index, name in enumerate(vocabulary.names)}
        self._described = {
            label.name: Wording(phrase(label.description), label.similar)
            for label in vocabulary.labels
            if phrase(label.description)
        }
        self.cards, self.proposed = dict(found.cards), dict(found.proposed)
        self.unwritten = dict(found.unwritten)
        self._header = _leading_comments(path) or _HEADER
        self._known = file_state(path)

    @property
    def last_round(self) -> int:
        """The last round that any label went through, 0 for none."""
        return max((attempt.round for name in self._position for attempt in self.history(name)), default=0)

    def history(self, name: str) -> tuple[Attempt, ...]:
        """Return every attempt at a label, oldest first."""
        for section in (self.proposed, self.cards, self.unwritten):
            if name in section:
                return section[name].history
        return ()

    def is_human_edited(self, name: str) -> bool:
        """Return whether a human wrote the label's card, or changed it in the file."""
        entry = self.cards.get(name)
        if entry is None:
            return False
        kept = _kept(entry.history)
        return not entry.author or not kept or entry.wording != kept[-1]

    def is_settled(self, name: str) -> bool:
        """Return whether a human wrote, edited or reviewed the card, or described the label in the vocabulary."""
        reviewed = any(attempt.author == HUMAN for attempt in self.history(name))
        return reviewed or name in self._described or self.is_human_edited(name)

    def wording_before(self, name: str, round_: int) -> Wording | None:
        """Return the wording of the label's card when this round began, None where there was none.

        It does not change during the round, so that a round that was interrupted sends the same requests.
        """
        if self.is_human_edited(name):
            return self.cards[name].wording
        kept = _kept(attempt for attempt in self.history(name) if attempt.round < round_)
        return kept[-1] if kept else self._described.get(name)

    def record(self, name: str, attempt: Attempt, *, waits: bool) -> None:
        """Add an attempt to a label's history. A kept one becomes its card, or a proposal that `waits` for review."""
        history = (*self.history(name), attempt)
        if attempt.kept:
            (self.proposed if waits else self.cards)[name] = Entry(name, attempt.wording, attempt.author, history)
            self.unwritten.pop(name, None)
        elif name in self.proposed or name in self.cards:
            section = self.proposed if name in self.proposed else self.cards
            section[name] = replace(section[name], history=history)
        else:
            self.unwritten[name] = Entry(name, history=history, why=attempt.why, round=attempt.round)
        self.save()

    def record_unanswered(self, name: str, why: str, round_: int) -> None:
        """Record why a label has no card without an attempt: a request failed, and is sent again by the next run."""
        if name not in self.proposed and name not in self.cards:
            self.unwritten[name] = Entry(name, history=self.history(name), why=why, round=round_)
            self.save()

    def decide(self, name: str, wording: Wording | None, why: str, round_: int, date: str) -> None:
        """Record a human's decision: `wording` (as proposed, or edited) becomes the card, None rejects the proposal.

        `round_` is the last round before the decision, so that none of the rounds before asks anything else for it.
        """
        proposal = self.proposed.pop(name)
        edited = wording is not None and wording != proposal.wording
        shown = proposal.wording if wording is None else wording
        attempt = Attempt(round_, HUMAN, shown, wording is not None, why, date)
        history = (*proposal.history, attempt)
        if wording is not None:
            self.cards[name] = Entry(name, wording, HUMAN if edited else proposal.author, history)
        elif name in self.cards:
            self.cards[name] = replace(self.cards[name], history=history)
        else:
            self.unwritten[name] = Entry(name, history=history, why=why, round=attempt.round)
        self.save()

    def save(self) -> None:
        """Write the file, in the vocabulary's order.

        Raises UsageError where that is not possible, or where the file was changed in the meantime: it stays.
        """
        if file_state(self._path) != self._known:
            raise UsageError(
                f"{self._path} was changed while cards were being written",
                "It stays as it is. The same command goes on with it.",
            )
        sections = {"cards": self.cards, "proposed": self.proposed, "unwritten": self.unwritten}
        blocks = []
        for section, entries in sections.items():
            texts = [_text(entry) for entry in self._ordered(entries)]
            if texts:
                blocks.append(f"{section}:\n" + "\n".join(texts))
            elif section == "cards":
                blocks.append("cards: []\n")
        with replacing(self._path) as new:
            new.write_text(self._header + "\n".join(blocks), encoding="utf-8")
        self._known = file_state(self._path)

    def _ordered(self, section: Mapping[str, Entry]) -> list[Entry]:
        return sorted(section.values(), key=lambda entry: self._position[entry.name])


def wording_values(wording: Wording) -> dict[str, Any]:
    """Return a card's wording as plain values for YAML, empty lists left out."""
    lists = {key: list(getattr(wording, key)) for key in LISTS}
    return {"description": wording.description, **{key: value for key, value in lists.items() if value}}


def _kept(history: Iterable[Attempt]) -> list[Wording]:
    """Return the wordings that were kept, oldest first; a human's rejection removes the last one."""
    kept: list[Wording] = []
    for attempt in history:
        if attempt.kept:
            kept.append(attempt.wording)
        elif attempt.author == HUMAN and kept:
            kept.pop()
    return kept


@lru_cache(maxsize=20_000)  # the file is written after every label: only what is new is laid out again
def _text(entry: Entry) -> str:
    values = {
        "name": entry.name,
        **(wording_values(entry.wording) if entry.wording.description else {}),
        "author": entry.author,
        "why": entry.why,
        "round": entry.round,
        "history": _history(entry),
    }
    filled = {key: value for key, value in values.items() if value}
    return yaml.safe_dump([filled], allow_unicode=True, sort_keys=False, width=_WIDTH)


def _history(entry: Entry) -> list[dict[str, Any]]:
    entries = []
    for attempt in entry.history:
        facts = {"date": attempt.date, "reading": attempt.reading, "relation": attempt.relation}
        values = {
            "round": attempt.round,
            "author": attempt.author,
            **wording_values(attempt.wording),
            "kept": attempt.kept,
            "why": attempt.why,
            **facts,
            "disputed": list(attempt.disputed),
        }
        entries.append({key: value for key, value in values.items() if value or key == "kept"})
    return entries


def _leading_comments(path: Path) -> str:
    """Return the comment lines at the head of a file, which YAML's writer would lose."""
    if not path.exists():
        return ""
    lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    head = 0
    while head < len(lines) and (not lines[head].strip() or lines[head].startswith("#")):
        head += 1
    return "".join(lines[:head])
