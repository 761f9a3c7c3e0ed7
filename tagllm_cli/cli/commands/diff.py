"""`tagllm diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.cli.option_groups import OutputGroup
from tagllm_cli.cli.options.comparing import DiffImages, DiffPage, DiffRoot, Examples, FailOver
from tagllm_cli.cli.outcome import end


def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="The earlier table.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B", help="The later table.", show_default=False)],
    *,
    page: DiffPage = None,
    images: DiffImages = 500,
    root: DiffRoot = None,
    limit: Examples = 20,
    fail_over: FailOver = None,
    output: OutputGroup,
) -> None:
    """Say what differs between two tables of the same stage: images, labels, and the likely cause of each flip.

    [dim]tagllm diff old.parquet labels.parquet
    tagllm diff old.parquet labels.parquet --html changes.html
    tagllm diff old.parquet labels.parquet --fail-over labels=0.02 --json[/]

    Images are joined by name, then by their bytes. Nothing is asked.
    """
    from tagllm_cli.evaluation.diff.diff import DiffOptions, diff_tables

    console = output.console()
    options = DiffOptions(tuple(fail_over or ()), limit, page, images, root)
    summary = diff_tables(first, second, options)
    console.result(summary.to_json() if output.json_output else {}, summary.lines())
    for title, cells in () if output.json_output else summary.tables():
        console.table({}, title, *cells)
    for warning in summary.warnings:
        console.warn(warning)
    if summary.error is not None:
        end(console, summary.error)
