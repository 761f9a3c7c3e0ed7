"""`tagllm import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.cli.option_groups import OutputGroup, TruthGroup, names
from tagllm_cli.cli.options.importing import Complete, ImportDryRun, ImportLabels, OnlyChanges, Who, Withdraw
from tagllm_cli.cli.options.shared import Config


def import_(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Label or candidate table.", show_default=False)],
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="What people decided, in any form.", show_default=False),
    ],
    *,
    complete: Complete = False,
    only_changes: OnlyChanges = False,
    labels: ImportLabels = None,
    who: Who = "",
    withdraw: Withdraw = False,
    dry_run: ImportDryRun = False,
    reading: TruthGroup,
    config: Config = None,
    output: OutputGroup,
) -> None:
    """Take in what people decided: it wins in the table, and no run overwrites it.

    [dim]tagllm import labels.parquet corrections.csv
    tagllm import labels.parquet project-7-export.json --complete --dry-run
    tagllm import labels.parquet photos/ --only-changes
    tagllm import labels.parquet corrections.csv --withdraw

    Our own file has a line per decision:
        image,label,decision,who,when
        beach/1.jpg,dog,yes,ann,2026-05-01T12:00:00Z
        beach/1.jpg,cat,no,ann,[/]
    """
    from tagllm_cli.evaluation.human_labels.options import ImportOptions
    from tagllm_cli.evaluation.human_labels.take_in import import_files

    console = output.console(None if dry_run else table)
    chosen = names(labels, "--labels", "cat,dog")
    options = ImportOptions(complete, only_changes, withdraw, who, chosen, dry_run, reading.truth_options())
    with console.counting("import") as report:
        summary = import_files(table, files, options, report)
    for note in summary.notes():
        console.note(note)
    for warning in summary.warnings():
        console.warn(warning)
    console.result(summary.to_json(), summary.lines())
