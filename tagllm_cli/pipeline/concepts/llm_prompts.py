"""Requests to the LLM about labels, and how its responses are read. Pure functions.

An unusable response raises UnusableAnswerError with the reason in a line; nothing is guessed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tagllm_cli.labeling.answers.parse_json import UnusableAnswerError, read_json, spoken
from tagllm_cli.labeling.answers.parse_list import Lexicon, parse_names, render_names
from tagllm_cli.labeling.answers.words import NEGATION, REFUSAL
from tagllm_cli.labeling.templates import Template
from tagllm_cli.records import Request, Response
from tagllm_cli.text import one_line
from tagllm_cli.vocabulary.cards import Attempt, Wording
from tagllm_cli.vocabulary.forms import inflected
from tagllm_cli.vocabulary.model import Label, Vocabulary

RELATIONS = ("same", "narrower", "broader", "different")
LABELS_PER_QUESTION = 50
MAX_SIBLINGS = 20
ROUND_TRIP_NAMES = 8

_RELATION = re.compile(rf"\b({'|'.join(RELATIONS)})\b", re.IGNORECASE)
_ASIDE = re.compile(r"\s*\([^()]*\)$")
_AROUND = " \t\"'`*.\u201c\u201d\u2018\u2019"


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """What the LLM is told about the label whose card it writes; empty where nothing is known."""

    label: Label
    overlaps: tuple[str, ...] = ()
    reading: str = ""
    confusion: str = ""
    earlier: tuple[Attempt, ...] = ()


def split_labels(vocabulary: Vocabulary) -> list[list[Label]]:
    """Split the labels into requests, ordered by category: overlaps are mostly within one."""
    ordered = sorted(vocabulary.labels, key=lambda label: label.parent or "")  # stable: else the vocabulary's order
    return [ordered[start : start + LABELS_PER_QUESTION] for start in range(0, len(ordered), LABELS_PER_QUESTION)]


def ask_what_is_ambiguous(
    template: Template, vocabulary: Vocabulary, labels: Iterable[Label], known: Mapping[str, Wording]
) -> Request:
    """Return the request that finds ambiguous names among `labels`; `known` are the wordings of their cards."""
    lines = []
    for label in labels:
        parent = f" ({label.parent})" if label.parent else ""
        meaning = known[label.name].card(label.name).description if label.name in known else ""
        lines.append(f"- {render_names([label.name])}{parent}" + (f": {meaning}" if meaning else ""))
    return template.request(labels="\n".join(lines), about=vocabulary.about)


def read_ambiguous(response: Response, lexicon: Lexicon) -> dict[str, tuple[str, ...]]:
    """Return the labels named, each with the labels that it overlaps; out-of-vocabulary names are left out."""
    found: dict[str, tuple[str, ...]] = {}
    for each in _entries(_json_of(response), lexicon):
        entry = {"label": each} if isinstance(each, str) else each
        name = find_label(entry.get("label"), lexicon) if isinstance(entry, dict) else None
        if name is not None:
            others = _labels(entry.get("overlaps"), lexicon)
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *(other for other in others if other != name))))
    return found


def _entries(value: object, lexicon: Lexicon) -> list[Any]:
    """Return the list of entries, also where it came as one object: a single entry, keyed by label, or wrapped."""
    if isinstance(value, dict):
        if "label" in value:
            return [value]
        if any(find_label(key, lexicon) for key in value):
            return [{"label": key, "overlaps": others} for key, others in value.items()]
        value = next((each for each in value.values() if isinstance(each, list)), None)
    if not isinstance(value, list):
        raise UnusableAnswerError("the answer is no JSON list")
    return value


def ask_for_a_card(template: Template, vocabulary: Vocabulary, facts: LabelFacts) -> Request:
    """Return the request for a card's wording."""
    label = facts.label
    siblings = [each.name for each in vocabulary.labels if label.parent and each.parent == label.parent]
    earlier = [f"- {_quoted(attempt.wording)}: {attempt.why}" for attempt in facts.earlier]
    return template.request(
        name=render_names([label.name]),
        about=vocabulary.about,
        parent=label.parent or "",
        siblings=render_names([name for name in siblings if name != label.name][:MAX_SIBLINGS]),
        overlaps=render_names(facts.overlaps),
        reading=facts.reading,
        confusion=facts.confusion,
        earlier="\n".join(dict.fromkeys(earlier)),
    )


