"""`tagllm info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.cli.option_groups import OutputGroup
from tagllm_cli.cli.options.labeling import HumanPrice
from tagllm_cli.cli.options.shared import Config
from tagllm_cli.cli.run_groups import PriceGroup, check_price
from tagllm_cli.evaluation.cost import HUMAN_PRICE


def info(
    tables: Annotated[
        list[Path],
        typer.Argument(metavar="TABLE", help="Candidate and label tables of one dataset.", show_default=False),
    ],
    *,
    config: Config = None,
    prices: PriceGroup,
    human_price: HumanPrice = HUMAN_PRICE,
    output: OutputGroup,
) -> None:
    """Show what a table holds, how it was made, every run, and what it cost beside people.

    [dim]tagllm info labels.parquet
    tagllm info labels.candidates.parquet labels.parquet --gpu-price 2.50
    tagllm info labels.parquet --price-in 0.20 --price-out 0.60 --json[/]

    A run may be under way: nothing is locked or changed.
    """
    from tagllm_cli.evaluation import info_text
    from tagllm_cli.evaluation.table_info import report_tables

    console = output.console()
    known = prices.prices()
    check_price("--human-price", human_price)
    report = report_tables(tables, known, human_price)
    for warning in report.warnings:
        console.warn(warning)
    if output.json_output:
        console.result(report.to_json(), [])
        return
    for table in report.tables:
        console.facts(info_text.title(table), info_text.facts(table))
        if runs := info_text.runs(table, known):
            console.table({}, "runs, with their tokens", *runs)
    console.table({}, "cost of each stage", *info_text.costs(report))
    console.facts("", info_text.human(report))
