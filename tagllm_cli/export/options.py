"""Options of one format: `--option key=value`, which the format declares and this module checks."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tagllm_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a format: what it decides (a phrase), its default, and its values (none: any text)."""

    help: str
    default: str
    choices: tuple[str, ...] = ()


def parse_options(given: Iterable[str]) -> dict[str, str]:
    """Return `key=value` texts as a mapping; the last of a key counts. Raises UsageError for another form.

    >>> parse_options(["separator=, ", "prefix=a=b"])
    {'separator': ', ', 'prefix': 'a=b'}
    """
    found: dict[str, str] = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise UsageError(f"--option {text} is not of the form key=value", "For example --option naming=stem.")
        found[key.strip()] = value
    return found


def checked_options(format_: str, options: Mapping[str, Option], given: Mapping[str, str]) -> dict[str, str]:
    """Return a value for each option of a format. Raises UsageError for unknown options and values."""
    for key, value in given.items():
        if key not in options:
            near = difflib.get_close_matches(key, options, n=1)
            known = ", ".join(options) if options else ""
            hint = f"Did you mean {near[0]}?" if near else f"It has {known}." if known else "Leave it out."
            raise UsageError(f"--format {format_} has no option {key!r}", hint)
        if options[key].choices and value not in options[key].choices:
            hint = f"{key} takes {', '.join(options[key].choices)}."
            raise UsageError(f"--option {key}={value}: there is no such {key} in --format {format_}", hint)
    return {key: given.get(key, option.default) for key, option in options.items()}
