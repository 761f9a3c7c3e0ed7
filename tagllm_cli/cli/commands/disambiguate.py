"""`tagllm disambiguate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.cli.option_groups import (
    EngineGroup,
    ModelGroup,
    OutputGroup,
    RecordingGroup,
)
from tagllm_cli.cli.options.labeling import Concepts, MinMass, Threshold, ThresholdFile
from tagllm_cli.cli.options.shared import Config, MaxPixels, Prompts, Root, TableOut
from tagllm_cli.cli.run_groups import BudgetGroup, RayGroup, RunGroup


def disambiguate(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Candidate table.", show_default=False)],
    *,
    out: TableOut,
    concepts: Concepts = None,
    root: Root = None,
    model: ModelGroup,
    thresholds: ThresholdFile = None,
    threshold: Threshold = None,
    min_mass: MinMass = 0.5,
    config: Config = None,
    prompts: Prompts = None,
    max_pixels: MaxPixels = None,
    engine: EngineGroup,
    recording: RecordingGroup,
    run: RunGroup,
    ray: RayGroup,
    budget: BudgetGroup,
    output: OutputGroup,
) -> None:
    """Decide each candidate: candidate table -> label table, by concept alignment.

    [dim]tagllm disambiguate candidates.parquet --out labels.parquet
    tagllm disambiguate candidates.parquet --concepts cards.yaml --out labels.parquet[/]
    """
    from tagllm_cli.cli.outcome import run_and_show
    from tagllm_cli.labeling.threshold_file import decided_by
    from tagllm_cli.pipeline.label.jobs import disambiguate_job

    console = output.console(None if run.dry_run else out)
    options = run.run_options(budget.limits())
    named = engine.model_options(
        model, console, verbose=output.verbose, prompts=prompts, max_pixels=max_pixels, recording=recording
    )
    options, named = ray.place(options, named)
    limits, file = decided_by(thresholds, threshold, min_mass)
    job = disambiguate_job(
        table,
        out,
        named,
        options,
        concepts=concepts,
        root=root,
        thresholds=limits,
        threshold_file=file,
    )
    run_and_show(job, options, budget, console)
