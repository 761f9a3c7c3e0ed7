"""Prompt templates: YAML files that say what a model is asked, strict about every key and variable.

A request is sent in the order system, image, text, so that the image and all before it are computed once for all
requests about an image. `text` is a template, and `system` where all images get the same request (`all`): it is then
computed once for all images. A value is put in as it is, whatever it contains. A template can choose by its variables
and change their letters, and cannot compute, repeat or call: it always ends, and stays short.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import jinja2
import jinja2.meta
import jinja2.nodes
import jinja2.sandbox
from pydantic import AfterValidator, Field, create_model, model_validator

from tagllm_cli.errors import VocabularyError
from tagllm_cli.records import Request
from tagllm_cli.resources import UserModel, folder, in_one_line, read_yaml, validated


@dataclass(frozen=True, slots=True)
class _Role:
    """Variables that a template of this name must mention and may mention, and the answer forms that it lists.

    `in_system`: `system` may have variables too.
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
    "parents": _Role(frozenset({"labels", "names"}), frozenset({"about", "parents"})),
    "scenes": _Role(frozenset({"labels"}), frozenset({"about", "scenes"})),
    "verify": _Role(needed=frozenset({"name"}), forms=("yes", "no")),
    "verify_card": _Role(frozenset({"name", "description"}), frozenset({"similar"}), forms=("yes", "no")),
}
_FIX = "Compare it with the built-in template of the same name."

_NODES = jinja2.nodes
_ALLOWED = (
    _NODES.Template, _NODES.Output, _NODES.TemplateData, _NODES.Name, _NODES.Const, _NODES.List, _NODES.Tuple,
    _NODES.If, _NODES.CondExpr, _NODES.Not, _NODES.And, _NODES.Or, _NODES.Compare, _NODES.Operand, _NODES.Test,
    _NODES.Concat, _NODES.Filter,
)  # fmt: skip
_FILTERS = ("capitalize", "default", "length", "lower", "title", "trim", "upper")

