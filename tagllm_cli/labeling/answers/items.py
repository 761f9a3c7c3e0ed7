"""Reading one item of a list: a name with its number, check box, note, count or verdict."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

from tagllm_cli.labeling.answers.lexicon import QUOTES, SEPARATORS, Lexicon, plain_forms
from tagllm_cli.labeling.answers.parse_json import decoded
from tagllm_cli.labeling.answers.sentences import Reading, Sentence
from tagllm_cli.labeling.answers.words import CROSSES, HEDGES, NEGATION, TICKS, bare, says_none, verdict

MAX_ITEM_WORDS = 5  # of an item that is no label; what is longer is a part of a sentence

# The labels that a piece of text names: none where it says "none", None where it maps to nothing.
_Meaning: TypeAlias = tuple[str, ...] | None

_DECORATION = f" \t.!*_#()[]{{}}\u3002\u2022\u00b7-{QUOTES}"
_PREFIX = re.compile(r"^(?:\d{1,3}[.):]\s*)?(?:(?:and|or|also|plus|&)\s+)?", re.IGNORECASE)
# `(?<!\s)`: a run of spaces is looked at once.
_AND = re.compile(r"(?<!\s)\s+(?:and|und|et|y|e|och|og|en|&|\+)\s+|(?<!\s)\s*[/|]\s*", re.IGNORECASE)
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
# A piece of a list: a JSON string up to the next separator, else anything up to it, brackets kept whole.
_PIECE = re.compile(
    rf"\s*({QUOTED.pattern})[\s.]*(?=[{SEPARATORS}]|$)|(?:\([^()]*\)|\[[^\[\]]*\]|\u201c[^\u201c\u201d]*\u201d|[^{SEPARATORS}])+"
)
_CHECK_BOX = re.compile(rf"(?:[-*+]\s+)?(?:\[(?P<mark>[ xX\u2713\u2714v-]?)\]|(?P<sign>[{TICKS}{CROSSES}]))\s*")
_MARKED = re.compile(rf"[{TICKS}{CROSSES}]|\[[ xX\u2713\u2714v-]?\]")
_COUNT = re.compile(r"(?<!\s)\s+(?:[x\u00d7]\s?)?(\d{1,4})$", re.IGNORECASE)
_GOES_ON = re.compile(rf"[{SEPARATORS}:]|[.!?]\s")
_SLASH = re.compile(r"\s[/|]\s")
_NO = re.compile(r"(?:but |and )?(?:no|not|without|neither|nor)\b", re.IGNORECASE)
_IN_BRACKETS = re.compile(r"\s*(?:\([^()]*\)|\[[^\[\]]*\])[\s.]*")
_VERDICTS = frozenset(["yes", "no", "true", "false"])
_BRACKET = re.compile(r"(?<!\s)\s*(?=[(\[])")
_NOTE = re.compile(r"(?<!\s)\s*(?::|=|->|\u2192)\s*|(?<!\s)\s+[-\u2013\u2014]+\s+")


class Items:
    """Reads items under one vocabulary; `none` are the question's own words for an empty list."""

    def __init__(self, lexicon: Lexicon, none: Sequence[str]) -> None:
        self.lexicon = lexicon
        self._nothing = plain_forms(tuple(none))
        self._labels: dict[str, str | None] = {}  # of this answer: every form of an answer looks at the same pieces

    def label(self, text: str) -> str | None:
        """Return the label that an undivided text names, decoration, numbering and articles left aside."""
        if text not in self._labels:
            self._labels[text] = self._look_up(text)
        return self._labels[text]

    def _look_up(self, text: str) -> str | None:
        name = self.lexicon.find(text.strip())
        if name is None:
            plain = _PREFIX.sub("", text.strip(_DECORATION)).strip(_DECORATION)
            name = self.lexicon.find(plain) if plain else None
        if name is None and (plain := bare(text)):
            name = self.lexicon.find(plain)
        return name

    def pieces(self, line: str) -> list[tuple[str, _Meaning]]:
        """Cut a line at its separators; return each piece with the labels that it names, None where it names none."""
        matches = list(_PIECE.finditer(line))
        pieces = [(match.group(), self._piece(match)) for match in matches]
        if self.lexicon.most_pieces == 1 or len(pieces) == 1:
            return pieces
        joined: list[tuple[int, int, _Meaning]] = []
        for first in range(len(pieces)):
            for stop in range(first + 2, min(len(pieces), first + self.lexicon.most_pieces) + 1):
                # Pieces that are labels themselves are what the format means: a name with a comma has quotes.
                name = self.label(line[matches[first].start() : matches[stop - 1].end()])
                if name is None or all(labels is not None for _, labels in pieces[first:stop]):
                    continue
                if joined and first < joined[-1][1]:  # two readings: neither counts
                    joined[-1] = (joined[-1][0], max(stop, joined[-1][1]), None)
                else:
                    joined.append((first, stop, (name,)))
        for first, stop, labels in reversed(joined):
            pieces[first:stop] = [(line[matches[first].start() : matches[stop - 1].end()], labels)]
        return pieces

    def _piece(self, match: re.Match[str]) -> _Meaning:
        value = decoded(match.group(1) or "")
        return self.meaning(value, quoted=True) if isinstance(value, str) else self.meaning(match.group())

    def meaning(self, text: str, quoted: bool = False) -> _Meaning:
        """Return the labels that a piece names; without quotes, an answer that means `none` comes before a label."""
        if _MARKED.search(text):  # a check box is no decoration
            name = self.lexicon.find(text.strip())
            return None if name is None else (name,)
        plain = text.strip(_DECORATION)
        is_none = plain.casefold() in self._nothing
        name = None if is_none and not quoted else self.label(text)
        if name is not None or is_none:
            return () if name is None else (name,)
        # "salt and pepper" is not pepper: all parts must be labels.
        parts = [self.label(part) for part in _AND.split(plain)]
        return None if quoted or None in parts else tuple(part for part in parts if part is not None)

    def read(self, text: str, is_bullet: bool = False) -> Reading | None:
        """Return what one item says; None where it holds a label in a form that is not understood.

        A note in a line of its own (`is_bullet`) may speak of other labels.
        """
        labels = self.meaning(text)
        if labels is not None:
            return Reading([*labels])
        for each in (self._checked, self._counted):
            if (reading := each(text)) is not None:
                return reading
        return self._noted(text, is_bullet)

    def enumerated(self, text: str) -> Reading | None:
        """Read two or more items between separators; None where one of them is not understood, or no label."""
        text = text.strip()
        if text[:1] + text[-1:] in ("[]", "()"):
            text = text[1:-1]
        pieces = self.pieces(text)
        if len(pieces) < 2 and _SLASH.search(text):
            pieces = self.pieces(_SLASH.sub(", ", text))
        if len(pieces) < 2 or self.negate_what_follows(pieces):
            return None
        reading = Reading()
        for piece, labels in pieces:
            part = Reading([*labels]) if labels is not None else self.read(piece)
            if part is None:
                return None
            reading.add(part)
        return reading

    def _checked(self, text: str) -> Reading | None:
        text = text.strip()
        box = _CHECK_BOX.match(text)
        if box:
            rest = text[box.end() :]
            ticked = box["sign"] in TICKS if box["sign"] else box["mark"] not in ("", " ", "-")
        elif text and text[-1] in TICKS + CROSSES:
            rest, ticked = text[:-1].rstrip(" :=-\u2013\u2014*_"), text[-1] in TICKS
        else:
            return None
        labels = self.meaning(rest)
        if labels is None:
            noted = self.noted(rest)
            labels = noted[0] if noted else None
        return None if labels is None else _judged(labels, ticked)

    def _counted(self, text: str) -> Reading | None:
        plain = text.strip().rstrip(".*_")
        if count := _COUNT.search(plain):
            labels = self.meaning(plain[: count.start()])
            return None if labels is None else _judged(labels, int(count.group(1)) > 0)
        number, _, name = bare(plain).partition(" ")
        if number.casefold() in ("0", "zero", "no", "not", "without"):
            labels = self.meaning(name)
            return None if labels is None else _judged(labels, False)
        return None

    def _noted(self, text: str, is_bullet: bool) -> Reading | None:
        noted = self.noted(text)
        if noted is None:
            return None
        labels, note = noted
        goes_on = not is_bullet and _GOES_ON.search(note) and not _IN_BRACKETS.fullmatch(note)
        if goes_on and Sentence(note, self.lexicon).names - set(labels):
            return None
        said = verdict(note)
        if said is None and (NEGATION.search(note.replace("without", "")) or hedged(note)):
            return None
        return _judged(labels, said is not False)  # "cat (small)" is seen

    def noted(self, text: str) -> tuple[tuple[str, ...], str] | None:
        """Cut "name: note", "name - note" or "name (note)"; None where it is no note, or about no label."""
        text = text.strip(" \t*_-")
        for cut in (_NOTE.search(text), _BRACKET.search(text)):
            labels = self.meaning(text[: cut.start()]) if cut else None
            if cut and labels and bare(text[cut.end() :]):
                return labels, text[cut.end() :]
        return None

    def negate_what_follows(self, pieces: Sequence[tuple[str, _Meaning]]) -> bool:
        """Return whether a piece such as "no cat" is followed by one that it may negate too ("no cat, dog or bird")."""
        negates = False
        for piece, labels in pieces:
            plain = bare(piece)
            starts = labels is None and _NO.match(plain)
            if negates and not starts and not plain[:1].isdigit():
                return True
            negates = bool(starts)
        return False

    def has_two_readings(self, text: str) -> bool:
        """Return whether names with separators can be told from the ones around them in more than one way."""
        return self.lexicon.most_pieces > 1 and any(
            labels is None and any(mark in piece for mark in SEPARATORS) for piece, labels in self.pieces(text)
        )

    def is_ambiguous(self, piece: str) -> bool:
        """Return whether a piece is a verdict on another one, two names in one, or names in a script without spaces."""
        sentence = Sentence(piece, self.lexicon)
        return bare(piece).casefold() in _VERDICTS or sentence.is_unspaced or sentence.is_compound

    def unmatched(self, piece: str) -> Reading:
        """Return the reading of a piece that is no label."""
        return Reading(unmatched=[piece], doubtful=[*Sentence(piece, self.lexicon).names])

    def said_aside(self, text: str) -> Reading | None:
        """Read an item whose place or looks are told: "small cat in the background"; None where that is not clear."""
        sentence = Sentence(text, self.lexicon)
        if sentence.names:
            reading = sentence.read(strict=False)
            return reading if reading is None or reading.found or reading.denied else None
        if says_none(text):
            return Reading()
        return None


def hedged(note: str) -> bool:
    """Return whether a note doubts in a sentence ("could be a dog"); "possibly" alone takes nothing back."""
    tokens = note.casefold().split()
    return len(tokens) > 2 and not HEDGES.isdisjoint(tokens)


def _judged(labels: Sequence[str], seen: bool) -> Reading:
    return Reading([*labels]) if seen else Reading(denied=[*labels])
