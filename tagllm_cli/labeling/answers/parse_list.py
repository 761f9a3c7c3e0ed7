"""Model text and log-probabilities become labels, and never anything outside the vocabulary.

`parse_names` inverts `render_names` exactly, for any names. Only where an answer is not in that form, it is read
leniently; what then maps to no label, or to more than one, is kept as unmatched text and never guessed into a label.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from tagllm_cli.vocabulary.forms import folded, inflected
from tagllm_cli.vocabulary.model import Vocabulary

MAX_UNMATCHED = 50  # texts kept of one answer
MAX_UNMATCHED_LENGTH = 200  # characters kept of each

_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"
_SEPARATORS = ",;\uff0c\u3001\uff1b"
_NEEDS_QUOTES = re.compile(rf"[,{_QUOTES}\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DECORATION = f" \t.!*_#()[]{{}}\u2022\u00b7-{_QUOTES}"
_PREFIX = re.compile(r"^(?:\d{1,3}[.):]\s*)?(?:(?:and|or|also|plus|&)\s+)?", re.IGNORECASE)
_AND = re.compile(r"\s+(?:and|&)\s+", re.IGNORECASE)
_QUANTITY = re.compile(r"^(?:an?|the|some|several|many|one|two|three|four|five|six|\d{1,3}) (?:pairs? of )?")
_NEGATION = re.compile(r"\b(?:no|not|none|nor|neither|without|cannot|absent|missing|\w+n't)\b", re.IGNORECASE)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
# A piece of a list: a JSON string up to the next separator, else anything up to it.
_PIECE = re.compile(rf"\s*({_QUOTED.pattern})[\s.]*(?=[{_SEPARATORS}]|$)|[^{_SEPARATORS}]+")
_THOUGHT = re.compile(r"^.*?</think>", re.DOTALL)
_FENCE = re.compile(r"^[ \t]*```\w*[ \t]*$", re.MULTILINE)
# "Answer:", "The visible categories are:", but not "Categories:", which starts the question's own list.
_WORD = (
    r"(?:the|these|this|following|final|answers?|visible|detected|seen|shown|present|categor(?:y|ies)|labels?|objects?"
    r"|names?|items?|things?|are|is|that|in|from|list|image|picture|photo)"
)
_LEAD = re.compile(
    rf"[*_#>\s]*+(?:(?=[^:]*\b(?:answer|visible|detected|seen|shown|present|following)){_WORD}(?:\s+{_WORD})*[*_\s]*:[*_\s]*"
    r"|(?:the|this)\s+(?:image|picture|photo)\s+(?:shows|contains|depicts|features|includes)\s+"
    r"|(?:i\s+(?:can\s+)?see|there\s+(?:is|are))\s+)",
    re.IGNORECASE,
)
_OTHER_LEAD = re.compile(r'[^,;:"]+:\s')
_JSON = json.JSONDecoder(strict=False)

# The labels that a piece of text names: none where it says "none", None where it maps to nothing.
_Meaning: TypeAlias = tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a list answer says: labels in the vocabulary's order, and the texts that map to none."""

    labels: tuple[str, ...]
    unmatched: tuple[str, ...] = ()


def render_names(names: Iterable[str], none: Sequence[str] = ("none",)) -> str:
    r"""Return names as one comma-separated line; a name that could be misread is written as a JSON string.

    That is a name with a comma, quote, control character or outer space, an empty one, or one that reads like yes, no
    or one of the answers that mean `none`.

    >>> print(render_names(["cat", "salt, pepper", "None", 'a "b"']))
    cat, "salt, pepper", "None", "a \"b\""
    """
    reserved = _plain((*none, "none", "yes", "no"))
    return ", ".join(
        json.dumps(name, ensure_ascii=False)
        if not name or name != name.strip() or _NEEDS_QUOTES.search(name) or _said(name) in reserved
        else name
        for name in names
    )


class Lexicon:
    """From any way to write a label to its name: name, synonym, singular, plural; case, spaces, hyphens do not matter.

    Names come before synonyms, synonyms before derived forms; a form that two labels claim alike belongs to neither.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.position: Mapping[str, int] = {name: index for index, name in enumerate(vocabulary.names)}
        self._forms: dict[str, str | None] = {}
        self._claim((folded(label.name), label.name) for label in vocabulary.labels)
        self._claim((folded(synonym), label.name) for label in vocabulary.labels for synonym in label.synonyms)
        # Separators within a form: how many pieces of a list may belong to one name that lost its quotes.
        self.most_pieces = 1 + max((sum(map(form.count, _SEPARATORS)) for form in self._forms), default=0)
        won = [(form, name) for form, name in self._forms.items() if name is not None]
        self._claim((each, name) for form, name in won for each in inflected(form))
        won = [(form, name) for form, name in self._forms.items() if name is not None and " " in form]
        self._claim((form.replace(" ", ""), name) for form, name in won)

    def _claim(self, claims: Iterable[tuple[str, str]]) -> None:
        owners: dict[str, str | None] = {}
        for form, name in claims:
            if form and form not in self._forms and owners.setdefault(form, name) != name:
                owners[form] = None
        self._forms.update(owners)

    def find(self, form: str) -> str | None:
        """Return the label that `form` means (articles and small numbers before it do not matter), or None."""
        if form in self.position:
            return form
        key = folded(form)
        bare = _QUANTITY.sub("", key)
        for each in (key, bare, bare.replace(" ", "")):
            if each in self._forms:
                return self._forms[each]
        return None

    def ordered(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return distinct label names in the vocabulary's order."""
        return tuple(sorted(set(names), key=self.position.__getitem__))


