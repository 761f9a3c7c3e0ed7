"""Option groups: what typer sees of a dataclass, and what a command gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from tagllm_cli.cli.expand import expand


@dataclass(frozen=True)
class Size:
    context: typer.Context
    width: Annotated[int, typer.Option("--width")]
    height: Annotated[int, typer.Option("--height")] = 2

    def area(self) -> int:
        return self.width * self.height


@dataclass(frozen=True)
class Names:
    name: Annotated[list[str] | None, typer.Option("--name")] = None


def run(*words: str) -> tuple[int, str]:
    app = typer.Typer()

    @app.command()
    @expand
    def paint(path: Annotated[str, typer.Argument()], *, size: Size, dry: bool = False, names: Names) -> None:
        """Paint."""
        print(path, size.area(), size.context.get_parameter_source("width"), dry, names.name)

    result = CliRunner().invoke(app, words)
    return result.exit_code, result.output


def test_fields_are_options_and_the_command_gets_the_group() -> None:
    code, output = run("wall", "--width", "3", "--name", "a", "--name", "b", "--dry")
    assert (code, output.split()) == (0, ["wall", "6", "ParameterSource.COMMANDLINE", "True", "['a',", "'b']"])


def test_a_field_without_a_default_is_required() -> None:
    code, output = run("wall")
    assert (code, "Missing option '--width'" in output) == (2, True)


def test_options_stand_in_the_order_of_the_parameters() -> None:
    output = run("--help")[1]
    places = [output.index(option) for option in ("--width", "--height", "--dry", "--name")]
    assert places == sorted(places)
    assert "Paint." in output


def test_two_groups_with_the_same_option_are_refused() -> None:
    def twice(*, one: Names, other: Names) -> None:
        """Do nothing."""

    with pytest.raises(ValueError, match="duplicate parameter name: 'name'"):
        expand(twice)