# Sandboxed for the templates of pinned plans, which an older release may have accepted.
_ENVIRONMENT = jinja2.sandbox.SandboxedEnvironment(
    undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
)
_ENVIRONMENT.globals.clear()  # a request is made of its variables, not of `range` or `lipsum`


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of request. `none`, `yes`, `no` are the answers that count as such, () where none can."""

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
        """Return the request with the variables put in, all that the template's role has and no others.

        Raises TypeError for a missing or unknown variable, VocabularyError where the template itself fails on a value.
        """
        expected = _ROLES[self.name].variables
        if expected != variables.keys():
            raise TypeError(f"template {self.name!r} takes {sorted(expected)}, not {sorted(variables)}")
        # A system part without variables goes to the letter, as plans have it pinned.
        system = self._rendered("system", variables) if _has_variables(self.system) else self.system
        return Request(system, self._rendered("text", variables), self.image, self.max_tokens, top_logprobs)

    def _rendered(self, key: Literal["system", "text"], variables: Mapping[str, str]) -> str:
        try:
            return _compiled(getattr(self, key)).render(variables)
        except Exception as error:  # a template may raise anything that an expression in it can
            raise VocabularyError(f"template {self.name!r}, {key}: {error}", _FIX) from error


def load_templates(own: Path | None = None) -> Mapping[str, Template]:
    """Return the built-in templates by name, each replaced by the file of the same name in the folder `own`, if any.

    Raises VocabularyError, naming file and key, for anything in `own` that is no valid template; hidden files and
    Markdown files are left alone.
    """
    templates = dict(_built_in(folder("prompts")))
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


@lru_cache(maxsize=4)
def _built_in(prompts: Path) -> Mapping[str, Template]:
    return {name: _load(prompts / f"{name}.yaml") for name in _ROLES}


def _has_variables(text: str) -> bool:
    return any(mark in text for mark in ("{{", "{%", "{#"))


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


_Form = Annotated[str, AfterValidator(_not_blank)]


class _TemplateModel(UserModel):
    system: str
    text: Annotated[str, AfterValidator(_not_blank)]
    image: bool
    max_tokens: Annotated[int, Field(ge=1, le=100_000)]

    @model_validator(mode="after")
    def _yes_or_no(self) -> _TemplateModel:
        yes, no = ({form.casefold() for form in getattr(self, key, ())} for key in ("yes", "no"))
        if both := sorted(yes & no):
            raise ValueError(f"`yes` and `no` both list {both[0]!r}")
        return self


@lru_cache
def _model(forms: tuple[str, ...]) -> type[_TemplateModel]:
    """Return the model of templates that list these forms of answers."""
    listed: Any = (Annotated[tuple[_Form, ...], Field(min_length=1)], ...)
    return create_model("Template", __base__=_TemplateModel, **dict.fromkeys(forms, listed))


def _load(path: Path) -> Template:
    role = _ROLES[path.stem]
    found, problems = validated(_model(role.forms), read_yaml(path))
    if found is None:
        raise VocabularyError(f"{path}: {in_one_line(problems)}", _FIX)
    used = _checked(path, found.text, role)
    if _has_variables(found.system):
        if not role.in_system:
            raise _invalid(path, "has variables, and can have none (it comes before the image)", "system")
        used |= _checked(path, found.system, role, "system")
    if unused := role.needed - used:
        raise _invalid(path, f"does not use {_listed(unused)}")
    template = Template(path.stem, **found.model_dump())
    # Comparing a text with a number, say, fails only when a text is put together: better now than in mid-run.
    for sample in ("x", ""):
        try:
            template.request(0, **dict.fromkeys(role.variables, sample))
        except VocabularyError as error:
            raise _invalid(path, f"cannot be put together: {error.__cause__}") from error
    return template


def _checked(path: Path, text: str, role: _Role, key: str = "text") -> set[str]:
    """Return the variables that a text uses. Raises VocabularyError for what a template may not hold."""
    try:
        tree = _ENVIRONMENT.parse(text)
        _check_nodes(path, tree, key)  # first: what comes next computes what is constant
        used = jinja2.meta.find_undeclared_variables(tree)
    except jinja2.TemplateError as error:
        problem = f"line {getattr(error, 'lineno', 1)}: {error.message or 'has a syntax error'}"
        raise _invalid(path, problem, key) from error
    except RecursionError as error:
        raise _invalid(path, "is nested too deeply", key) from error
    if unknown := used - role.variables:
        raise _invalid(path, f"uses {_listed(unknown)}; this template has {_listed(role.variables)}", key)
    return used


def _check_nodes(path: Path, tree: jinja2.nodes.Template, key: str) -> None:
    """Refuse whatever could compute for long or make a long text out of a short one."""
    for node in tree.find_all(_NODES.Node):
        if not isinstance(node, _ALLOWED) or (isinstance(node, _NODES.Filter) and node.name not in _FILTERS):
            known = f"variables, if, and the filters {', '.join(_FILTERS)}"
            raise _invalid(path, f"line {node.lineno} has {_word(node)}; a template can use {known}", key)


def _word(node: jinja2.nodes.Node) -> str:
    """Return how a construct is written, as far as its class does not say it."""
    if isinstance(node, _NODES.Filter):
        return f"the filter {node.name!r}"
    written = {"Call": "a call", "Getattr": "a dot", "Getitem": "an index", "Assign": "`set`", "Dict": "a mapping"}
    name = type(node).__name__
    return written.get(name) or f"`{getattr(node, 'operator', None) or name.lower()}`"


def _listed(variables: Iterable[str]) -> str:
    return ", ".join(f"{{{{ {name} }}}}" for name in sorted(variables)) or "no variables"


def _invalid(path: Path, problem: str, key: str = "text") -> VocabularyError:
    return VocabularyError(f"{path}: `{key}` {problem}", _FIX)


@lru_cache(maxsize=64)
def _compiled(text: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(text)
