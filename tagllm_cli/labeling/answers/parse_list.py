"""Model text becomes labels, and never anything outside the vocabulary.

`parse_names` inverts `render_names` exactly, for any names. An answer that is not in that form is read by the first of
a few other forms that fits it; an answer that fits none is not readable: what it says about the labels is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tagllm_cli.labeling.answers.items import MAX_ITEM_WORDS, QUOTED, Items
from tagllm_cli.labeling.answers.lexicon import Lexicon, plain_forms, render_names, reserved_forms, said
from tagllm_cli.labeling.answers.parse_json import decoded
from tagllm_cli.labeling.answers.sections import Polarity, Sections, polarity
from tagllm_cli.labeling.answers.sentences import Reading, Sentence, cut_sentences
from tagllm_cli.labeling.answers.structured import is_structured, read_json_answer, read_table
from tagllm_cli.labeling.answers.words import (
    REFUSAL,
    bare,
    describes,
    is_thought,
    says_none,
    unwrapped,
    verdict,
    without_fences,
    without_thought,
)

__all__ = ["Lexicon", "Parsed", "parse_names", "render_names"]

MAX_UNMATCHED = 50  # texts kept of one answer
MAX_UNMATCHED_LENGTH = 200  # characters kept of each
MAX_PROSE = 2  # sentences that an answer may consist of; more are a description, not an answer

_GREETING = re.compile(
    r"\W*(?:sure(?: thing)?|okay|ok|certainly|of course|absolutely|alright|great|yes|got it|here you go|hello|hi)"
    r"(?:[,.!:;\u2014\u2013-]+|\n)\s*",
    re.IGNORECASE,
)
_BULLET = re.compile(r"\s*(?:[-*+\u2022\u00b7\u2013\u2014\u25aa\u25e6\u2023\u25cf]\s+|\(?\d{1,3}[.):]\s*)+")
_INLINE_NUMBER = re.compile(r"(?:^|(?<!\s)\s+)\(?\d{1,2}[.)]\s+")
_HEADING = re.compile(r"\s*(?:#{1,6}\s+(?P<sharp>.+)|(?P<bold>\*\*[^*]+\*\*)\s*)$")
_MAX_HEADING_WORDS = 25
_ECHOED_LIST = re.compile(r"\b(?:list|options|categories|given|among|choices)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a list answer says: labels in the vocabulary's order, and the texts that map to none.

    `doubtful` are labels that the answer holds in a way that leaves open whether they are seen. `readable` is False
    where the answer is in no known form: then nothing is known of any label.
    """

    labels: tuple[str, ...]
    unmatched: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    readable: bool = True


def parse_names(text: str, lexicon: Lexicon, none: Sequence[str] = ("none",)) -> Parsed:
    """Read a list answer: the exact inverse of `render_names`, or another form that models answer in.

    `none` are the answers that mean an empty list, as given to `render_names`. Read are JSON, tables, bullets, verdicts
    ("cat: yes"), lists in a line with or without an opening, and short sentences. A name that is negated or counted
    zero is never found.
    """
    if said(text) and said(text) in plain_forms(tuple(none)):
        return Parsed(())
    reserved = reserved_forms(none)
    exact = _read_exactly(text.strip(), lexicon, reserved)
    if exact is None and ("</think>" in text or "```" in text):
        exact = _read_exactly(without_fences(without_thought(text)), lexicon, reserved)
    if exact is not None:
        return Parsed(lexicon.ordered(exact))
    answer = without_thought(text)
    reading = None if is_thought(answer) else _read(unwrapped(answer), Items(lexicon, none))
    if reading is None or set(reading.found) & set(reading.denied):
        return Parsed((), _kept([text]), readable=False)
    doubtful = set(reading.doubtful).difference(reading.found, reading.denied)
    return Parsed(lexicon.ordered(reading.found), _kept(reading.unmatched), lexicon.ordered(doubtful))


def _kept(texts: Iterable[str]) -> tuple[str, ...]:
    kept = (text.strip()[:MAX_UNMATCHED_LENGTH].strip() for text in texts)
    return tuple(dict.fromkeys(text for text in kept if bare(text)))[:MAX_UNMATCHED]


def _read_exactly(text: str, lexicon: Lexicon, reserved: frozenset[str]) -> list[str] | None:
    """Return the names that `render_names` would have written as `text`; None where it could not have."""
    names: list[str] = []
    start, line = 0, f"{text}, "
    while start < len(text):
        quoted = QUOTED.match(line, start)
        end = quoted.end() if quoted else line.index(", ", start)
        name = decoded(line[start:end]) if quoted else line[start:end]
        if not isinstance(name, str) or name not in lexicon.position or not line.startswith(", ", end):
            return None
        if not quoted and said(name) in reserved:
            return None
        names.append(name)
        start = end + 2
    return names or None


def _read(text: str, items: Items) -> Reading | None:
    """Return what the first form says that fits a text; None where none fits."""
    if REFUSAL.match(text):
        return None
    for form in _FORMS:
        if (reading := form(text, items)) is not None:
            return reading
    return None


def _read_none(text: str, items: Items) -> Reading | None:
    return Reading() if items.meaning(text) == () or (items.label(text) is None and _is_none(text, items)) else None


def _is_none(text: str, items: Items) -> bool:
    if Sentence(text, items.lexicon).names or not says_none(text):
        return False
    # "unicorn, none, pony": names from outside the vocabulary are worth keeping.
    pieces = (piece for piece, _ in items.pieces(text) if bare(piece))
    return all(says_none(piece) or len(piece.split()) > MAX_ITEM_WORDS for piece in pieces)


