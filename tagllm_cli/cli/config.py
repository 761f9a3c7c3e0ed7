"""The `--config` file: options in YAML, for every command at the top level, for one command in its section.

    model: Qwen/Qwen2.5-VL-7B-Instruct
    concepts: cards.yaml      # an option; as a mapping it would be the section of `tagllm concepts`
    candidates:
      vocab: coco
      exclude: ['*/thumbnails/*']

Values are read as text and converted as if they were typed: `no` is a word until an option takes it for a boolean.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagllm_cli.cli.options.base import LEFT_OUT_NUMBERS
from tagllm_cli.errors import UsageError, VocabularyError

_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_LINES = "Give a YAML file of `option: value` lines."


@dataclass(frozen=True, slots=True)
class Command:
    """The options of one command, by parameter name; `repeatable` ones take a list."""

    options: frozenset[str]
    repeatable: frozenset[str] = frozenset()


def load_config(path: Path, command: str, commands: Mapping[str, Command]) -> dict[str, str | list[str]]:
    """Return the options that the file sets for `command`, by parameter name, as text.

    Args:
        path: the file.
        command: the command that runs.
        commands: all commands that read a config file; an option at the top level may be any of theirs.

    Raises:
        UsageError: the file cannot be read, a key is unknown, or a value is no text or list of texts.
    """
    content = _read(path)
    shared, own = _split(path, content, command, commands)
    _check_keys(path, shared, frozenset().union(*(each.options for each in commands.values())))
    _check_keys(path, own, commands[command].options)
    merged = {_parameter(key): value for key, value in {**shared, **own}.items()}
    numbered = {name: _numbered(name, value) for name, value in merged.items()}
    chosen = {
        name: value for name, value in numbered.items() if name in commands[command].options and value is not None
    }
    return {name: _value(path, name, value, name in commands[command].repeatable) for name, value in chosen.items()}


def _read(path: Path) -> Mapping[Any, Any]:
    from tagllm_cli.resources import read_yaml

    try:
        content = read_yaml(path)
    except VocabularyError as error:
        raise UsageError(f"--config: {error.message}", _LINES) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no options", _LINES)
    return content


def _split(
    path: Path, content: Mapping[Any, Any], command: str, commands: Mapping[str, Command]
) -> tuple[dict[Any, Any], Mapping[Any, Any]]:
    """Return the options for all commands and those of `command`.

    A mapping under the name of a command is its section; anything else there is the option of that name, if one is.
    """
    options = frozenset().union(*(each.options for each in commands.values()))
    shared: dict[Any, Any] = {}
    own: Mapping[Any, Any] = {}
    for key, value in content.items():
        if key not in commands:
            shared[key] = value
        elif isinstance(value, dict):
            own = value if key == command else own
        elif key in options:
            shared[key] = value
        elif value is not None:
            raise UsageError(f"{path}: {key!r} holds no options", "Indent `option: value` lines below it.")
    return shared, own


def _numbered(name: str, value: object) -> object:
    """Return a value; of an option that is typed with or without a number, the number that `true` stands for."""
    number = LEFT_OUT_NUMBERS.get(f"--{name}")
    if number is None or not isinstance(value, str) or value.lower() not in _BOOLEANS:
        return value
    return str(number) if _BOOLEANS[value.lower()] else None


def _value(path: Path, name: str, value: object, repeatable: bool) -> str | list[str]:
    if isinstance(value, str):
        return [value] if repeatable else value
    if repeatable and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    what = "text, or a list of texts" if repeatable else "one value"
    raise UsageError(f"{path}: {name.replace('_', '-')!r} takes {what}", "Write it as on the command line.")


def _check_keys(path: Path, given: Mapping[Any, Any], known: frozenset[str]) -> None:
    for key in given:
        if _parameter(key) not in known:
            close = difflib.get_close_matches(_parameter(key), known, n=1)
            shown = close[0].removesuffix("_output").strip("_").replace("_", "-") if close else ""
            hint = f"Did you mean {shown!r}?" if close else "See `tagllm COMMAND --help` for the options."
            raise UsageError(f"{path}: there is no option {str(key)!r}", hint)


def _parameter(key: object) -> str:
    name = str(key).removeprefix("--").replace("-", "_")
    return {"json": "json_output", "format": "format_"}.get(name, name)
