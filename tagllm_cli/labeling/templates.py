"""Prompt templates: YAML files that say what a model is asked, strict about every key and variable.

A question is sent in the order system, image, text, so that the image and all before it are computed once for all
questions about an image. `text` is a template, and `system` where every image gets the same one question (`all`): what
stands before the image is then computed once for all images. A value is put in as it is, whatever it contains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.sandbox

from tagllm_cli.errors import VocabularyError
from tagllm_cli.records import Request
from tagllm_cli.resources import folder, read_yaml


@dataclass(frozen=True, slots=True)
class _Role:
    """What a template of this name must mention, what it may mention besides, and which answer forms it lists.

    `in_system`: variables may stand in `system`, too.
    """

    needed: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    forms: tuple[str, ...] = ()
    in_system: bool = False

    @property
    def variables(self) -> frozenset[str]:
        return self.needed | self.optional


_ROLES: Mapping[str, _Role] = {
    "all": _Role(needed=frozenset({"labels"}), forms=("none",), in_system=True),
    "concept_compare": _Role(needed=frozenset({"name", "description", "reading"})),
    "concept_draft": _Role(
        needed=frozenset({"name"}),
        optional=frozenset({"about", "parent", "siblings", "overlaps", "reading", "confusion", "earlier"}),
    ),
    "concept_find": _Role(frozenset({"labels"}), frozenset({"about"})),
    "concept_name": _Role(frozenset({"description", "labels"}), forms=("none",)),
    "group": _Role(needed=frozenset({"labels"}), forms=("none",)),
    "meaning": _Role(needed=frozenset({"name"})),
    "open": _Role(forms=("none",)),
    "scenes": _Role(frozenset({"labels"}), frozenset({"about", "scenes"})),
    "verify": _Role(needed=frozenset({"name"}), forms=("yes", "no")),
    "verify_card": _Role(frozenset({"name", "description"}), frozenset({"similar"}), forms=("yes", "no")),
}
_KEYS = ("system", "text", "image", "max_tokens")
_FIX = "Compare it with the built-in template of the same name."

_ENVIRONMENT = jinja2.sandbox.SandboxedEnvironment(
    undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
)
_ENVIRONMENT.globals.clear()  # a question is made of its variables, not of `range` or `lipsum`


@dataclass(frozen=True, slots=True)
class Template:
    """What one kind of question says. `none`, `yes`, `no` are the answers that count as such, () where none can."""

    name: str
    system: str
    text: str
    image: bool
    max_tokens: int
    none: tuple[str, ...] = ()
    yes: tuple[str, ...] = ()
    no: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Template:
        """Return the template whose `dataclasses.asdict` went through JSON."""
        forms = {key: tuple(value[key]) for key in ("none", "yes", "no")}
        return cls(value["name"], value["system"], value["text"], value["image"], value["max_tokens"], **forms)

    def request(self, top_logprobs: int = 0, **variables: str) -> Request:
        """Return the question with the variables put in, all that the template's role has and no others.

        Raises TypeError for a missing or unknown variable, VocabularyError where the template itself fails on a value.
        """
        expected = _ROLES[self.name].variables
        if expected != variables.keys():
            raise TypeError(f"template {self.name!r} takes {sorted(expected)}, not {sorted(variables)}")
        return Request(
            self.rendered("system", self.system, variables),
            self.rendered("text", self.text, variables),
            self.image,
            self.max_tokens,
            top_logprobs,
        )

    def rendered(self, key: str, text: str, variables: Mapping[str, str]) -> str:
        """Return `system` or `text` (`key` says which) with the variables put in; VocabularyError where that fails."""
        if key == "system" and not _has_variables(text):
            return text  # to the letter, as plans have it pinned
        try:
            return _compiled(text).render(variables)
        except Exception as error:  # a template may raise anything that an expression in it can
            raise VocabularyError(f"template {self.name!r}, {key}: {error}", _FIX) from error


def load_templates(own: Path | None = None) -> Mapping[str, Template]:
    """Return the built-in templates by name, each replaced by the file of the same name in the folder `own`, if any.

    Raises VocabularyError, naming file and key, for anything in `own` that is no valid template; hidden files and
    Markdown files are left alone.
    """
    templates = {name: _load(folder("prompts") / f"{name}.yaml") for name in _ROLES}
    if own is None:
        return templates
    try:
        paths = sorted(own.iterdir())
    except OSError as error:
        raise VocabularyError(f"{own} cannot be read: {error.strerror}", "--prompts takes a folder.") from error
    for path in paths:
        if not path.name.startswith(".") and path.suffix != ".md":
            if path.suffix != ".yaml" or path.stem not in _ROLES:
                known = ", ".join(f"{name}.yaml" for name in _ROLES)
                raise VocabularyError(f"{path} is no template that tagllm knows", f"Templates: {known}.")
            templates[path.stem] = _load(path)
    return templates


def _load(path: Path) -> Template:
    content, role = read_yaml(path), _ROLES[path.stem]
    if not isinstance(content, dict):
        raise _invalid(path, "the file", "is not a mapping")
    keys = (*_KEYS, *role.forms)
    for key in content:
        if key not in keys:
            raise _invalid(path, repr(key), f"is not a key of this template (its keys: {', '.join(keys)})")
    system, text, image, tokens = (content.get(key) for key in _KEYS)
    if not isinstance(system, str):
        raise _invalid(path, "'system'", "must be text")
    if not role.in_system and _has_variables(system):
        raise _invalid(path, "'system'", "must be text without variables (it comes before the image)")
    if not isinstance(text, str) or not text.strip():
        raise _invalid(path, "'text'", "is missing or empty")
    if not isinstance(image, str) or image.lower() not in ("true", "false"):
        raise _invalid(path, "'image'", "must be true or false")
    if not isinstance(tokens, str) or not tokens.isdecimal() or not 0 < int(tokens) <= 100_000:
        raise _invalid(path, "'max_tokens'", "must be a whole number from 1 to 100000")
    forms = {key: _forms(path, key, content.get(key)) for key in role.forms}
    both = {form.casefold() for form in forms.get("yes", ())} & {form.casefold() for form in forms.get("no", ())}
    if both:
        raise _invalid(path, "'no'", f"lists {', '.join(map(repr, sorted(both)))}, which 'yes' lists too")
    used = _variables(path, "text", text, role) | (
        _variables(path, "system", system, role) if role.in_system else set()
    )
    if unused := role.needed - used:
        raise _invalid(path, "'text'", f"does not use {_listed(unused)}")
    template = Template(path.stem, system, text, image.lower() == "true", int(tokens), **forms)
    # An unknown filter or attribute shows up only when a text is put together: better now than in the middle of a run.
    for sample in ("x", ""):
        for key, part in (("system", system), ("text", text)):
            try:
                template.rendered(key, part, dict.fromkeys(role.variables, sample))
            except VocabularyError as error:
                raise _invalid(path, repr(key), f"cannot be put together: {error.__cause__}") from error
    return template


def _has_variables(text: str) -> bool:
    return any(mark in text for mark in ("{{", "{%", "{#"))


def _variables(path: Path, key: str, text: str, role: _Role) -> set[str]:
    """Return the variables that a text uses, all of them the role's."""
    try:
        used = jinja2.meta.find_undeclared_variables(_ENVIRONMENT.parse(text))
    except jinja2.TemplateSyntaxError as error:
        raise _invalid(path, f"{key!r}, line {error.lineno}", error.message or "has a syntax error") from error
    if unknown := used - role.variables:
        raise _invalid(path, repr(key), f"uses {_listed(unknown)}; this template has {_listed(role.variables)}")
    return used


def _forms(path: Path, key: str, value: object) -> tuple[str, ...]:
    if isinstance(value, list) and value and all(isinstance(form, str) and form.strip() for form in value):
        return tuple(value)
    raise _invalid(path, repr(key), "must be a list of the answers that count as it")


def _listed(variables: Iterable[str]) -> str:
    return ", ".join(f"{{{{ {name} }}}}" for name in sorted(variables)) or "no variables"


def _invalid(path: Path, key: str, problem: str) -> VocabularyError:
    return VocabularyError(f"{path}: {key} {problem}", _FIX)


@lru_cache(maxsize=64)
def _compiled(text: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(text)
