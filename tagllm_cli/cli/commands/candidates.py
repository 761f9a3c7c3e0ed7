"""The commands that ask a model: images become labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tagllm_cli.cli.option_groups import make_console, model_options, names, run_and_show, run_options
from tagllm_cli.cli.options import (
    Arms,
    BinaryThreshold,
    Changed,
    ChangedBy,
    Config,
    Cooccurrence,
    Dry,
    Endpoint,
    EngineArg,
    FailedRate,
    Gone,
    GroupSize,
    Json,
    Limit,
    MaxPixels,
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
    Sample,
    Seed,
    StrategyName,
    Verbose,
    Vocab,
)

if TYPE_CHECKING:
    pass


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
    from tagllm_cli.pipeline.label.jobs import candidates_job

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
    run_and_show(job, options, make_console(json_output, quiet))
