"""Packaged data (prompts, vocabularies), and the loader for it and for users' files of the same kinds.

User-written YAML is read in two steps: `read_yaml` gives plain values, all scalars as text; `validated` turns them into
a pydantic model and every error into a sentence with its place. Import this module late: pydantic takes 0.1 s.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from tagllm_cli.errors import VocabularyError

MAX_DEPTH = 50  # of nested collections; libyaml's loader overflows the C stack at some thousand
MAX_NODES = 5_000_000  # with aliases expanded

# libyaml reads 10,000 labels in under a second, the pure Python loader in many.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Model = TypeVar("_Model", bound=BaseModel)

# How files begin that people save or rename by mistake.
_SIGNATURES = {
    b"\xff\xfe\0\0": "UTF-32 text",
    b"\0\0\xfe\xff": "UTF-32 text",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"PK\x03\x04": "a zip archive (Excel files are such)",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"\x1f\x8b": "a gzip file",
    b"%PDF": "a PDF file",
    b"PAR1": "a Parquet file",
}
_CHECK = "Correct the file; names with special characters need quotes in YAML."


class _Loader(_Base):  # type: ignore[misc]
    """YAML in which a plain scalar is text, but for null, and no mapping has a key twice.

    The usual rules would read the names `no`, `on`, `1` and `2024-01-01` as something else than text.
    """

    yaml_implicit_resolvers: ClassVar[Any] = {
        first: [(tag, pattern) for tag, pattern in rules if tag == "tag:yaml.org,2002:null"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), "")
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return mapping


class UserModel(BaseModel):
    """Base of the models of user-written files: unknown keys are errors, and a key without a value counts as absent."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, value: Any) -> Any:
        return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else value


def folder(kind: Literal["prompts", "vocab"]) -> Path:
    """Return the folder of the packaged templates or vocabularies.

    A wheel carries them inside the package, a checkout at its top level.
    """
    package = Path(__file__).resolve().parent
    inside = package / "data" / kind
    return inside if inside.is_dir() else package.parent / kind


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text, without a byte order mark; VocabularyError where there is none to read."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise VocabularyError(f"{path} cannot be read: {reason}", "Check the path and its permissions.") from error
    if known := next((what for start, what in _SIGNATURES.items() if data.startswith(start)), None):
        raise VocabularyError(f"{path} is {known}, not UTF-8 text", "Save it as UTF-8 text.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise VocabularyError(f"{path} is not UTF-8 text (byte {error.start})", "Save it as UTF-8.") from error


def read_yaml(path: Path) -> object:
    """Return a YAML file's content: dict, list, str or None; every scalar but null is a str, whatever it looks like.

    Raises VocabularyError, with the line, where the file cannot be read, is not YAML, or nests or multiplies endlessly.
    """
    text = read_text(path)
    try:
        _check_size(text)
        content: object = yaml.load(text, Loader=_Loader)  # a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise VocabularyError(f"{path}{where}: {error.problem or error.context}", _CHECK) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise VocabularyError(f"{path} is not valid YAML: {reason}", _CHECK) from error
    return content


def _check_size(text: str) -> None:
    """Raise MarkedYAMLError for YAML that would overflow the stack or the memory, from the flat stream of events."""
    nodes, sizes = 0, dict[str | None, int]()
    started: list[tuple[str | None, int]] = []  # anchor of each open collection, and the nodes before it
    for event in yaml.parse(text, Loader=_Base):
        nodes += 1
        problem = ""
        if isinstance(event, yaml.AliasEvent):
            nodes += sizes.get(event.anchor, 0)
            if any(anchor == event.anchor for anchor, _ in started):
                problem = f"the anchor &{event.anchor} contains itself"
        elif isinstance(event, yaml.CollectionStartEvent):
            started.append((event.anchor, nodes))
            if len(started) > MAX_DEPTH:
                problem = f"lists and mappings are nested more than {MAX_DEPTH} deep"
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = started.pop()
            if anchor is not None:
                sizes[anchor] = nodes - before
        if nodes > MAX_NODES:
            problem = f"the content has more than {MAX_NODES:,} parts"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]  # C's


