"""A vocabulary as a YAML file to be edited, with what was added to it marked by comments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from tagllm_cli.vocabulary.model import Label, Vocabulary
from tagllm_cli.vocabulary.serialize import vocabulary_to_json

_WIDTH = 110  # of a label in one line


@dataclass(frozen=True, slots=True)
class Addition:
    """A label that is added, and what is to be said about it."""

    label: Label
    comment: str


@dataclass(frozen=True, slots=True)
class Additions:
    """What is added: labels, and synonyms of labels that there are, each with a comment, by label."""

    labels: Sequence[Addition] = ()
    synonyms: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)


def vocabulary_yaml(vocabulary: Vocabulary, additions: Additions, head: Sequence[str]) -> str:
    """Return the text of a file that holds the vocabulary as it is, and the additions, marked by comments.

    A new label joins a group of its own in every arm whose groups the author wrote. `head` are the first lines.
    """
    return "\n".join([*map(_comment, head), *_lines(vocabulary, additions)]) + "\n"


def _lines(vocabulary: Vocabulary, additions: Additions) -> Iterator[str]:
    value = vocabulary_to_json(vocabulary)
    for key in ("name", "about"):
        if value[key]:
            yield _dumped({key: value[key]})
    added = [each.label for each in additions.labels]
    names = {label.name for label in (*vocabulary.labels, *added)}
    parents = dict.fromkeys(label.parent for label in (*vocabulary.labels, *added) if label.parent)
    declared = [parent for parent in parents if parent not in names or _is_own_parent(vocabulary, parent)]
    if declared:
        yield _dumped({"parents": declared})
    yield "labels:"
    for label in value["labels"]:
        new = additions.synonyms.get(label["name"], ())
        for synonym, comment in new:
            yield _comment(f"suggested synonym: {synonym} ({comment})")
        yield _entry({**label, "synonyms": [*label.get("synonyms", ()), *(synonym for synonym, _ in new)]})
    if added:
        yield ""
        yield _comment(f"{len(added):,} suggested labels: keep, change or delete them.")
    for each in additions.labels:
        yield _comment(each.comment)
        (entry,) = vocabulary_to_json(Vocabulary("", (each.label,)))["labels"]
        yield _entry(entry)
    if value["groups"]:
        new_group = [[label.name for label in added]] if added else []
        yield _dumped({"groups": {arm: [*groups, *new_group] for arm, groups in value["groups"].items()}})


def _is_own_parent(vocabulary: Vocabulary, name: str) -> bool:
    """Tell whether a label is in a category of its own name, as COCO's person is: the category must be declared."""
    return any(label.name == label.parent == name for label in vocabulary.labels)


def _entry(label: Mapping[str, Any]) -> str:
    """Return a label as an entry of a list: its name alone, in one line, or in several."""
    known = {key: list(value) if isinstance(value, tuple | list) else value for key, value in label.items() if value}
    if [*known] == ["name"]:
        return _dumped([known["name"]])
    line = yaml.safe_dump(known, allow_unicode=True, sort_keys=False, width=float("inf"), default_flow_style=True)
    return f"- {line.rstrip()}" if len(line) <= _WIDTH else _dumped([known])


def _dumped(value: Any) -> str:
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=_WIDTH, default_flow_style=False).rstrip(
        "\n"
    )


def _comment(text: str) -> str:
    """Return a comment in one line; what ends lines, and what no YAML may hold, becomes a space."""
    return "# " + " ".join("".join(each if each.isprintable() else " " for each in text).split())