def _read_lines(text: str, items: Items) -> Reading | None:
    return None if is_structured(text) else _Lines(items).read(text)


# What an answer may look like, the strictest form first.
_FORMS: tuple[Callable[[str, Items], Reading | None], ...] = (_read_none, read_json_answer, read_table, _read_lines)


class _Lines:
    """Reads an answer line by line: headings, bullets, lists, sentences, and the talk around them."""

    def __init__(self, items: Items) -> None:
        self._items = items
        self._sections = Sections()
        self._kind = Polarity.NEUTRAL
        self._is_understood = self._is_list = False
        self._unclear: set[str] = set()  # labels in what was not understood
        self._has_two_readings = False
        self._sentences = 0
        self._asks = False

    def read(self, text: str) -> Reading | None:
        greeting = _GREETING.match(text)
        if greeting and greeting.end() < len(text) and self._items.label(greeting.group()) is None:
            text = text[greeting.end() :]
        if REFUSAL.match(text):
            return None
        lines = [line for line in text.split("\n") if bare(line)]
        for line, following in zip(lines, [*lines[1:], ""], strict=False):
            # "Birds:", and on the next line "none".
            is_heading = line.rstrip(" *_").endswith(":") and self._items.label(line) is not None
            self._line(f"{line} {bare(following)}" if is_heading and says_none(following) else line)
        reading = self._sections.united()
        is_prose = not self._is_list and self._sentences > MAX_PROSE
        if not self._is_understood or is_prose or self._has_two_readings:
            return None
        if self._is_list:
            reading.doubtful += self._unclear  # talk around a list may repeat its labels, or name others
        elif self._unclear:
            return None
        return None if self._asks and not self._sections.is_open(Polarity.SEEN) else reading

    def _add(self, reading: Reading, is_list: bool = True) -> None:
        self._sections.add(self._kind, reading)
        self._is_understood = True
        self._is_list |= is_list and bool(reading.found or reading.denied)

    def _line(self, line: str) -> None:
        if (whole := self._items.enumerated(line) or self._items.read(line) or self._asked(line)) is not None:
            self._add(whole)
        elif heading := _HEADING.fullmatch(line):
            self._open(heading["sharp"] or heading["bold"])
        elif len(numbered := _INLINE_NUMBER.split(line)) > 2:
            for each in numbered:
                if bare(each):
                    self._part(each)
        elif bullet := _BULLET.match(line):
            self._item(line[bullet.end() :])
        else:
            for part in cut_sentences(line):
                self._part(part)

    def _asked(self, line: str) -> Reading | None:
        """Read a question with its answer: "Is there a cat? No."."""
        question, mark, answer = line.partition("?")
        said = verdict(answer) if mark else None
        names = Sentence(question, self._items.lexicon).names if said is not None else set()
        if len(names) != 1:
            return None
        return Reading(found=[*names]) if said else Reading(denied=[*names])

    def _item(self, text: str) -> None:
        """Read what stands behind a bullet; a note there belongs to its name, to the line's end."""
        reading = self._items.enumerated(text) or self._items.read(text, is_bullet=True)
        noted = self._items.noted(text) if reading is None else None
        if reading is not None:
            self._add(reading)
        elif noted is not None:
            self._unclear.update(noted[0])
        else:
            self._part(text)

    def _open(self, heading: str) -> None:
        self._kind = polarity(heading)
        self._sections.open(self._kind)

    def _part(self, text: str, is_under_heading: bool = False) -> None:
        """Read a sentence, or a list in a line."""
        items = self._items
        if (reading := items.enumerated(text) or items.read(text)) is not None:
            self._add(reading)
            return
        head, colon, rest = text.partition(":")
        if colon and not is_under_heading and self._is_heading(head):
            kind = polarity(head)
            self._sections.open(kind)
            if not bare(rest):
                self._kind = kind
                return
            before, self._kind = self._kind, kind if kind is not Polarity.NEUTRAL else self._kind
            self._part(rest, is_under_heading=True)
            self._kind = before
        elif items.has_two_readings(text):
            self._has_two_readings = True
        elif (reading := self._list(text)) is not None:
            self._add(reading)
        else:
            self._sentence(text)

    def _is_heading(self, text: str) -> bool:
        names = Sentence(text, self._items.lexicon).names
        echoes = polarity(text) is Polarity.SEEN and _ECHOED_LIST.search(text)
        return bool(echoes) if names else len(text.split()) <= _MAX_HEADING_WORDS

    def _list(self, text: str) -> Reading | None:
        """Read names between separators, each perhaps with a note; None where that is no list."""
        items = self._items
        if Sentence(text, items.lexicon).is_talk:
            return None
        reading, pieces, long = Reading(), items.pieces(text), 0
        if items.negate_what_follows(pieces):
            return None
        for piece, labels in pieces:
            part = Reading(found=list(labels)) if labels is not None else items.read(piece)
            if part is None:
                sentence = Sentence(piece, items.lexicon)
                if sentence.is_negated:
                    if sentence.names:
                        return None
                    continue
                if items.is_ambiguous(piece):
                    return None
                part = items.said_aside(piece)
                long += part is None and len(piece.split()) > MAX_ITEM_WORDS
            reading.add(part or items.unmatched(piece))
        return reading if 2 * long < len(pieces) else None

    def _sentence(self, text: str) -> None:
        items = self._items
        sentence = Sentence(text, items.lexicon)
        self._asks |= text.rstrip().endswith("?")
        reading = sentence.read()
        if sentence.names and reading is not None:
            self._add(reading, is_list=False)
        elif sentence.names:
            self._unclear |= sentence.names
        elif says_none(text) or describes(text):
            self._add(Reading(), is_list=False)
        self._sentences += not says_none(text)
