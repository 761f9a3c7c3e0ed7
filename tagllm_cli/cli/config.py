"""The `--config` file: options in YAML, for every command at the top level, for one command under its name.

model: Qwen/Qwen2.5-VL-7B-Instruct
candidates:
  vocab: coco
  arms: cooccurring,disjoint
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tagllm_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Command:
    """The options of one command, by parameter name; `repeatable` ones take a list."""

    options: frozenset[str]
    repeatable: frozenset[str] = frozenset()


def load_config(path: Path, command: str, commands: Mapping[str, Command]) -> dict[str, Any]:
    """Return the defaults that the file sets for `command`, by parameter name.

    `commands` are those that read a config file. A key that none of them knows is a UsageError, as is a file that is
    not a mapping, or a list where one value is meant.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read the config file {path}: {reason}", "--config takes a YAML file.") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is not YAML: {reason}", "Write `option: value` lines.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no options", "Write `option: value` lines.")
    shared = {key: value for key, value in content.items() if key not in commands}
    own = content.get(command) or {}
    if not isinstance(own, dict):
        raise UsageError(f"{path}: {command!r} holds no options", "Indent `option: value` lines below it.")
    _check(path, shared, frozenset().union(*(each.options for each in commands.values())))
    _check(path, own, commands[command].options)
    merged = {_parameter(key): value for key, value in {**shared, **own}.items()}
    chosen = {name: value for name, value in merged.items() if name in commands[command].options}
    return {name: _value(path, name, value, name in commands[command].repeatable) for name, value in chosen.items()}


def _value(path: Path, name: str, value: Any, repeatable: bool) -> Any:
    several = value if isinstance(value, list) else [value]
    if any(isinstance(each, dict | list) for each in several) or (isinstance(value, list) and not repeatable):
        what = "values" if repeatable else "one value"
        raise UsageError(f"{path}: {name.replace('_', '-')!r} takes {what}", "Write it as on the command line.")
    # One text for a repeatable option would be taken letter by letter.
    return [str(each) for each in several] if repeatable and value is not None else value


def _check(path: Path, given: Mapping[Any, Any], known: frozenset[str]) -> None:
    for key in given:
        if _parameter(key) not in known:
            close = difflib.get_close_matches(_parameter(key), known, n=1)
            hint = (
                f"Did you mean {close[0].replace('_', '-')!r}?"
                if close
                else "See `tagllm COMMAND --help` for the options."
            )
            raise UsageError(f"{path}: there is no option {str(key)!r}", hint)


def _parameter(key: object) -> str:
    name = str(key).removeprefix("--").replace("-", "_")
    return {"json": "json_output", "format": "format_"}.get(name, name)
