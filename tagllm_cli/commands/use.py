"""The commands that use a table: measure it, hand it on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.commands.settings import end, make_console
from tagllm_cli.errors import GateError
from tagllm_cli.options import (
    Config,
    ExportOut,
    FailUnder,
    Format,
    IncludeHuman,
    IncludeUnknown,
    Json,
    NoEmbed,
    Overall,
    Quiet,
    Root,
    ScoreThreshold,
    Truth,
)


def evaluate(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Label or candidate table.", show_default=False)],
    truth: Truth,
    fail_under: FailUnder = None,
    overall: Overall = False,
    include_human: IncludeHuman = False,
    config: Config = None,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a table against human labels: OP OR OF1, CP CR CF1, mAP, each label.

    [dim]tagllm evaluate labels.parquet --truth instances_val2014.json
    tagllm evaluate labels.parquet --truth truth.csv --json --fail-under of1=0.9[/]
    """
    from tagllm_cli.evaluation import evaluate_table

    console = make_console(json_output, quiet)
    report = evaluate_table(table, truth, gates=fail_under or [], include_human=include_human)
    for warning in report.warnings:
        console.warn(warning)
    value = report.to_json()
    console.table(value, report.title, *report.overall())
    if not json_output:
        for title, cells in report.per_arm():
            console.table(value, title, *cells)
    if not overall and not json_output:
        console.table(value, "each label, the worst F1 first", *report.per_label())
    if report.missed:
        end(
            console,
            GateError(
                "; ".join(report.missed),
                "--fail-under sets the gate; without --overall the worst labels are listed first.",
            ),
        )


def export(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Label table.", show_default=False)],
    format_: Format,
    out: ExportOut,
    root: Root = None,
    threshold: ScoreThreshold = None,
    no_embed: NoEmbed = False,
    include_unknown: IncludeUnknown = False,
    config: Config = None,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Hand labels to training tools: COCO JSON, CSV, JSON Lines, Hugging Face dataset.

    [dim]tagllm export labels.parquet --format coco --out labels.json
    tagllm export labels.parquet --format hf --out dataset/[/]
    """
    from tagllm_cli.exporters import ExportSettings, export_table

    settings = ExportSettings(root=root, threshold=threshold, include_unknown=include_unknown, embed=not no_embed)
    summary = export_table(table, format_, out, settings)
    make_console(json_output, quiet).result(summary.to_json(), summary.lines())
