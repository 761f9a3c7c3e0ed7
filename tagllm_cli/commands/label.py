"""The commands that ask a model: images become labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagllm_cli.commands.settings import end, make_console, model_options, names, run_options
from tagllm_cli.options import (
    Arms,
    BinaryThreshold,
    Changed,
    ChangedBy,
    Concepts,
    Cooccurrence,
    Config,
    Dry,
    Endpoint,
    EngineArg,
    FailedRate,
    Gone,
    GroupSize,
    Json,
    Limit,
    MaxPixels,
    MinMass,
    MinVotes,
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
    StrategyName,
    Threshold,
    Verbose,
    Vocab,
)

if TYPE_CHECKING:
    from tagllm_cli.console import Console
    from tagllm_cli.labelling import Job, RunOptions


def candidates(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder of images.", show_default=False)],
    vocab: Vocab,
    out: Out,
    model: Model = None,
    endpoint: Endpoint = None,
    strategy: StrategyName = None,
    arms: Arms = None,
    group_size: GroupSize = None,
    cooccurrence: Cooccurrence = None,
    min_votes: MinVotes = 1,
    threshold: BinaryThreshold = 0.5,
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
    changed_by: Changed = ChangedBy.stat,
    allow_gone: Gone = False,
    max_failed_rate: FailedRate = 0.05,
    no_preflight: NoPreflight = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Propose labels: images -> candidate table, by group-wise prompting.

    [dim]tagllm candidates photos/ --vocab coco --model MODEL --out candidates.parquet
    tagllm candidates photos/ --vocab coco --strategy binary --out yes-no.parquet
    tagllm candidates photos/ --vocab labels.txt --endpoint URL --out c.parquet[/]
    """
    from tagllm_cli.jobs import candidates_job

    settings = locals()
    options = run_options(settings)
    job = candidates_job(
        source,
        vocab,
        out,
        model_options(settings),
        options,
        strategy=strategy,
        arms=names(arms, "--arms", "cooccurring,disjoint"),
        group_size=group_size,
        cooccurrence=cooccurrence,
        min_votes=min_votes,
        threshold=threshold,
    )
    _label(job, options, make_console(json_output, quiet))


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
    from tagllm_cli.jobs import disambiguate_job
    from tagllm_cli.stages.disambiguate import Thresholds

    settings = locals()
    options = run_options(settings)
    thresholds = Thresholds(threshold, min_mass)
    job = disambiguate_job(
        table, out, model_options(settings), options, concepts=concepts, root=root, thresholds=thresholds
    )
    _label(job, options, make_console(json_output, quiet))


def _label(job: Job, options: RunOptions, console: Console) -> None:
    from tagllm_cli.labelling import run_job

    outcome = run_job(job, options, console)
    console.result(outcome.to_json(), outcome.lines())
    for warning in outcome.warnings:
        console.warn(warning)
    if outcome.error is not None:
        end(console, outcome.error)
