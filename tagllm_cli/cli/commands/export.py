"""`tagllm export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.cli.option_groups import OutputGroup
from tagllm_cli.cli.options.labeling import ThresholdFile
from tagllm_cli.cli.options.measuring import ExportOut, Format, FormatOption, IncludeUnknown, NoEmbed, ScoreThreshold
from tagllm_cli.cli.options.shared import Config, Root


def export(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Label table.", show_default=False)],
    *,
    format_: Format,
    out: ExportOut,
    root: Root = None,
    threshold: ScoreThreshold = None,
    thresholds: ThresholdFile = None,
    no_embed: NoEmbed = False,
    include_unknown: IncludeUnknown = False,
    option: FormatOption = None,
    config: Config = None,
    output: OutputGroup,
) -> None:
    """Write labels as training tools read them: COCO JSON, CSV, JSON Lines, Hugging Face dataset.

    [dim]tagllm export labels.parquet --format coco --out labels.json
    tagllm export labels.parquet --format hf --out dataset/[/]
    """
    from tagllm_cli.export.base import ExportSettings
    from tagllm_cli.export.options import parse_options
    from tagllm_cli.export.registry import export_table

    console = output.console()
    settings = ExportSettings(
        root, threshold, include_unknown, not no_embed, thresholds, format_options=parse_options(option or ())
    )
    summary = export_table(table, format_.value, out, settings)
    for note in summary.notes:
        console.note(note)
    console.result(summary.to_json(), summary.lines())
