"""The form of a draft: a strict check whether an LLM's JSON is a concept card of the label. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tagllm_cli.labeling.answers.parse_json import UnusableAnswerError
from tagllm_cli.labeling.answers.parse_list import Lexicon
from tagllm_cli.labeling.answers.words import REFUSAL
from tagllm_cli.pipeline.concepts.llm_prompts import find_label
from tagllm_cli.text import one_line
from tagllm_cli.vocabulary.cards import Wording, phrase
from tagllm_cli.vocabulary.forms import folded

MIN_WORDS, MAX_WORDS = 3, 40
MAX_PHRASES = 5  # of each list
MAX_PHRASE_WORDS = 8

_NEXT_SENTENCE = re.compile(r"[.!?]\s+[A-Z]|\n\s*\S")
_OPENING = re.compile(r"^here,? it means:?\s+", re.IGNORECASE)
_WORD = re.compile(
    r"[\u3040-\u9fff]|[^\s\u3040-\u9fff]+"
)  # Chinese and Japanese have no spaces: a character counts as a word
_UNCLEAN = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff{}<>`]")


@dataclass(frozen=True, slots=True)
class Draft:
    """A card that passed the check of its form; `note` says what was left out of it."""

    name: str
    wording: Wording
    reading: str = ""
    note: str = ""


def check_draft(value: Mapping[str, object], name: str, lexicon: Lexicon, reading: str = "") -> Draft:
    """Return the draft that an LLM's JSON object makes for the label `name`.

    It must be about this label, in one phrase of 3 to 40 words that is more than the name. Of `similar` the labels are
    kept, of the other lists up to five short phrases each. Raises UnusableAnswerError with the reason.
    """
    about = value.get("label")
    if about is not None and find_label(about, lexicon) != name:
        raise UnusableAnswerError(f"the draft is about {one_line(repr(about), 80)}, another label")
    description = _description(value.get("description"), lexicon)
    similar, strange = _similar(value.get("similar"), name, lexicon)
    synonyms = tuple(word for word in _phrases(value, "synonyms") if lexicon.find(word) in (None, name))
    wording = Wording(
        description,
        similar,
        tuple(word for word in synonyms if folded(word) != folded(name)),
        _phrases(value, "includes"),
        _phrases(value, "excludes"),
    )
    note = f"not labels, left out of similar: {', '.join(strange)}" if strange else ""
    return Draft(name, wording, reading, note)


def _description(value: object, lexicon: Lexicon) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UnusableAnswerError("the draft has no description")
    if REFUSAL.search(value):
        raise UnusableAnswerError("the description is a refusal")
    if _NEXT_SENTENCE.search(value.strip()):
        raise UnusableAnswerError("the description is more than one phrase")
    text = _OPENING.sub("", phrase(value))
    if _UNCLEAN.search(text):
        raise UnusableAnswerError("the description holds marks that are no text")
    words = len(_WORD.findall(text))
    if not MIN_WORDS <= words <= MAX_WORDS:
        raise UnusableAnswerError(f"the description has {words} words, not {MIN_WORDS} to {MAX_WORDS}")
    if lexicon.find(text) is not None:
        raise UnusableAnswerError(f"the description says no more than a name: {text!r}")
    return text


def _similar(value: object, name: str, lexicon: Lexicon) -> tuple[tuple[str, ...], list[str]]:
    """Return the labels among the names, without the label itself, and the names that are none."""
    given = [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
    found = {each: find_label(each, lexicon) for each in given}
    labels = dict.fromkeys(label for label in found.values() if label is not None and label != name)
    return tuple(labels)[:MAX_PHRASES], [phrase(each)[:40] for each, label in found.items() if label is None]


def _phrases(value: Mapping[str, object], key: str) -> tuple[str, ...]:
    given = value.get(key)
    texts = [phrase(each) for each in given if isinstance(each, str)] if isinstance(given, list) else []
    short = (text for text in texts if text and len(text.split()) <= MAX_PHRASE_WORDS and not _UNCLEAN.search(text))
    return tuple(dict.fromkeys(short))[:MAX_PHRASES]
