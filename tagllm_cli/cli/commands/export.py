"""`tagllm export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.cli.export_group import ExportGroup
from tagllm_cli.cli.option_groups import OutputGroup
from tagllm_cli.cli.options.exporting import ExportOut, Format
from tagllm_cli.cli.options.shared import Config


def export(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Label table.", show_default=False)],
    *,
    format_: Format,
    out: ExportOut,
    options: ExportGroup,
    config: Config = None,
    output: OutputGroup,
) -> None:
    """Write labels as training tools read them: COCO JSON, CSV, NumPy, Hugging Face datasets, WebDataset and others.

    [dim]tagllm export labels.parquet --format coco --out labels.json
    tagllm export labels.parquet --format imagefolder --split train=.9,val=.1 --out dataset/[/]
    """
    from tagllm_cli.export.registry import export_table

    console = output.console()
    summary = export_table(table, format_.value, out, options.settings())
    for note in summary.notes:
        console.note(note)
    console.result(summary.to_json(), summary.lines())
