"""The commands that ask a model: images become labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagllm_cli.commands.settings import end, llm_options, make_console, model_options, names, run_options
from tagllm_cli.options import (
    Arms,
    BinaryThreshold,
    CardsOut,
    Changed,
    ChangedBy,
    Concepts,
    Config,
    Cooccurrence,
    Dry,
    Endpoint,
    EngineArg,
    FailedRate,
    Gone,
    GroupSize,
    Images,
    Json,
    Limit,
    LlmEndpoint,
    LlmModel,
    MaxPixels,
    MinMass,
    MinVotes,
    Missing,
    MissingAs,
    Model,
    ModelId,
    NoPreflight,
    Offline,
    OnlyLabels,
    Out,
    Prompts,
    Quiet,
    Record,
    Replan,
    Replay,
    Review,
    Root,
    Rounds,
    Sample,
    SampleSeed,
    Seed,
    StrategyName,
    Threshold,
    TriedTable,
    TriedTruth,
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


def concepts(
    vocab: Annotated[str, typer.Argument(metavar="VOCAB", help="Built-in name or file.", show_default=False)],
    out: CardsOut,
    table: TriedTable = None,
    truth: TriedTruth = None,
    images: Images = None,
    only: OnlyLabels = None,
    llm_endpoint: LlmEndpoint = None,
    llm_model: LlmModel = None,
    model: Model = None,
    endpoint: Endpoint = None,
    config: Config = None,
    prompts: Prompts = None,
    max_pixels: MaxPixels = None,
    engine_arg: EngineArg = None,
    model_id: ModelId = None,
    verbose: Verbose = False,
    rounds: Rounds = 3,
    seed: SampleSeed = 0,
    review: Review = False,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write concept cards: what the dataset means by each ambiguous name, tried on pictures before it is kept.

    [dim]tagllm concepts labels.yaml --llm-endpoint URL --out cards.yaml
    tagllm concepts labels.yaml --table candidates.parquet --truth truth.csv --model MODEL --review --out cards.yaml[/]
    """
    from tagllm_cli.concepts import ConceptSettings, write_concepts
    from tagllm_cli.jobs import concept_models
    from tagllm_cli.plan import DEFAULT_MAX_PIXELS

    typed = locals()
    console = make_console(json_output, quiet)
    settings = ConceptSettings(
        vocabulary=vocab,
        out=out,
        images=images,
        table=table,
        truth=truth,
        rounds=rounds,
        review=review,
        labels=names(only, "--labels", "mouse,bat") or (),
        seed=seed,
        prompts=prompts,
        max_pixels=max_pixels or DEFAULT_MAX_PIXELS,
    )
    writer, seer = concept_models(model_options(typed), llm_options(typed), out)
    summary = write_concepts(settings, writer, seer, console)
    console.result(summary.to_json(), summary.lines())
    if summary.error is not None:
        end(console, summary.error)


def _label(job: Job, options: RunOptions, console: Console) -> None:
    from tagllm_cli.labelling import run_job

    outcome = run_job(job, options, console)
    console.result(outcome.to_json(), outcome.lines())
    for warning in outcome.warnings:
        console.warn(warning)
    if outcome.error is not None:
        end(console, outcome.error)
