"""`tagllm concepts`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tagllm_cli.cli.option_groups import end, llm_options, make_console, model_options, names
from tagllm_cli.cli.options import (
    CardsOut,
    Config,
    Endpoint,
    EngineArg,
    Images,
    Json,
    LlmEndpoint,
    LlmModel,
    MaxPixels,
    Model,
    ModelId,
    OnlyLabels,
    Prompts,
    Quiet,
    Review,
    Rounds,
    SampleSeed,
    TriedTable,
    TriedTruth,
    Verbose,
)

if TYPE_CHECKING:
    pass


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
    from tagllm_cli.labeling.plan import DEFAULT_MAX_PIXELS
    from tagllm_cli.pipeline.concepts import ConceptSettings, write_concepts
    from tagllm_cli.pipeline.concepts.models import concept_models

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
