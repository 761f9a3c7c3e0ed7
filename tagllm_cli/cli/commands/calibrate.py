"""`tagllm calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagllm_cli.cli.option_groups import EngineGroup, ModelGroup, OutputGroup, RecordingGroup, TruthGroup
from tagllm_cli.cli.options.labeling import Concepts
from tagllm_cli.cli.options.measuring import (
    BiasImages,
    CalibrationTruth,
    Folds,
    FoldSeed,
    Overall,
    ThresholdMetric,
    ThresholdsOut,
)
from tagllm_cli.cli.options.shared import Config, Root
from tagllm_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tagllm_cli.cli.console import Console
    from tagllm_cli.evaluation.thresholds.summary import Calibration


def calibrate(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Label table.", show_default=False)],
    *,
    truth: CalibrationTruth = None,
    reading: TruthGroup,
    metric: ThresholdMetric = "f1",
    out: ThresholdsOut,
    folds: Folds = 5,
    seed: FoldSeed = 0,
    overall: Overall = False,
    bias: BiasImages = None,
    concepts: Concepts = None,
    root: Root = None,
    model: ModelGroup,
    engine: EngineGroup,
    recording: RecordingGroup,
    config: Config = None,
    output: OutputGroup,
) -> None:
    """Choose a threshold for each label by human labels of some images. Without --bias, nothing is asked.

    [dim]tagllm calibrate labels.parquet --truth truth.csv --metric f1 --out thresholds.yaml
    tagllm calibrate labels.parquet --truth truth.csv --metric recall=0.95 --out to-review.yaml
    tagllm disambiguate candidates.parquet --thresholds thresholds.yaml --out labels.parquet[/]

    All figures are of held-out images. A label keeps the common threshold where another one is no better on them.
    """
    from tagllm_cli.evaluation.thresholds.metric import Metric
    from tagllm_cli.evaluation.thresholds.summary import calibrate_table
    from tagllm_cli.labeling.threshold_file import check_thresholds_path
    from tagllm_cli.pipeline.label_bias import calibrate_by_bias, evidence_of, measure_bias

    if truth is None and bias is None:
        raise UsageError("there is nothing to calibrate by", "Add --truth FILE, human labels of some of the images.")
    wanted, console = Metric.parse(metric), output.console()
    measured = None
    if bias is not None:
        check_thresholds_path(out)  # before anything is asked
        models = engine.model_options(
            model, console, verbose=output.verbose, prompts=None, max_pixels=None, recording=recording
        )
        measured = measure_bias(table, evidence_of(out), concepts, models, bias, root=root, seed=seed)
    if truth is None:
        assert measured is not None
        file = calibrate_by_bias(table, out, measured)
        console.warn("the thresholds follow the bias of the questions alone: no truth has shown them to be better")
        value = {"table": str(table), "out": str(out), "bias": measured.to_json(), "labels": len(file.labels)}
        console.result(value, [f"{out}: {len(file.labels):,} labels by measured bias; {measured.asked:,} asked"])
        return
    offsets = None if measured is None else measured.offsets()
    found = calibrate_table(
        table, truth, wanted, out, truth_options=reading.truth_options(), folds=folds, seed=seed, offsets=offsets
    )
    extra = {} if measured is None else {"bias": measured.to_json()}
    _show(found, extra, console, overall=overall, as_json=output.json_output)


def _show(found: Calibration, extra: Mapping[str, object], console: Console, *, overall: bool, as_json: bool) -> None:
    for note in found.notes:
        console.note(note)
    for warning in found.warnings:
        console.warn(warning)
    value = {**found.to_json(), **extra}
    if not as_json:
        title = f"{found.table}: {found.metric}, {found.images:,} images, each held out once, 95% intervals"
        console.table(value, title, *found.overall())
        if not overall:
            console.table(value, "each label on held-out images, before > after", *found.per_label())
    console.result(value, list(found.lines()))
