"""`tagllm evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagllm_cli.cli.downstream_group import DownstreamGroup
from tagllm_cli.cli.option_groups import OutputGroup, TruthGroup
from tagllm_cli.cli.options.base import LEFT_OUT_NUMBERS, SUSPECTS
from tagllm_cli.cli.options.measuring import (
    AuditAnswers,
    CandidateTable,
    Details,
    FailUnder,
    IncludeHuman,
    IntervalRounds,
    MinOverlap,
    OtherTables,
    Overall,
    ResamplingSeed,
    SuspectCount,
    SuspectsOut,
    Truth,
)
from tagllm_cli.cli.options.shared import Config
from tagllm_cli.cli.run_groups import PriceGroup
from tagllm_cli.errors import GateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tagllm_cli.cli.console import Console
    from tagllm_cli.evaluation.summary import EvaluationSummary

# What --audit goes with; all other options are about a truth.
_WITH_AUDIT = frozenset(["table", "audit", "overall", "config", "json_output", "quiet", "verbose"])


def evaluate(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Label or candidate table.", show_default=False)],
    *,
    context: typer.Context,
    truth: Truth = None,
    audit: AuditAnswers = None,
    reading: TruthGroup,
    compare: OtherTables = None,
    intervals: IntervalRounds = None,
    seed: ResamplingSeed = 0,
    details: Details = False,
    suspects: SuspectCount = None,
    suspects_out: SuspectsOut = None,
    prices: PriceGroup,
    candidates: CandidateTable = None,
    fail_under: FailUnder = None,
    min_overlap: MinOverlap = 0.9,
    overall: Overall = False,
    include_human: IncludeHuman = False,
    downstream: DownstreamGroup,
    config: Config = None,
    output: OutputGroup,
) -> None:
    """Measure a table against human labels: OP OR OF1, CP CR CF1, mAP, what each stage lost, each label.

    [dim]tagllm evaluate labels.parquet --truth instances_val2014.json --intervals
    tagllm evaluate labels.parquet --truth truth.csv --compare plain.parquet
    tagllm evaluate labels.parquet --truth truth.csv --compare plain.parquet --downstream
    tagllm evaluate labels.parquet --truth truth.csv --suspects --gpu-price 2.50
    tagllm evaluate labels.parquet --truth truth.csv --json --fail-under of1=0.9
    tagllm evaluate labels.parquet --audit audit/audit.csv

    A truth file has one line per label:      or one per image:
        image,label                               image,labels
        beach/1.jpg,dog                           beach/1.jpg,dog|person
        beach/1.jpg,person                        beach/2.jpg,[/]
    """
    from tagllm_cli.cli.outcome import end
    from tagllm_cli.evaluation.summary import EvaluateOptions, evaluate_table
    from tagllm_cli.evaluation.suspects import Suspects
    from tagllm_cli.store.atomic import check_writable_path

    console, known = output.console(), prices.prices()
    if audit is not None:
        _check_options(context)
        _show_audit(table, audit, console, with_labels=not (overall or output.json_output))
        return
    if truth is None:
        raise UsageError(
            "there is nothing to measure the table against",
            "Give --truth FILE, or --audit FILE with answers to what `tagllm audit` drew.",
        )
    training = downstream.options(compare or (), include_human=include_human)
    if suspects_out is not None:
        check_writable_path(suspects_out)
        suspects = suspects or LEFT_OUT_NUMBERS[SUSPECTS]
    report = evaluate_table(
        table,
        truth,
        gates=fail_under or [],
        truth_options=reading.truth_options(),
        min_overlap=min_overlap,
        options=EvaluateOptions(
            rounds=intervals or 0,
            seed=seed,
            compare=compare or (),
            details=details,
            include_human=include_human,
            suspects=suspects or 0,
            prices=known,
            candidates=candidates,
        ),
    )
    found = report.sections.get("suspects")
    if suspects_out is not None and isinstance(found, Suspects):
        found.write_csv(suspects_out)
        console.note(f"all {len(found.rows):,} disagreements: {suspects_out}")
    value = report.to_json()
    _show(report, value, console, with_tables=not output.json_output, with_labels=not overall)
    if training is not None:
        from tagllm_cli.evaluation.downstream.study import compare_downstream

        with console.counting("downstream") as count:
            trained = compare_downstream(table, truth, training, count, reading.truth_options())
        for warning in trained.warnings:
            console.warn(warning)
        value["downstream"] = trained.to_json()
        for title, cells in () if output.json_output else trained.tables():
            console.table(value, title, *cells)
    if output.json_output:
        console.result(value, [])
    if report.missed:
        end(
            console,
            GateError(
                "; ".join(report.missed),
                "--fail-under sets the gate; without --overall the labels with the lowest F1 are listed first.",
            ),
        )


def _show(
    report: EvaluationSummary, value: Mapping[str, Any], console: Console, *, with_tables: bool, with_labels: bool
) -> None:
    for note in report.notes:
        console.note(note)
    for warning in report.warnings:
        console.warn(warning)
    if not with_tables:
        return
    console.table(value, report.title, *report.overall())
    for title, cells in report.details():
        console.table(value, title, *cells)
    if with_labels:
        console.table(value, "each label, the lowest F1 first", *report.per_label())


def _check_options(context: typer.Context) -> None:
    """Raise UsageError for options on the command line that mean nothing with --audit."""
    typed = [
        param.opts[0]
        for param in context.command.params
        if param.name not in _WITH_AUDIT
        and (source := context.get_parameter_source(str(param.name))) is not None
        and source.name == "COMMANDLINE"
    ]
    if typed:
        raise UsageError(f"--audit does not go with {', '.join(typed)}", "Leave out one or the other.")


def _show_audit(table: Path, audit: Path, console: Console, *, with_labels: bool) -> None:
    from tagllm_cli.evaluation.audit.summary import evaluate_audit

    report = evaluate_audit(table, audit)
    for note in report.notes:
        console.note(note)
    for warning in report.warnings:
        console.warn(warning)
    for title, cells in report.tables()[: 2 if with_labels else 1]:
        console.table(report.to_json(), title, *cells)
