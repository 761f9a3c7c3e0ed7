"""Pairs of tables that differ by one thing, made by real runs over the same pictures with a synthetic engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tagllm_cli.evaluation.diff.compare import Example
from tagllm_cli.evaluation.diff.diff import DiffOptions, diff_tables
from tagllm_cli.records import Row
from tagllm_cli.store.table import open_table, write_table
from tests.support.workspace import Workspace

IMAGES = 24
Change = Callable[[Workspace], object]


def labeled(root: Path, change: Change | None = None) -> Workspace:
    """Return a workspace with both tables; `change` is applied before anything is asked, and may ask itself."""
    root.mkdir(parents=True)
    made = Workspace(root, images=IMAGES)
    if change is not None:
        change(made)
    if not made.out.exists():
        made.candidates()
    if not made.labels_out.exists():
        made.disambiguate()
    return made


def rewritten(path: Path, change: Callable[[Row], Row | None]) -> None:
    """Change the rows of a table in place; None leaves one out."""
    table = open_table(path)
    rows = [made for row in table.rows() if (made := change(row)) is not None]
    write_table(path, replace(table.info), rows)


def causes(first: Path, second: Path) -> Counter[str]:
    """Return the flips of two tables by cause."""
    found = diff_tables(first, second, DiffOptions(limit=10_000)).causes
    return Counter({cause: sum(kinds.values()) for cause, kinds in found.items()})


def flips(first: Path, second: Path) -> list[Example]:
    """Return all flips of two tables."""
    return diff_tables(first, second, DiffOptions(limit=10_000)).comparison.examples(10_000)
