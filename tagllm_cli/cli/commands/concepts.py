"""`tagllm concepts`."""

from __future__ import annotations

from tagllm_cli.cli.option_groups import (
    EngineGroup,
    LlmGroup,
    ModelGroup,
    OutputGroup,
    SourceGroup,
    TruthGroup,
    names,
)
from tagllm_cli.cli.options.concepts import (
    CardsOut,
    OnlyLabels,
    Review,
    Rounds,
    ValidationImages,
    ValidationSeed,
    ValidationTable,
    ValidationTruth,
)
from tagllm_cli.cli.options.shared import Config, MaxPixels, Prompts, VocabArgument


def concepts(
    vocab: VocabArgument,
    *,
    out: CardsOut,
    table: ValidationTable = None,
    truth: ValidationTruth = None,
    reading: TruthGroup,
    images: ValidationImages = None,
    listing: SourceGroup,
    only: OnlyLabels = None,
    llm: LlmGroup,
    model: ModelGroup,
    config: Config = None,
    prompts: Prompts = None,
    max_pixels: MaxPixels = None,
    engine: EngineGroup,
    rounds: Rounds = 3,
    seed: ValidationSeed = 0,
    review: Review = False,
    output: OutputGroup,
) -> None:
    """Write concept cards: what the dataset means by each ambiguous name, validated on images.

    [dim]tagllm concepts labels.yaml --llm-endpoint URL --out cards.yaml
    tagllm concepts labels.yaml --table candidates.parquet --truth truth.csv --model MODEL --review --out cards.yaml[/]
    """
    from tagllm_cli.cli.outcome import end
    from tagllm_cli.labeling.plan import DEFAULT_MAX_PIXELS
    from tagllm_cli.pipeline.concepts import ConceptSettings, write_concepts
    from tagllm_cli.pipeline.concepts.models import concept_models

    console = output.console(out)
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
        source_options=listing.source_options(reading.image_column if truth is None else None, None),
        source_format=listing.source_format,
        truth_options=reading.truth_options(),
    )
    multimodal = engine.model_options(model, console, verbose=output.verbose, prompts=prompts, max_pixels=max_pixels)
    writer, vlm = concept_models(multimodal, llm.model_options(engine), out)
    summary = write_concepts(settings, writer, vlm, console)
    console.result(summary.to_json(), summary.lines())
    if summary.error is not None:
        end(console, summary.error)
