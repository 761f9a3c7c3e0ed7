"""Option groups: a parameter annotated with a frozen dataclass becomes the options that are the dataclass's fields.

@dataclass(frozen=True)
class OutputGroup:
    quiet: Quiet = False

@expand
def evaluate(table: Table, *, output: OutputGroup) -> None: ...  # typer sees TABLE and --quiet
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def expand(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` with the signature that typer reads; called with the options, it builds the groups.

    All parameters become keyword parameters. Raises ValueError where two groups have a field of the same name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _options(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=_KEYWORD))

    def call(**typed: Any) -> None:
        built = {
            name: group(**{field.name: typed.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**typed, **built)

    call.__name__, call.__doc__, call.__module__ = command.__name__, command.__doc__, command.__module__
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _options(group: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        yield inspect.Parameter(field.name, _KEYWORD, default=_default(field), annotation=hints[field.name])


def _default(field: Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default
