"""`tagllm calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.cli.option_groups import OutputGroup, TruthGroup
from tagllm_cli.cli.options import Config, Folds, FoldSeed, Overall, ThresholdMetric, ThresholdsOut, Truth


def calibrate(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Label table.", show_default=False)],
    *,
    truth: Truth,
    reading: TruthGroup,
    metric: ThresholdMetric = "f1",
    out: ThresholdsOut,
    folds: Folds = 5,
    seed: FoldSeed = 0,
    overall: Overall = False,
    config: Config = None,
    output: OutputGroup,
) -> None:
    """Choose a threshold for each label by human labels of some images. Nothing is asked.

    [dim]tagllm calibrate labels.parquet --truth truth.csv --metric f1 --out thresholds.yaml
    tagllm calibrate labels.parquet --truth truth.csv --metric recall=0.95 --out to-review.yaml
    tagllm disambiguate candidates.parquet --thresholds thresholds.yaml --out labels.parquet[/]

    All figures are of held-out images. A label keeps the common threshold where another one is no better on them.
    """
    from tagllm_cli.evaluation.thresholds.metric import Metric
    from tagllm_cli.evaluation.thresholds.summary import calibrate_table

    console = output.console()
    found = calibrate_table(
        table, truth, Metric.parse(metric), out, truth_options=reading.truth_options(), folds=folds, seed=seed
    )
    for note in found.notes:
        console.note(note)
    for warning in found.warnings:
        console.warn(warning)
    value = found.to_json()
    if not output.json_output:
        title = f"{table}: {found.metric}, held-out images of {found.images:,} in {folds} folds, 95% intervals"
        console.table(value, title, *found.overall())
        if not overall:
            console.table(value, "each label on held-out images, before > after", *found.per_label())
    console.result(value, list(found.lines()))
