"""The commands that use a table: measure it, hand it on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.cli.option_groups import end, make_console
from tagllm_cli.cli.options import (
    Config,
    FailUnder,
    IncludeHuman,
    Json,
    Overall,
    Quiet,
    Truth,
)
from tagllm_cli.errors import GateError


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
    from tagllm_cli.evaluation.summary import evaluate_table

    console = make_console(json_output, quiet)
    report = evaluate_table(table, truth, gates=fail_under or [], include_human=include_human)
    for note in report.notes:
        console.note(note)
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
