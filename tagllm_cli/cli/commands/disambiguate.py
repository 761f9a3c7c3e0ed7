"""`tagllm disambiguate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagllm_cli.cli.option_groups import make_console, model_options, run_and_show, run_options
from tagllm_cli.cli.options import (
    Concepts,
    Config,
    Dry,
    Endpoint,
    EngineArg,
    FailedRate,
    Gone,
    Json,
    Limit,
    MaxPixels,
    MinMass,
    Missing,
    MissingAs,
    Model,
    ModelId,
    NoPreflight,
    Offline,
    Out,
    Prompts,
    Quiet,
    Record,
    Replan,
    Replay,
    Root,
    Sample,
    Seed,
    Threshold,
    Verbose,
)

if TYPE_CHECKING:
    pass


def disambiguate(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Candidate table.", show_default=False)],
    out: Out,
    concepts: Concepts = None,
    root: Root = None,
    model: Model = None,
    endpoint: Endpoint = None,
    threshold: Threshold = 0.5,
    min_mass: MinMass = 0.5,
    config: Config = None,
    prompts: Prompts = None,
    max_pixels: MaxPixels = None,
    engine_arg: EngineArg = None,
    model_id: ModelId = None,
    replay: Replay = None,
    record: Record = None,
    verbose: Verbose = False,
    limit: Limit = None,
    sample: Sample = None,
    seed: Seed = 0,
    dry_run: Dry = False,
    offline: Offline = False,
    missing: MissingAs = Missing.error,
    replan: Replan = False,
    allow_gone: Gone = False,
    max_failed_rate: FailedRate = 0.05,
    no_preflight: NoPreflight = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decide each candidate: candidate table -> label table, by concept alignment.

    [dim]tagllm disambiguate candidates.parquet --out labels.parquet
    tagllm disambiguate candidates.parquet --concepts cards.yaml --out labels.parquet[/]
    """
    from tagllm_cli.labeling.disambiguate import Thresholds
    from tagllm_cli.pipeline.label.jobs import disambiguate_job

    settings = locals()
    options = run_options(settings)
    thresholds = Thresholds(threshold, min_mass)
    job = disambiguate_job(
        table, out, model_options(settings), options, concepts=concepts, root=root, thresholds=thresholds
    )
    run_and_show(job, options, make_console(json_output, quiet))
