"""The rooms of the house: imports only go down, and heavy libraries are not loaded before they are needed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tagllm_cli"
# From the roof down. The rooms of one line are siblings and do not import one another; rooms that are planned have
# their places already.
HOUSE = """
    __main__
    cli
    commands
    options
    pipeline
    doctor evaluation jobs
    labelling models
    summary
    runner report
    questions waiting
    stages metrics agreement exporters concepts diff
    truth preflight scene_file
    plan answers cards json_answers
    arms cooccurrence
    grouping vocab
    engines
    sources
    evidence
    sqlite_file
    tables
    prompts imaging
    formats shipped
    config
    console
    schema phrases in_place
    errors
"""
FLOOR = {room: floor for floor, line in enumerate(HOUSE.splitlines()) for room in line.split()}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
ONLY_IN = {"typer": ("cli", "commands", "options"), "rich": ("console",)}
NEVER_AT_THE_TOP = {"torch", "transformers", "vllm"}


def imported(node: ast.AST, *, late: bool) -> Iterator[str]:
    """Yield the dotted names that are imported below `node`; with `late` also those inside functions.

    What stands under `if TYPE_CHECKING` ties nothing at run time and does not count.
    """
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
    elif late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in node.orelse if isinstance(node, ast.If) and typing_only else ast.iter_child_nodes(node):
            yield from imported(child, late=late)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in FLOOR, "a room without a place in the house"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [name.split(".") for name in imported(tree, late=True)]
    rooms = {name[1] for name in names if name[0] == PACKAGE.name and len(name) > 1} - {room, "__version__"}
    assert rooms <= FLOOR.keys()
    assert {other for other in rooms if FLOOR[other] <= FLOOR[room]} == set()
    libraries = {name[0] for name in names}
    assert {library for library, home in ONLY_IN.items() if library in libraries and room not in home} == set()
    assert "" not in libraries, "relative import"
    assert {name.split(".")[0] for name in imported(tree, late=False)} & NEVER_AT_THE_TOP == set()


def test_the_rule_sees_what_it_forbids() -> None:
    tree = ast.parse(
        "if TYPE_CHECKING:\n import rich\nelse:\n import vllm\n"
        "def f():\n try:\n  from torch import nn\n finally:\n  pass\n"
        "from . import x"
    )
    assert list(imported(tree, late=False)) == ["vllm", "..x"]
    assert list(imported(tree, late=True)) == ["vllm", "torch.nn", "..x"]