def parse_names(text: str, lexicon: Lexicon, none: Sequence[str] = ("none",)) -> Parsed:
    """Read a list answer: the exact inverse of `render_names`, lenient where the answer is in another form.

    `none` are the answers that mean an empty list, as given to `render_names`. Read leniently are full stops, bullets,
    numbering, "and", line breaks, quotes, bold type, JSON arrays, "Answer:", a `<think>` part, and names with commas
    that lost their quotes where only one reading fits. What follows a negation in a line is not taken for seen.
    """
    if _said(text) in _plain(tuple(none)):
        return Parsed(())
    reserved = _plain((*none, "none", "yes", "no"))
    text = text.strip()
    exact = _read_exactly(text, lexicon, reserved)
    if exact is None and ("</think>" in text or "```" in text):
        text = _FENCE.sub("", _THOUGHT.sub("", text)).strip()
        exact = _read_exactly(text, lexicon, reserved)
    if exact is not None:
        return Parsed(lexicon.ordered(exact))
    reader = _LenientReader(lexicon, none)
    reader.read(text)
    return Parsed(lexicon.ordered(reader.found), tuple(reader.unmatched)[:MAX_UNMATCHED])


@lru_cache(maxsize=64)
def _plain(forms: tuple[str, ...]) -> frozenset[str]:
    return frozenset(form.strip().casefold() for form in forms)


def _said(text: str) -> str:
    return text.strip(" .").casefold()


def _read_exactly(text: str, lexicon: Lexicon, reserved: frozenset[str]) -> list[str] | None:
    """Return the names that `render_names` would have written as `text`; None where it could not have."""
    names: list[str] = []
    start, line = 0, f"{text}, "
    while start < len(text):
        quoted = _QUOTED.match(line, start)
        end = quoted.end() if quoted else line.index(", ", start)
        name = _decoded(line[start:end]) if quoted else line[start:end]
        if not isinstance(name, str) or name not in lexicon.position or not line.startswith(", ", end):
            return None
        if not quoted and _said(name) in reserved:
            return None
        names.append(name)
        start = end + 2
    return names


class _LenientReader:
    """Collects what an answer in any other form says: `found` label names and `unmatched` texts."""

    def __init__(self, lexicon: Lexicon, none: Sequence[str]) -> None:
        self.found: list[str] = []
        self.unmatched: dict[str, None] = {}  # a set in order
        self._lexicon = lexicon
        self._nothing = _plain(tuple(none))

    def read(self, text: str) -> None:
        if text.startswith("<think>"):
            self._leave(text)  # a thought that never ended is no answer
            return
        items = _decoded(text) if text.startswith("[") else None
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            self._take([(item, self._meaning(item, quoted=True)) for item in items])
            return
        muted = False
        for line in text.split("\n"):
            if self._label(re.split(f"[{_SEPARATORS}]", line, maxsplit=1)[0]) is None:
                lead = _LEAD.match(line)
                if line.rstrip("*_# ").endswith(":"):
                    muted = bool(_NEGATION.search(line))
                    line = "" if lead else line
                elif lead:
                    line = line[lead.end() :]
                elif _OTHER_LEAD.match(line):
                    self._leave(line)
                    continue
            if muted:
                self._leave(line)
            else:
                self._take(self._pieces(line))

    def _take(self, pieces: Iterable[tuple[str, _Meaning]]) -> None:
        negated = False
        for text, labels in pieces:
            negated = negated or (labels is None and bool(_NEGATION.search(text)))
            if labels is None or negated:
                self._leave(text)
            else:
                self.found.extend(labels)

    def _leave(self, text: str) -> None:
        text = text.strip()
        if text.strip(_DECORATION) and text.casefold().split(" ")[0] not in self._nothing:
            self.unmatched[text[:MAX_UNMATCHED_LENGTH].strip()] = None

    def _pieces(self, line: str) -> list[tuple[str, _Meaning]]:
        """Cut a line at its separators; return each piece with the labels that it names, None where it names none."""
        matches = list(_PIECE.finditer(line))
        pieces = [(match.group(), self._piece(match)) for match in matches]
        if self._lexicon.most_pieces == 1 or len(pieces) == 1:
            return pieces
        joined: list[tuple[int, int, _Meaning]] = []
        for first in range(len(pieces)):
            for stop in range(first + 2, min(len(pieces), first + self._lexicon.most_pieces) + 1):
                # Pieces that are labels themselves are what the format means: a name with a comma has quotes.
                name = self._label(line[matches[first].start() : matches[stop - 1].end()])
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
        value = _decoded(match.group(1) or "")
        return self._meaning(value, quoted=True) if isinstance(value, str) else self._meaning(match.group())

    def _meaning(self, text: str, quoted: bool = False) -> _Meaning:
        """Return the labels that a piece names; without quotes, an answer that means `none` comes before a label."""
        plain = text.strip(_DECORATION)
        says_none = plain.casefold() in self._nothing
        name = None if says_none and not quoted else self._label(text)
        if name is not None or says_none:
            return () if name is None else (name,)
        # "salt and pepper" is not pepper: all parts must be labels.
        parts = [self._label(part) for part in _AND.split(plain)]
        return None if quoted or None in parts else tuple(part for part in parts if part is not None)

    def _label(self, text: str) -> str | None:
        name = self._lexicon.find(text.strip())
        if name is None:
            plain = _PREFIX.sub("", text.strip(_DECORATION)).strip(_DECORATION)
            name = self._lexicon.find(plain) if plain else None
        return name


def _decoded(text: str) -> object:
    try:
        return _JSON.decode(text)
    except (ValueError, RecursionError):
        return None