def read_card(response: Response) -> dict[str, object]:
    """Return the JSON object of a response, whatever it holds."""
    value = _json_of(response)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        raise UnusableAnswerError("the answer is no JSON object")
    return value


def ask_to_compare(template: Template, name: str, wording: Wording, reading: str) -> Request:
    """Return the request that compares the VLM's reading of a name with a card."""
    description = wording.card(name).description
    return template.request(name=render_names([name]), description=description, reading=reading)


def read_relation(response: Response) -> str:
    """Return one of RELATIONS; "" where the response names none, several, or negates."""
    text = _spoken(response)
    found = {word.lower() for word in _RELATION.findall(text)}
    return found.pop() if len(found) == 1 and not NEGATION.search(text) else ""


def round_trip_choices(vocabulary: Vocabulary, name: str, similar: Sequence[str]) -> list[str]:
    """Return the names of a round-trip check, in an order that depends on the label alone.

    They are the label, its similar labels, then others up to ROUND_TRIP_NAMES, those of its category first.
    """
    parents = {label.name: label.parent for label in vocabulary.labels}

    def rank(other: str) -> bytes:
        return hashlib.blake2b(f"{name}\0{other}".encode("utf-8", "surrogatepass"), digest_size=8).digest()

    def is_far(other: str) -> bool:
        return parents[other] is None or parents[other] != parents[name]

    rest = sorted(parents.keys() - {name, *similar}, key=lambda other: (is_far(other), rank(other)))
    return sorted([name, *similar, *rest][: max(ROUND_TRIP_NAMES, 1 + len(similar))], key=rank)


def ask_round_trip(template: Template, wording: Wording, name: str, choice: Sequence[str]) -> Request:
    """Return the request which of the labels a description belongs to, with the label's name removed from it.

    With the name in it, any description would lead back to its label.
    """
    description = replace(wording, synonyms=()).card(name).description
    forms = sorted({name, *inflected(name.casefold())}, key=len, reverse=True)
    own_name = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, forms))})(?!\w)", re.IGNORECASE)
    return template.request(description=own_name.sub("...", description), labels=render_names(choice, template.none))


def read_naming(template: Template, response: Response, lexicon: Lexicon) -> tuple[str, ...]:
    """Return the labels named, in the vocabulary's order."""
    return parse_names(_spoken(response), lexicon, template.none).labels


def read_meaning(response: Response) -> str:
    """Return what a bare name means to the model, as one line."""
    return one_line(_spoken(response), 200)


def find_label(value: object, lexicon: Lexicon) -> str | None:
    """Return the label that a model wrote, with or without the quotes or category shown in the request."""
    if not isinstance(value, str):
        return None
    bare = value.strip(_AROUND)
    return lexicon.find(value) or lexicon.find(bare) or lexicon.find(_ASIDE.sub("", bare).strip(_AROUND))


def _spoken(response: Response) -> str:
    text = spoken(response)
    if REFUSAL.search(text):
        raise UnusableAnswerError(f"the LLM refuses: {one_line(text, 80)!r}")
    if not text:
        raise UnusableAnswerError("the answer is empty")
    return text


def _json_of(response: Response) -> object:
    _spoken(response)
    return read_json(response)


def _labels(value: object, lexicon: Lexicon) -> list[str]:
    found = [find_label(each, lexicon) for each in (value if isinstance(value, list) else [])]
    return [name for name in found if name is not None]


def _quoted(wording: Wording) -> str:
    return json.dumps(wording.description, ensure_ascii=False) if wording.description else "no usable card"
