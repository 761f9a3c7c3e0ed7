"""`tagllm candidates`."""

from __future__ import annotations

from typing import Annotated

import typer

from tagllm_cli.cli.option_groups import (
    ColumnGroup,
    EngineGroup,
    MethodGroup,
    ModelGroup,
    OutputGroup,
    RecordingGroup,
    SourceGroup,
)
from tagllm_cli.cli.options.labeling import BinaryThreshold, ChangedBy, ChangeDetection, Vocab
from tagllm_cli.cli.options.shared import Config, MaxPixels, Prompts, TableOut
from tagllm_cli.cli.run_groups import BudgetGroup, RayGroup, RunGroup


def candidates(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="Folder, shards, Parquet files, manifest or URL.", show_default=False),
    ],
    *,
    vocab: Vocab,
    out: TableOut,
    model: ModelGroup,
    method: MethodGroup,
    threshold: BinaryThreshold = 0.5,
    listing: SourceGroup,
    columns: ColumnGroup,
    config: Config = None,
    prompts: Prompts = None,
    max_pixels: MaxPixels = None,
    engine: EngineGroup,
    recording: RecordingGroup,
    run: RunGroup,
    ray: RayGroup,
    budget: BudgetGroup,
    changed_by: ChangedBy = ChangeDetection.stat,
    output: OutputGroup,
) -> None:
    """Propose labels: images -> candidate table, by group-wise prompting.

    [dim]tagllm candidates photos/ --vocab coco --model MODEL --out candidates.parquet
    tagllm candidates 'shards/{00000..00063}.tar' --vocab coco --out candidates.parquet
    tagllm candidates photos/ --vocab labels.txt --endpoint URL --out c.parquet[/]
    """
    from tagllm_cli.cli.outcome import run_and_show
    from tagllm_cli.pipeline.label.jobs import candidates_job

    console = output.console(None if run.dry_run else out)
    options = run.run_options(budget.limits(), by_hash=changed_by is ChangeDetection.hash)
    named = engine.model_options(
        model, console, verbose=output.verbose, prompts=prompts, max_pixels=max_pixels, recording=recording
    )
    options, named = ray.place(options, named)
    job = candidates_job(
        source,
        vocab,
        out,
        named,
        options,
        **method.job_options(threshold),
        source_options=listing.source_options(columns.image_column, columns.id_column),
        source_format=listing.source_format,
    )
    run_and_show(job, options, budget, console)
