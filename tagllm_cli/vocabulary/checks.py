"""What is wrong or doubtful about a vocabulary whose file has the right structure."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tagllm_cli.vocabulary.forms import folded
from tagllm_cli.vocabulary.model import Vocabulary

MAX_NAME = 200  # characters of a label's name


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a vocabulary. A `fatal` one makes it unusable; `label` is empty where none is concerned."""

    kind: str
    label: str
    message: str
    fatal: bool = True


def problems_of(vocabulary: Vocabulary, parents: Sequence[str]) -> Iterator[Problem]:
    """Yield every problem of a vocabulary; `parents` are the categories that its file declares."""
    yield from _name_problems(vocabulary)
    yield from _synonym_problems(vocabulary)
    yield from _reference_problems(vocabulary, parents)
    for arm, groups in vocabulary.groups.items():
        yield from _partition_problems(vocabulary, arm, groups)


def _name_problems(vocabulary: Vocabulary) -> Iterator[Problem]:
    alike: dict[str, str] = {}
    for number, (name, count) in enumerate(Counter(vocabulary.names).items(), 1):
        if not name.strip():
            yield Problem("empty_name", name, f"a label without a name, about number {number} (null needs quotes)")
            continue
        if count > 1:
            yield Problem("duplicate", name, f"{name!r} stands {count} times")
        if len(name) > MAX_NAME:
            yield Problem("long_name", name, f"{name[:40]!r}... has {len(name)} characters, more than {MAX_NAME}")
        if any("\ud800" <= character <= "\udfff" for character in name):
            yield Problem("not_text", name, f"{name!r} holds half a surrogate pair, which no file can store")
        if any(unicodedata.category(character) == "Cc" for character in name):
            yield Problem("control_character", name, f"{name!r} holds a control character", fatal=False)
        twin = alike.setdefault(folded(name), name)
        if twin != name:
            message = f"{name!r} differs from {twin!r} only in case, spaces or hyphens: answers must match exactly"
            yield Problem("alike", name, message, fatal=False)


def _synonym_problems(vocabulary: Vocabulary) -> Iterator[Problem]:
    owners = {folded(name): name for name in vocabulary.names}
    for label in vocabulary.labels:
        for synonym in label.synonyms:
            owner = owners.setdefault(folded(synonym), label.name)
            if owner != label.name:
                means = f"means {owner!r}" if folded(owner) == folded(synonym) else "means neither"
                message = f"synonym {synonym!r} of {label.name!r} also belongs to {owner!r}: it {means}"
                yield Problem("colliding_synonym", label.name, message, fatal=False)


def _reference_problems(vocabulary: Vocabulary, parents: Sequence[str]) -> Iterator[Problem]:
    names = set(vocabulary.names)
    parent_of = {label.name: label.parent for label in vocabulary.labels}
    for label in vocabulary.labels:
        if label.parent is not None and label.parent not in names and label.parent not in parents:
            message = f"{label.name!r} has the parent {label.parent!r}, which is neither in `parents` nor a label"
            yield Problem("unknown_parent", label.name, message)
        for other in label.similar:
            if other not in names or other == label.name:
                reason = "itself" if other == label.name else f"{other!r}, which is no label"
                yield Problem("unknown_similar", label.name, f"{label.name!r} is called similar to {reason}")
        # A category may bear a label's name, as COCO's person does: it has no parent of its own.
        above, passed = label.parent, {label.name}
        while above in parent_of and above not in parents and above not in passed:
            passed.add(above)
            above = parent_of[above]
        if above == label.name and above not in parents:
            yield Problem("parent_cycle", label.name, f"{label.name!r} is its own parent or ancestor")


def _partition_problems(vocabulary: Vocabulary, arm: str, groups: Sequence[Sequence[str]]) -> Iterator[Problem]:
    counts = Counter(name for group in groups for name in group)
    names = set(vocabulary.names)
    for name, count in counts.items():
        if name not in names:
            yield Problem("unknown_in_group", name, f"groups of {arm!r} name {name!r}, which is no label")
        elif count > 1:
            yield Problem("repeated_in_group", name, f"{name!r} stands {count} times in the groups of {arm!r}")
    for name in vocabulary.names:
        if name not in counts:
            yield Problem("missing_in_group", name, f"{name!r} is in no group of {arm!r}")
