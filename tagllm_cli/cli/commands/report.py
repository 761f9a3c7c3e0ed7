"""`tagllm report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.cli.option_groups import OutputGroup, TruthGroup
from tagllm_cli.cli.options.labeling import HumanPrice
from tagllm_cli.cli.options.measuring import (
    CardOut,
    IncludeHuman,
    OtherTables,
    ReportImages,
    ReportOut,
    ReportSeed,
    Truth,
)
from tagllm_cli.cli.options.shared import Config, Root
from tagllm_cli.cli.run_groups import PriceGroup, check_price
from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.cost import HUMAN_PRICE


def report(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Label or candidate table.", show_default=False)],
    *,
    out: ReportOut = None,
    card: CardOut = None,
    truth: Truth = None,
    reading: TruthGroup,
    compare: OtherTables = None,
    images: ReportImages = 500,
    root: Root = None,
    seed: ReportSeed = 0,
    include_human: IncludeHuman = False,
    config: Config = None,
    prices: PriceGroup,
    human_price: HumanPrice = HUMAN_PRICE,
    output: OutputGroup,
) -> None:
    """Write one HTML page about a table: figures, labels, curves, cost, and images with what was said about them.

    [dim]tagllm report labels.parquet --truth truth.csv --out report.html
    tagllm report labels.parquet --compare plain.parquet --out report.html
    tagllm report labels.parquet --truth truth.csv --card README.md[/]

    The page loads nothing and can be sent as it is.
    """
    from tagllm_cli.evaluation.report.report import ReportOptions, write_report

    console = output.console()
    if out is None and card is None:
        raise UsageError("nothing is to be written", "Give --out report.html, --card README.md, or both.")
    check_price("--human-price", human_price)
    options = ReportOptions(
        truth=truth,
        others=compare or (),
        images=images,
        root=root,
        seed=seed,
        truth_options=reading.truth_options(),
        include_human=include_human,
        prices=prices.prices(),
        human_price=human_price,
    )
    summary = write_report(table, out, card, options)
    console.result(summary.to_json(), summary.lines())
    for warning in summary.warnings:
        console.warn(warning)