def validated(
    model: type[_Model],
    content: object,
    context: Mapping[str, object] | None = None,
    where: Callable[[Sequence[str | int]], str] = lambda path: "",
) -> tuple[_Model | None, list[str]]:
    """Return the content as a model, else None and every problem as a sentence that begins with its place.

    `context` is what the model's own validators need to know, as `model_validate` takes it. `where` says for the path
    of a value what stands before its sentence, as `Lines.of` does.
    """
    try:
        return model.model_validate(content, context=dict(context or {})), []
    except ValidationError as error:
        found = error.errors(include_url=False)
        return None, [where(each["loc"]) + _sentence(model, content, each) for each in found]


class Lines:
    """The lines of a YAML text on which its values stand. Keys are compared as `same` makes them."""

    def __init__(self, text: str, same: Callable[[str], str] = str) -> None:
        self._root = yaml.compose(text, Loader=_Base)
        self._same = same

    def of(self, path: Sequence[str | int]) -> str:
        """Return "line N: " for the path of a value; where the value is missing, for the last one that is there."""
        node = self._root
        line = 0 if node is None else node.start_mark.line
        for step in path:
            if isinstance(node, yaml.MappingNode):
                pair = next((pair for pair in node.value if self._same(pair[0].value) == step), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                pair = (node.value[step], node.value[step])
            else:
                pair = None
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        return f"line {line + 1}: "


def in_one_line(problems: Sequence[str], limit: int = 3) -> str:
    """Return the first `limit` problems as one line, and how many more there are."""
    more = f" (and {len(problems) - limit:,} more)" if len(problems) > limit else ""
    return "; ".join(problems[:limit]) + more


def _sentence(model: type[BaseModel], content: object, error: Any) -> str:
    """Return pydantic's error in our words: "entry 2 of `cards` ('cat'): `similar` is not a list"."""
    path = list(error["loc"])
    kind, key = error["type"], f"`{path[-1]}`" if path and isinstance(path[-1], str) else "it"
    known = _keys(model, path[:-1])
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(path[-1]), known, n=1)
        advice = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        message = f"unknown key {path[-1]!r} ({advice})"
    elif kind == "missing":
        message = f"{key} is missing"
    elif kind == "value_error":
        message = str(error["ctx"]["error"])
        message = f"{key} {message}" if message.startswith(("is ", "has ")) else message
    else:
        reason = error["msg"].lower()
        message = f"{key} {_KINDS.get(kind, f'is not usable: {reason}')}{_bound(error.get('ctx', {}))}"
    place = _place(content, path if key == "it" else path[:-1])
    return f"{place}: {message}" if place else message


_BOUNDS = {"gt": "above", "ge": "at least", "le": "at most"}


def _bound(context: Mapping[str, Any]) -> str:
    """Return the bound that a number is beyond: " (at most 1)"."""
    return next((f" ({words} {context[name]:g})" for name, words in _BOUNDS.items() if name in context), "")


_KINDS = {
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "dict_type": "is not a mapping",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "greater_than": "is too small",
    "greater_than_equal": "is too small",
    "int_parsing": "is not a whole number",
    "int_type": "is not a whole number",
    "invalid_key": "has a key that is not text",
    "less_than_equal": "is too large",
    "list_type": "is not a list",
    "model_type": "is not a mapping",
    "string_type": "is not text (numbers need quotes in JSON)",
    "string_pattern_mismatch": "is empty",
    "string_too_short": "is empty",
    "too_short": "is an empty list",
    "tuple_type": "is not a list",
}


def _place(content: object, path: Sequence[str | int]) -> str:
    """Return where a path leads: its list entries by number from 1, with their names where they have one."""
    places, above = [], ""
    for step in path:
        try:
            content = content[step]  # type: ignore[index]
        except (TypeError, LookupError):
            content = None
        if isinstance(step, int):
            name = content.get("name") if isinstance(content, dict) else None
            named = f" ({name!r})" if isinstance(name, str) and name else ""
            places.append(f"entry {step + 1}{f' of `{above}`' if above else ''}{named}")
        above = step if isinstance(step, str) else ""
    if above:
        places.append(f"`{above}`")
    return ", ".join(places)


def _keys(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Return the keys of the model that a path into `model` leads to."""
    for step in path:
        if isinstance(step, str) and step in model.model_fields:
            found = [each for each in _types(model.model_fields[step].annotation) if issubclass(each, BaseModel)]
            model = found[0] if found else model
    return list(model.model_fields)


def _types(annotation: Any) -> list[type]:
    inner = [each for argument in get_args(annotation) for each in _types(argument)]
    return [annotation, *inner] if isinstance(annotation, type) else inner
