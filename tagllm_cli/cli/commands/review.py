"""`tagllm review`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.cli.option_groups import OutputGroup, TruthGroup, names
from tagllm_cli.cli.options.reviewing import (
    Again,
    Blind,
    ReviewConcepts,
    ReviewLabels,
    ReviewLimit,
    ReviewOut,
    ReviewTruth,
    SecondTable,
)
from tagllm_cli.cli.options.shared import Config, Root


def review(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Label or candidate table.", show_default=False)],
    *,
    out: ReviewOut,
    second: SecondTable = None,
    truth: ReviewTruth = None,
    reading: TruthGroup,
    labels: ReviewLabels = None,
    limit: ReviewLimit = 300,
    again: Again = False,
    blind: Blind = False,
    root: Root = None,
    concepts: ReviewConcepts = None,
    config: Config = None,
    output: OutputGroup,
) -> None:
    """Write a page on which a person decides what is most worth deciding: doubtful, disputed, rare labels first.

    [dim]tagllm review labels.parquet --out review.html
    tagllm review labels.parquet --second other.parquet --labels dog,wolf --blind --out review.html
    tagllm import labels.parquet decisions.jsonl

    Decide by the keys y, n, u. The page loads nothing, and keeps decisions in the browser until they are saved.[/]
    """
    from tagllm_cli.cli.outcome import show
    from tagllm_cli.evaluation.review.create import ReviewOptions, create_review

    options = ReviewOptions(
        second=second,
        truth=truth,
        truth_options=reading.truth_options(),
        labels=names(labels, "--labels", "dog,wolf") or (),
        limit=limit,
        again=again,
        blind=blind,
        root=root,
        concepts=concepts,
    )
    console = output.console()
    with console.counting("review") as report:
        summary = create_review(table, out, options, report)
    show(summary, console)
