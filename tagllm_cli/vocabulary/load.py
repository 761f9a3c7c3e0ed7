"""Vocabularies: the labels of a dataset, from a built-in list or a user's file, checked before anything is asked.

A file is YAML or JSON (`name`, `about`, `parents`, `labels`, `groups`; or only the list of labels) or plain text (one
name a line, `#` starts a comment line). A label is a name, or a mapping with `name`, `parent`, `synonyms`,
`description` and `similar`. A parent is one of `parents` or another label. `groups` maps an arm to a partition of the
names. Label lists of other tools are read too, with a note: see `file_formats`.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from tagllm_cli.errors import VocabularyError
from tagllm_cli.resources import UserModel, folder, in_one_line, validated
from tagllm_cli.text import shortened
from tagllm_cli.vocabulary.checks import Problem, problems_of
from tagllm_cli.vocabulary.file_formats import SUFFIXES, read_content
from tagllm_cli.vocabulary.model import Label, Vocabulary

_FORM = "a vocabulary is a list of names, or a mapping with `labels`, such as `labels: [cat, dog]`"


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


_Text = Annotated[str, AfterValidator(_filled)]


class _LabelModel(UserModel):
    name: str = ""  # an empty name is a problem of its own
    parent: str = ""
    synonyms: tuple[_Text, ...] = ()
    description: str = ""
    similar: tuple[_Text, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return {"name": value or ""}
        if not isinstance(value, dict):
            raise ValueError("is neither a name nor a mapping (numbers need quotes)")
        return value

    def label(self) -> Label:
        description = " ".join(self.description.split())
        return Label(self.name, self.parent or None, self.synonyms, description, self.similar)


class _VocabularyModel(UserModel):
    name: str = ""
    about: str = ""
    parents: tuple[_Text, ...] = ()
    labels: Annotated[list[_LabelModel], Field(min_length=1)]
    groups: dict[str, list[Annotated[list[str], Field(min_length=1)]]] = Field(default_factory=dict)


def builtin_vocabularies() -> tuple[str, ...]:
    """Return the names of the packaged vocabularies, sorted."""
    return tuple(sorted(path.stem for path in folder("vocab").glob("*.yaml")))


def load_vocabulary(spec: str) -> Vocabulary:
    """Return the vocabulary of a built-in name or of a path; VocabularyError names the first problems."""
    vocabulary, problems = _examined(spec)
    fatal = [problem.message for problem in problems if problem.fatal]
    if fatal:
        raise VocabularyError(f"{spec}: {in_one_line(fatal)}", f"`tagllm vocab check {spec}` explains every problem.")
    return vocabulary


def check_vocabulary(spec: str) -> list[Problem]:
    """Return everything that is wrong or doubtful about a vocabulary, the fatal problems first.

    Raises VocabularyError only where there is no content to check: an unknown name, an unreadable file, bad syntax.
    """
    return sorted(_examined(spec)[1], key=lambda problem: not problem.fatal)


def _examined(spec: str) -> tuple[Vocabulary, list[Problem]]:
    path = _path(spec)
    content, notes = read_content(path)
    if isinstance(content, list):
        content = {"labels": content}
    if not isinstance(content, dict) or content.get("labels") is None:
        return Vocabulary(path.stem, ()), [Problem("structure", "", _no_labels(content))]
    found, wrong = validated(_VocabularyModel, content)
    if found is None:
        return Vocabulary(path.stem, ()), [Problem("structure", "", message) for message in wrong]
    vocabulary = Vocabulary(
        found.name or path.stem, tuple(each.label() for each in found.labels), found.groups, found.about, tuple(notes)
    )
    doubts = [Problem("file_format", "", note, fatal=False) for note in notes]
    return vocabulary, [*problems_of(vocabulary, found.parents), *doubts]


def _no_labels(content: object) -> str:
    if not isinstance(content, dict):
        return f"the file holds no labels: {_FORM}"
    keys = list(map(str, content))
    close = difflib.get_close_matches("labels", keys, n=1)
    advice = f"is {close[0]!r} meant to be `labels`?" if close else _FORM
    return f"the file has no `labels` (its keys: {shortened(keys, 8)}): {advice}"


def _path(spec: str) -> Path:
    if spec in builtin_vocabularies():
        return folder("vocab") / f"{spec}.yaml"
    path = Path(spec)
    if path.suffix.lower() in SUFFIXES:
        return path
    close = difflib.get_close_matches(spec, builtin_vocabularies(), n=1)
    raise VocabularyError(
        f"no built-in vocabulary is called {spec!r}, and it names no {', '.join(SUFFIXES)} file",
        f"Did you mean {close[0]!r}?" if close else f"Built in: {', '.join(builtin_vocabularies())}.",
    )
