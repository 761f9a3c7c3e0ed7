"""Reading JSON and Markdown tables: the labels that they say are seen or not seen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tagllm_cli.labeling.answers.items import Items
from tagllm_cli.labeling.answers.parse_json import json_values
from tagllm_cli.labeling.answers.sections import Polarity, Sections, polarity
from tagllm_cli.labeling.answers.sentences import Reading, Sentence
from tagllm_cli.labeling.answers.words import says_none, verdict

_NAME_KEYS = ("label", "name", "category", "class", "object", "item", "tag", "type", "category_name", "class_name")
_VERDICT_KEYS = re.compile(
    r"(?:is_?|in_?)?(?:visible|present|detected|found|seen|exists|image|count|quantity|amount|number|answer|status|value)"
)
_TALK_KEYS = re.compile(
    r"(?:reason|explanation|description|caption|comment|thought|summary|note|analysis|image|confidence|score|bbox|box|location"
    r"|total|count|num)",
)
_PYTHON = (("'", '"'), ("True", "true"), ("False", "false"), ("None", "null"))
_LAST_COMMA = re.compile(r",\s*([\]}])")
_RULE = frozenset(" \t|:+-")
_JSON_LIKE = re.compile(r'(?:^|[\s:])[{\[]+\s*"')


def is_structured(text: str) -> bool:
    """Return whether a text has JSON or a table in it, whole or not."""
    return bool(_JSON_LIKE.search(text)) or _has_table(text.split("\n"))


def _is_rule(line: str) -> bool:
    return "-" in line and _RULE.issuperset(line)


def _has_table(lines: Sequence[str]) -> bool:
    return any("|" in line and _is_rule(line) for line in lines)


def read_json_answer(text: str, items: Items) -> Reading | None:
    """Read an answer whose labels stand in JSON (or in a Python literal); None where there is no such JSON.

    Prose before and after it must name no label.
    """
    start = min((at for at in map(text.find, "[{") if at >= 0), default=-1)
    end = 1 + max(map(text.rfind, "]}"))
    if not 0 <= start < end or any(Sentence(part, items.lexicon).names for part in (text[:start], text[end:])):
        return None
    inner = text[start:end]
    found, is_whole = json_values(inner)
    if not is_whole:
        for other, json in _PYTHON if '"' not in inner else ():
            inner = inner.replace(other, json)
        inner = _LAST_COMMA.sub(r"\1", inner)
        found, is_whole = json_values(inner)
    if not is_whole:
        return None
    values = [value for _, value in found]
    return _value(values[0] if len(values) == 1 else values, items, 4)


def _value(value: object, items: Items, depth: int) -> Reading | None:
    if isinstance(value, str):
        return _text(value, items)
    if value is None:
        return Reading()
    if depth and isinstance(value, list):
        return _united([_value(each, items, depth - 1) for each in value])
    if depth and isinstance(value, dict):
        return _object(value, items, depth - 1)
    return None


def _object(value: Mapping[str, object], items: Items, depth: int) -> Reading | None:
    key = next((key for key in value if key.casefold() in _NAME_KEYS and isinstance(value[key], str)), None)
    if key is not None:
        reading = _text(str(value[key]), items)
        verdicts = [_truth(value[each]) for each in value if _VERDICT_KEYS.fullmatch(each.casefold())]
        if reading is not None and False in verdicts:
            return Reading(denied=reading.found)
        return reading
    names = {key: items.label(key) for key in value}
    if value and all(name is not None or _TALK_KEYS.match(key.casefold()) for key, name in names.items()):
        reading = Reading()
        for key, name in names.items():
            if name is None:
                continue
            truth = _truth(value[key])
            if truth is None:
                return None
            (reading.found if truth else reading.denied).append(name)
        return reading
    sections = Sections()
    for key, each in value.items():
        if (names[key] is None and _TALK_KEYS.match(key.casefold())) or isinstance(each, int | float):
            continue
        part = _value(each, items, depth)
        if part is None:
            return None
        sections.add(polarity(key.replace("_", " ")), part)
    return sections.united()


def _truth(value: object) -> bool | None:
    """Return whether a value beside a name says that it is seen."""
    if value is None:
        return False
    if isinstance(value, bool | int | float):
        return value > 0
    if isinstance(value, str):
        said = verdict(value)
        return said if said is not None else (None if says_none(value) else True)
    if isinstance(value, dict):
        verdicts = [_truth(each) for key, each in value.items() if _VERDICT_KEYS.fullmatch(key.casefold())]
        return False not in verdicts
    return isinstance(value, list) and bool(value)


def _text(text: str, items: Items) -> Reading | None:
    labels = items.meaning(text, quoted=True)
    if labels is not None:
        return Reading(found=list(labels))
    if says_none(text) and not Sentence(text, items.lexicon).names:
        return Reading()
    return read_pieces(text, items)


def read_pieces(text: str, items: Items) -> Reading | None:
    """Read names divided by separators, none of them in a sentence; None where one is not understood."""
    reading = Reading()
    for piece, labels in items.pieces(text):
        part = Reading(found=list(labels)) if labels is not None else items.read(piece)
        if part is None and not Sentence(piece, items.lexicon).is_talk:
            part = items.unmatched(piece)
        if part is None:
            return None
        reading.add(part)
    return reading


def _united(parts: Sequence[Reading | None]) -> Reading | None:
    reading = Reading()
    for part in parts:
        if part is None:
            return None
        reading.add(part)
    # Of several boxes of one label, one that counts is enough.
    reading.denied = [name for name in reading.denied if name not in reading.found]
    return reading


def read_table(text: str, items: Items) -> Reading | None:
    """Read a Markdown table: every cell that is a label counts, unless its column or another cell says no."""
    lines = [line.strip() for line in text.split("\n")]
    if not _has_table(lines):
        return None
    reading, header, around = Reading(), list[str](), set[str]()
    for line in lines:
        if not line or _is_rule(line):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")] if "|" in line else []
        if not header and cells:
            header = cells
            continue
        names = [(index, labels) for index, cell in enumerate(cells) if (labels := items.meaning(cell))]
        if not names:
            around |= Sentence(line, items.lexicon).names
            continue
        columns = {
            index: polarity(header[index]) if index < len(header) else Polarity.NEUTRAL for index in range(len(cells))
        }
        taken = {index for index, _ in names}
        said = [verdict(cell) for index, cell in enumerate(cells) if index > names[0][0] and index not in taken]
        for index, labels in names:
            seen = columns[index] is not Polarity.ABSENT and False not in said[:1]
            (reading.found if seen else reading.denied).extend(labels)
    return reading if header and around <= {*reading.found, *reading.denied} else None
