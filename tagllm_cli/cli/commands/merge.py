"""`tagllm merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.cli.option_groups import OutputGroup


def merge(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Table to write; one that exists is added to.", show_default=False)
    ],
    tables: Annotated[
        list[Path],
        typer.Argument(metavar="IN...", help="Tables to merge, each with its evidence beside it.", show_default=False),
    ],
    *,
    output: OutputGroup,
) -> None:
    """Merge tables of parts of a dataset, with their evidence.

    [dim]tagllm merge candidates.parquet parts/part-*.parquet[/]
    """
    from tagllm_cli.labeling.human import HumanOverlay
    from tagllm_cli.store.merge.merge import merge_tables

    console = output.console(out)
    with console.counting("merge") as report:
        summary = merge_tables(out, tables, report, HumanOverlay)
    console.result(summary.to_json(), summary.lines())
    for warning in summary.warnings:
        console.warn(warning)
