"""`tagllm evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagllm_cli.cli.option_groups import OutputGroup, TruthGroup
from tagllm_cli.cli.options import (
    AuditAnswers,
    Calibrated,
    Config,
    FailUnder,
    IncludeHuman,
    MinOverlap,
    OptionalTruth,
    Overall,
)
from tagllm_cli.errors import GateError, UsageError

if TYPE_CHECKING:
    from tagllm_cli.cli.console import Console
    from tagllm_cli.evaluation.audit.summary import AuditEvaluation


def evaluate(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Label or candidate table.", show_default=False)],
    *,
    truth: OptionalTruth = None,
    audit: AuditAnswers = None,
    reading: TruthGroup,
    fail_under: FailUnder = None,
    min_overlap: MinOverlap = 0.9,
    overall: Overall = False,
    calibration: Calibrated = False,
    include_human: IncludeHuman = False,
    config: Config = None,
    output: OutputGroup,
) -> None:
    """Measure a table against human labels: OP OR OF1, CP CR CF1, mAP, each label.

    [dim]tagllm evaluate labels.parquet --truth instances_val2014.json
    tagllm evaluate labels.parquet --truth truth.csv --json --fail-under of1=0.9
    tagllm evaluate labels.parquet --audit audit/audit.csv

    A truth file has one line per label:      or one per image:
        image,label                               image,labels
        beach/1.jpg,dog                           beach/1.jpg,dog|person
        beach/1.jpg,person                        beach/2.jpg,[/]
    """
    from tagllm_cli.cli.outcome import end
    from tagllm_cli.evaluation.audit.summary import evaluate_audit
    from tagllm_cli.evaluation.summary import evaluate_table

    console = output.console()
    if audit is not None:
        if truth is not None or fail_under or include_human or reading != TruthGroup():
            raise UsageError(
                "--audit stands for --truth, and goes with none of the options that are about a truth",
                "Leave out --truth, its columns and separator, --fail-under and --include-human.",
            )
        _show_audit(evaluate_audit(table, audit), console, with_labels=not (overall or output.json_output))
        return
    if truth is None:
        raise UsageError(
            "there is nothing to measure the table against",
            "Give --truth FILE, or --audit FILE with answers to what `tagllm audit` drew.",
        )
    report = evaluate_table(
        table,
        truth,
        gates=fail_under or [],
        include_human=include_human,
        truth_options=reading.truth_options(),
        min_overlap=min_overlap,
        calibration=calibration,
    )
    for note in report.notes:
        console.note(note)
    for warning in report.warnings:
        console.warn(warning)
    value = report.to_json()
    console.table(value, report.title, *report.overall())
    if not output.json_output:
        for title, cells in report.per_arm():
            console.table(value, title, *cells)
    if not overall and not output.json_output:
        console.table(value, "each label, the lowest F1 first", *report.per_label())
    if report.reliability is not None and not output.json_output:
        for title, cells in report.reliability.tables()[: 2 if overall else 3]:
            console.table(value, title, *cells)
    if report.missed:
        end(
            console,
            GateError(
                "; ".join(report.missed),
                "--fail-under sets the gate; without --overall the labels with the lowest F1 are listed first.",
            ),
        )


def _show_audit(report: AuditEvaluation, console: Console, *, with_labels: bool) -> None:
    for note in report.notes:
        console.note(note)
    for warning in report.warnings:
        console.warn(warning)
    for title, cells in report.tables()[: 2 if with_labels else 1]:
        console.table(report.to_json(), title, *cells)
