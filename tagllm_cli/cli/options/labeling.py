"""Options of the commands that label: how, what counts, which images, limits and prices."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.cli.options.base import (
    ESTIMATE,
    FLAG,
    LEFT_OUT_NUMBERS,
    RECIPE_KEY,
    input_option,
    model_option,
    output_option,
    price_option,
    run_option,
)
from tagllm_cli.labeling.strategies import STRATEGIES


class MissingResponse(StrEnum):
    """What `--offline` does about a response that is not in the evidence."""

    error = "error"
    unknown = "unknown"


class ChangeDetection(StrEnum):
    """What tells a changed image: size and modification time, or a hash of its bytes."""

    stat = "stat"
    hash = "hash"


Strategy = StrEnum("Strategy", list(STRATEGIES))  # type: ignore[misc]


def _read_recipe(ctx: typer.Context, source: str) -> str:
    """Take a pipeline file for the options that it sets, as a config file, and return the source that it names."""
    from tagllm_cli.pipeline.recipe.file import is_recipe, load_recipe

    if ctx.resilient_parsing or not is_recipe(source):
        return source
    recipe = load_recipe(Path(source))
    ctx.meta[RECIPE_KEY] = recipe
    ctx.default_map = {**(ctx.default_map or {}), **recipe.options}
    return recipe.source


Ray = Annotated[
    str | None,
    run_option("--ray", metavar="local|ADDRESS", help="Let workers on a Ray cluster label: HOST:PORT, auto, or local."),
]
RayWorkers = Annotated[
    int | None,
    run_option(
        "--ray-workers", metavar="N", min=1, help="With --ray: how many workers; one per GPU or machine by default."
    ),
]
Limit = Annotated[int | None, run_option("--limit", metavar="N", min=1, help="Only the first N images.")]
Sample = Annotated[
    int | None,
    run_option("--sample", metavar="N", min=1, help="Only N images, drawn with --seed."),
]
SampleSeed = Annotated[int, run_option("--seed", metavar="N", help="Seed of --sample.")]
DryRun = Annotated[
    bool,
    run_option("--dry-run", metavar=FLAG, help="Show what would be asked, and why; load no model, write nothing."),
]
Offline = Annotated[
    bool,
    run_option("--offline", metavar=FLAG, help="Rebuild the table from its evidence: open no image, load no model."),
]
OnMissing = Annotated[MissingResponse, run_option("--missing", help="With --offline: how a missing response counts.")]
Replan = Annotated[
    bool,
    run_option(
        "--replan", metavar=FLAG, help="Take the new model, templates or groups; what is not given stays as pinned."
    ),
]
ChangedBy = Annotated[
    ChangeDetection,
    run_option("--changed-by", help="Detect changed images by size and time, or by a hash of their bytes."),
]
AllowGone = Annotated[bool, run_option("--allow-gone", metavar=FLAG, help="Accept that many images are gone.")]
MaxFailedRate = Annotated[
    float,
    run_option(
        "--max-failed-rate", metavar="P", min=0, max=1, help="Exit with 3 when a larger share of images failed."
    ),
]
NoPreflight = Annotated[
    bool,
    run_option(
        "--no-preflight",
        metavar=FLAG,
        help="Continue when the first responses look wrong, or nearly all requests fail.",
    ),
]
Vocab = Annotated[
    str,
    input_option("--vocab", metavar="VOCAB", help="Built-in vocabulary (`tagllm vocab list`) or a file."),
]
StrategyName = Annotated[
    Strategy | None,
    model_option(
        "--strategy",
        help="Ask by groups, openly, about all labels at once, or yes/no about every label. (default: groups)",
    ),
]
Arms = Annotated[
    str | None,
    model_option(
        "--arms",
        metavar="ARM,...",
        help="Ways to group, united; NAME@SEED shuffles, `random` is one too. (default: cooccurring,disjoint)",
    ),
]
GroupSize = Annotated[
    int | None,
    model_option("--group-size", metavar="N", min=1, help="Labels per request. (default: 12)"),
]
Cooccurrence = Annotated[
    Path | None,
    input_option(
        "--cooccurrence",
        metavar="FILE",
        help="Which labels share images: a label table, or the file of `tagllm vocab scenes`. (default: parents)",
    ),
]
MinVotes = Annotated[
    int,
    output_option("--min-votes", metavar="N", min=1, help="Number of arms that must propose a label."),
]
BinaryThreshold = Annotated[
    float,
    output_option("--threshold", metavar="P", min=0, max=1, help="--strategy binary: a probability above it proposes."),
]
Concepts = Annotated[
    str | None,
    input_option(
        "--concepts",
        metavar="FILE",
        help="Concept cards, which replace the vocabulary's descriptions; `none` asks bare questions.",
    ),
]
Threshold = Annotated[
    float | None,
    output_option(
        "--threshold",
        metavar="P",
        min=0,
        max=1,
        help="A probability above it is a yes. (default: 0.5, or the common one of --thresholds)",
    ),
]
ThresholdFile = Annotated[
    Path | None,
    input_option("--thresholds", metavar="FILE", help="Thresholds of single labels, from `tagllm calibrate`."),
]
MinMass = Annotated[
    float,
    output_option(
        "--min-mass", metavar="P", min=0, max=1, help="Less probability than this on yes and no together: unknown."
    ),
]
GpuPrice = Annotated[
    float | None,
    price_option("--gpu-price", metavar="MONEY", min=0, help="Price of one GPU for an hour."),
]
PriceIn = Annotated[
    float | None,
    price_option("--price-in", metavar="MONEY", min=0, help="Price of a million prompt tokens, cached ones included."),
]
PriceOut = Annotated[
    float | None,
    price_option("--price-out", metavar="MONEY", min=0, help="Price of a million output tokens."),
]
EstimateImages = Annotated[
    int | None,
    run_option(
        ESTIMATE,
        metavar="[N]",
        min=2,
        help=f"Ask about N images drawn at random ({LEFT_OUT_NUMBERS[ESTIMATE]}), and say what the rest will take.",
    ),
]
MaxSeconds = Annotated[
    float | None,
    run_option("--max-seconds", metavar="S", min=0, help="End the run after so long; the same command goes on."),
]
MaxRequests = Annotated[
    int | None,
    run_option("--max-requests", metavar="N", min=0, help="End the run after so many requests."),
]
MaxCost = Annotated[
    float | None,
    run_option("--max-cost", metavar="MONEY", min=0, help="End the run when it has cost so much; needs a price."),
]
HumanPrice = Annotated[
    float,
    price_option(
        "--human-price",
        metavar="MONEY",
        min=0,
        help="Price of 1,000 annotation units: one person looks at one image with up to 20 labels.",
    ),
]
SourceOrPipeline = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Folder, shards, Parquet files, manifest or URL; or a pipeline file, NAME.yaml.",
        show_default=False,
        callback=_read_recipe,
        is_eager=True,
    ),
]
LabelsOut = Annotated[
    Path,
    output_option(
        "--out",
        metavar="FILE",
        help="Label table; NAME.candidates.parquet, evidence, log and NAME.run.json are kept beside it.",
    ),
]
CandidateThreshold = Annotated[
    float,
    output_option(
        "--candidate-threshold", metavar="P", min=0, max=1, help="--strategy binary: a probability above it proposes."
    ),
]
GateTruth = Annotated[
    Path | None,
    input_option("--truth", metavar="FILE", help="Human labels that the label table is measured against."),
]
ExportTo = Annotated[
    list[str] | None,
    output_option("--export", metavar="FORMAT=PATH", help="Export the labels, as coco=labels.json; repeatable."),
]
