"""What the LLM is asked about labels, and what its answers say. Pure: requests out, records in.

An answer that is no use raises UnusableAnswerError with the reason in a line; nothing of it is guessed.
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
from tagllm_cli.vocabulary.cards import Attempt, Wording
from tagllm_cli.vocabulary.forms import inflected
from tagllm_cli.vocabulary.model import Label, Vocabulary

RELATIONS = ("same", "narrower", "broader", "different")
LABELS_PER_QUESTION = 50
MAX_SIBLINGS = 20
NAMES_IN_BLIND_NAMING = 8

_RELATION = re.compile(rf"\b({'|'.join(RELATIONS)})\b", re.IGNORECASE)
_ASIDE = re.compile(r"\s*\([^()]*\)$")
_AROUND = " \t\"'`*.\u201c\u201d\u2018\u2019"


@dataclass(frozen=True, slots=True)
class Brief:
    """What the LLM is told about the label that it writes a card for; empty where nothing is known."""

    label: Label
    overlaps: tuple[str, ...] = ()
    reading: str = ""
    confusion: str = ""
    earlier: tuple[Attempt, ...] = ()


def chunks(vocabulary: Vocabulary) -> list[list[Label]]:
    """Cut the labels into questions, those of one category together: overlaps are mostly among them."""
    ordered = sorted(vocabulary.labels, key=lambda label: label.parent or "")  # stable: else the vocabulary's order
    return [ordered[start : start + LABELS_PER_QUESTION] for start in range(0, len(ordered), LABELS_PER_QUESTION)]


def ask_what_is_ambiguous(
    template: Template, vocabulary: Vocabulary, labels: Iterable[Label], known: Mapping[str, Wording]
) -> Request:
    """Return the question about some labels of the vocabulary; `known` says what is meant, as far as cards say."""
    lines = []
    for label in labels:
        parent = f" ({label.parent})" if label.parent else ""
        meaning = known[label.name].card(label.name).description if label.name in known else ""
        lines.append(f"- {render_names([label.name])}{parent}" + (f": {meaning}" if meaning else ""))
    return template.request(labels="\n".join(lines), about=vocabulary.about)


def read_ambiguous(response: Response, lexicon: Lexicon) -> dict[str, tuple[str, ...]]:
    """Return the labels that were named, each with the labels that it overlaps; names outside are left out."""
    found: dict[str, tuple[str, ...]] = {}
    for each in _entries(_json_of(response), lexicon):
        entry = {"label": each} if isinstance(each, str) else each
        name = find_label(entry.get("label"), lexicon) if isinstance(entry, dict) else None
        if name is not None:
            others = _labels(entry.get("overlaps"), lexicon)
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *(other for other in others if other != name))))
    return found


def _entries(value: object, lexicon: Lexicon) -> list[Any]:
    """Return the list that was asked for, where it came as one object: a single entry, by label, or wrapped."""
    if isinstance(value, dict):
        if "label" in value:
            return [value]
        if any(find_label(key, lexicon) for key in value):
            return [{"label": key, "overlaps": others} for key, others in value.items()]
        value = next((each for each in value.values() if isinstance(each, list)), None)
    if not isinstance(value, list):
        raise UnusableAnswerError("the answer is no JSON list")
    return value


def ask_for_a_card(template: Template, vocabulary: Vocabulary, brief: Brief) -> Request:
    """Return the question for a card's wording."""
    label = brief.label
    siblings = [each.name for each in vocabulary.labels if label.parent and each.parent == label.parent]
    earlier = [f"- {_quoted(attempt.wording)}: {attempt.why}" for attempt in brief.earlier]
    return template.request(
        name=render_names([label.name]),
        about=vocabulary.about,
        parent=label.parent or "",
        siblings=render_names([name for name in siblings if name != label.name][:MAX_SIBLINGS]),
        overlaps=render_names(brief.overlaps),
        reading=brief.reading,
        confusion=brief.confusion,
        earlier="\n".join(dict.fromkeys(earlier)),
    )


def read_card(response: Response) -> dict[str, object]:
    """Return the JSON object of an answer, whatever it holds."""
    value = _json_of(response)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        raise UnusableAnswerError("the answer is no JSON object")
    return value


def ask_to_compare(template: Template, name: str, wording: Wording, reading: str) -> Request:
    """Return the question how the model's reading of a name compares with a card."""
    description = wording.card(name).description
    return template.request(name=render_names([name]), description=description, reading=reading)


def read_relation(response: Response) -> str:
    """Return one of RELATIONS; "" where the answer names none, or several, or says what it is not."""
    text = _spoken(response)
    found = {word.lower() for word in _RELATION.findall(text)}
    return found.pop() if len(found) == 1 and not NEGATION.search(text) else ""


def names_to_choose_from(vocabulary: Vocabulary, name: str, similar: Sequence[str]) -> list[str]:
    """Return the names among which a description is to be found again: its label, what it is like, and others.

    Labels of the same category come before the rest, which follow in an order that depends on the label alone.
    """
    parents = {label.name: label.parent for label in vocabulary.labels}

    def rank(other: str) -> bytes:
        return hashlib.blake2b(f"{name}\0{other}".encode("utf-8", "surrogatepass"), digest_size=8).digest()

    def is_far(other: str) -> bool:
        return parents[other] is None or parents[other] != parents[name]

    rest = sorted(parents.keys() - {name, *similar}, key=lambda other: (is_far(other), rank(other)))
    return sorted([name, *similar, *rest][: max(NAMES_IN_BLIND_NAMING, 1 + len(similar))], key=rank)


def ask_blindly(template: Template, wording: Wording, name: str, choice: Sequence[str]) -> Request:
    """Return the question which of the labels a description belongs to, the name left out of it.

    Else a description of anything would lead to the label, if only it says the word.
    """
    description = replace(wording, synonyms=()).card(name).description
    forms = sorted({name, *inflected(name.casefold())}, key=len, reverse=True)
    given_away = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, forms))})(?!\w)", re.IGNORECASE)
    return template.request(description=given_away.sub("...", description), labels=render_names(choice, template.none))


def read_naming(template: Template, response: Response, lexicon: Lexicon) -> tuple[str, ...]:
    """Return the labels that were named, in the vocabulary's order."""
    return parse_names(_spoken(response), lexicon, template.none).labels


def one_line(text: str, most: int = 200) -> str:
    """Return a model's text as one line of at most so many characters, for prompts and for people."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def read_meaning(response: Response) -> str:
    """Return what a bare name means to the model, as one line."""
    return one_line(_spoken(response))


def find_label(value: object, lexicon: Lexicon) -> str | None:
    """Return the label that a model wrote, also with the quotes or the category that the question showed it with."""
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
