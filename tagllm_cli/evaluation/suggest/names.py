"""Which texts outside the vocabulary are names, and what the others are.

A text is, in this order: `nothing` ("none", "yes", an empty one), a `refusal`, a `number` (no letter, or number words
only), `in doubt` (denied, hedged, asked), a `sentence` (more than MOST_WORDS words or MOST_LETTERS letters, a form of
"to be", talk), a `phrase` (a preposition or a conjunction between words, a verb: "man on a bench"), an `adjective`
alone, else a name. Articles, number words and "pair of" before a name are dropped; case, hyphens, the punctuation
around it and an aside in parentheses after it do not matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tagllm_cli.labeling.answers import words
from tagllm_cli.vocabulary.forms import folded

MOST_WORDS = 4
MOST_LETTERS = 40
JUNK = ("nothing", "refusal", "number", "sentence", "in doubt", "phrase", "adjective")

_BEFORE = words.DETERMINERS
# Words that are as often a part of a name: trash can, hard hat, front door.
_TALK = (words.TALK | words.FINITE) - {"can", "note", "will"}
_DOUBT = (words.DOUBT | words.NEGATIVE) - {"hard"}
_VERBS = {each for each in words.VERBS if each.endswith("ing")}
_JOINING = (words.PREPOSITIONS | words.CONJUNCTIONS) - {"e", "i", "en", "og", "y", "et"}
_OPENING = words.PREPOSITIONS - {"front", "top", "left", "right", "next"}
_VERDICTS = frozenset(["yes", "true", "ok"])
_ASIDE = re.compile(r"(?<=\w)\s*\([^()]*\)[\s.]*$")
_SIGNS = re.compile(r"[:;=<>(){}\[\]|\\/#*]|\s[-\u2013\u2014]\s")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text is: a `name` in its folded form, or `junk`, one of JUNK; the other one is empty."""

    name: str = ""
    junk: str = ""


def read_name(text: str) -> Reading:
    """Return the name in a text outside the vocabulary, or what else it is.

    >>> [read_name(text).name for text in ("a Desk-Lamp.", "two lamps", "STOP sign", "trash can")]
    ['desk lamp', 'lamps', 'stop sign', 'trash can']
    >>> [read_name(text).junk for text in ("none", "12", "a man on a bench", "There is a lamp", "maybe a lamp", "red")]
    ['nothing', 'number', 'phrase', 'sentence', 'in doubt', 'adjective']
    """
    text = _ASIDE.sub("", text)
    plain = folded(words.bare(text))
    said = plain.split()
    if not said or plain in _VERDICTS or (words.says_none(plain) and len(said) <= MOST_WORDS):
        return Reading(junk="nothing")
    if words.REFUSAL.match(text):
        return Reading(junk="refusal")
    if not any(letter.isalpha() for letter in plain) or all(each in words.NUMERALS or each.isdigit() for each in said):
        return Reading(junk="number")
    if _DOUBT.intersection(said) or "?" in text:
        return Reading(junk="in doubt")
    if words.describes(text) or _TALK.intersection(said):
        return Reading(junk="sentence")
    while len(said) > 1 and (said[0] in _BEFORE or said[0].isdigit()):
        said = said[1:]
    while len(said) > 2 and said[1] == "of" and said[0] in words.BEFORE_OF:
        said = said[2:]
    if len(said) > MOST_WORDS or sum(map(len, said)) > MOST_LETTERS or any(each[-1] in ".!" for each in said[:-1]):
        return Reading(junk="sentence")
    joined = _JOINING.intersection(said[1:-1]) or _VERBS.intersection(said)
    if joined or (len(said) > 1 and said[0] in _OPENING) or _SIGNS.search(text.strip("*_`#-() \t")):
        return Reading(junk="phrase")
    if all(each in words.ADJECTIVES or each in _BEFORE for each in said):
        return Reading(junk="adjective")
    return Reading(" ".join(said))


def without_adjectives(name: str) -> str:
    """Return a name without the adjectives before it; "" where there are none.

    >>> without_adjectives("small red lamp"), without_adjectives("lamp")
    ('lamp', '')
    """
    said = name.split()
    kept = list(said)
    while len(kept) > 1 and kept[0] in words.ADJECTIVES:
        kept = kept[1:]
    return "" if len(kept) == len(said) else " ".join(kept)
