"""Vocabularies: the labels of a dataset, from a built-in list or a user's file, checked before anything is asked.

A file is YAML or JSON (`name`, `about`, `parents`, `labels`, `groups`; or only the list of labels) or plain text (one
name a line, `#` starts a comment line). A label is a name, or a mapping with `name`, `parent`, `synonyms`,
`description` and `similar`. A parent is one of `parents` or another label. `groups` maps an arm to a partition of the
names.
"""

from __future__ import annotations

import difflib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagllm_cli.errors import VocabularyError
from tagllm_cli.resources import folder, read_text, read_yaml
from tagllm_cli.vocabulary.forms import folded
from tagllm_cli.vocabulary.model import Label, Vocabulary

MAX_NAME = 200  # characters of a label's name

_SUFFIXES = (".yaml", ".yml", ".json", ".txt")
_FILE_KEYS = {"name", "about", "parents", "labels", "groups"}
_LABEL_KEYS = {"name", "parent", "synonyms", "description", "similar"}
_SHOWN = 3  # problems named by an error; `tagllm vocab check` shows all


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a vocabulary. A `fatal` one makes it unusable; `label` is empty where none is to blame."""

    kind: str
    label: str
    message: str
    fatal: bool = True


def builtin_vocabularies() -> tuple[str, ...]:
    """Return the names of the vocabularies that come with the package, sorted."""
    return tuple(sorted(path.stem for path in folder("vocab").glob("*.yaml")))


def load_vocabulary(spec: str) -> Vocabulary:
    """Return the vocabulary of a built-in name or of a path; VocabularyError names the first problems."""
    vocabulary, problems = _examined(spec)
    fatal = [problem.message for problem in problems if problem.fatal]
    if fatal:
        more = f" (and {len(fatal) - _SHOWN} more)" if len(fatal) > _SHOWN else ""
        raise VocabularyError(
            f"{spec}: {'; '.join(fatal[:_SHOWN])}{more}", f"`tagllm vocab check {spec}` explains every problem."
        )
    return vocabulary


def check_vocabulary(spec: str) -> list[Problem]:
    """Return everything that is wrong or doubtful about a vocabulary, the fatal problems first.

    Raises VocabularyError only where there is no content to check: an unknown name, an unreadable file, bad syntax.
    """
    return sorted(_examined(spec)[1], key=lambda problem: not problem.fatal)


def _examined(spec: str) -> tuple[Vocabulary, list[Problem]]:
    path = _path(spec)
    content = _content(path)
    problems: list[Problem] = []
    if isinstance(content, list):
        content = {"labels": content}
    if not isinstance(content, dict):
        problem = Problem("structure", "", "the file holds neither a list of labels nor a mapping with `labels`")
        return Vocabulary(path.stem, ()), [problem]
    problems += _unknown_keys(content, _FILE_KEYS, "", "the file")
    entries = content.get("labels")
    if not isinstance(entries, list) or not entries:
        problems.append(Problem("structure", "", "`labels` is not a list of at least one label"))
        entries = []
    vocabulary = Vocabulary(
        name=_text(content, "name", "", problems) or path.stem,
        labels=tuple(filter(None, (_label(entry, number, problems) for number, entry in enumerate(entries, 1)))),
        groups=_groups(content.get("groups"), problems),
        about=_text(content, "about", "", problems),
    )
    problems += _name_problems(vocabulary)
    problems += _synonym_problems(vocabulary)
    problems += _reference_problems(vocabulary, _texts(content, "parents", "", problems))
    for arm, groups in vocabulary.groups.items():
        problems += _partition_problems(vocabulary, arm, groups)
    return vocabulary, problems


def _path(spec: str) -> Path:
    if spec in builtin_vocabularies():
        return folder("vocab") / f"{spec}.yaml"
    path = Path(spec)
    if path.suffix.lower() in _SUFFIXES:
        return path
    close = difflib.get_close_matches(spec, builtin_vocabularies(), n=1)
    raise VocabularyError(
        f"no built-in vocabulary is called {spec!r}, and it names no {', '.join(_SUFFIXES)} file",
        f"Did you mean {close[0]!r}?" if close else f"Built in: {', '.join(builtin_vocabularies())}.",
    )


def _content(path: Path) -> object:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        lines = (line.strip() for line in read_text(path).splitlines())
        return [line for line in lines if line and not line.startswith("#")]
    if suffix != ".json":
        return read_yaml(path)
    try:
        content: object = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise VocabularyError(f"{path}, line {error.lineno}: {error.msg}", "Correct the JSON.") from error
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"{path} is not usable JSON: {error}", "Correct the JSON.") from error
    return content


def _label(entry: object, number: int, problems: list[Problem]) -> Label | None:
    if isinstance(entry, str) or entry is None:
        return Label(entry or "")
    if not isinstance(entry, dict):
        problems.append(
            Problem("structure", "", f"label {number} is neither a name nor a mapping (numbers need quotes)")
        )
        return None
    name = _text(entry, "name", f"label {number}", problems)
    where = repr(name) if name else f"label {number}"
    problems += _unknown_keys(entry, _LABEL_KEYS, name, where)
    return Label(
        name=name,
        parent=_text(entry, "parent", where, problems) or None,
        synonyms=_texts(entry, "synonyms", where, problems),
        description=" ".join(_text(entry, "description", where, problems).split()),
        similar=_texts(entry, "similar", where, problems),
    )


def _text(entry: Mapping[object, object], key: str, where: str, problems: list[Problem]) -> str:
    value = entry.get(key)
    if value is None or isinstance(value, str):
        return value or ""
    problems.append(Problem("structure", "", f"{where}: `{key}` is not text".removeprefix(": ")))
    return ""


def _texts(entry: Mapping[object, object], key: str, where: str, problems: list[Problem]) -> tuple[str, ...]:
    value = entry.get(key)
    if value is None:
        return ()
    if isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value):
        return tuple(value)
    problems.append(Problem("structure", "", f"{where}: `{key}` is not a list of texts".removeprefix(": ")))
    return ()


def _groups(value: object, problems: list[Problem]) -> dict[str, list[list[str]]]:
    def is_partition(groups: object) -> bool:
        return isinstance(groups, list) and all(
            isinstance(group, list) and group and all(isinstance(name, str) for name in group) for group in groups
        )

    if value is None:
        return {}
    if isinstance(value, dict) and all(isinstance(arm, str) and is_partition(value[arm]) for arm in value):
        return value
    problems.append(Problem("structure", "", "`groups` does not map each arm to a list of lists of names"))
    return {}


def _unknown_keys(entry: Mapping[object, object], known: set[str], label: str, where: str) -> Iterator[Problem]:
    for key in entry:
        if key not in known:
            message = f"{where} has an unknown key {key!r} (known: {', '.join(sorted(known))})"
            yield Problem("unknown_key", label, message)


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
        above, info = label.parent, {label.name}
        while above in parent_of and above not in parents and above not in info:
            info.add(above)
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
