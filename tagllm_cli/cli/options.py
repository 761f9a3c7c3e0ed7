"""The options of all commands as typer reads them: name, environment variable, help, panel."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.export.registry import FORMATS
from tagllm_cli.labeling.strategies import STRATEGIES
from tagllm_cli.sources.kinds import KIND_NAMES

# Keys in the context's `meta`, which all commands share.
JSON_KEY = "tagllm.json"  # an error is to be printed as JSON
RECIPE_KEY = "tagllm.recipe"  # the pipeline file that was given for SOURCE


class MissingResponse(StrEnum):
    """What `--offline` does about a response that is not in the evidence."""

    error = "error"
    unknown = "unknown"


class ChangeDetection(StrEnum):
    """What tells a changed image: size and modification time, or a hash of its bytes."""

    stat = "stat"
    hash = "hash"


SourceFormat = StrEnum("SourceFormat", list(KIND_NAMES))  # type: ignore[misc]


Strategy = StrEnum("Strategy", list(STRATEGIES))  # type: ignore[misc]


ExportFormat = StrEnum("ExportFormat", list(FORMATS))  # type: ignore[misc]


def _read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    if path is not None and not ctx.resilient_parsing:
        from tagllm_cli.cli.config import Command, load_config

        commands: dict[str, Command] = {}
        for name, command in ctx.find_root().command.commands.items():  # type: ignore[attr-defined]
            names = frozenset(param.name for param in command.params)
            if "config" in names:
                repeatable = frozenset(param.name for param in command.params if getattr(param, "multiple", False))
                commands[name] = Command(names - {"config"}, repeatable)
        # A pipeline file says it for one table, and comes before what is said for all.
        ctx.default_map = {**load_config(path, str(ctx.info_name), commands), **(ctx.default_map or {})}
    return path


def _read_recipe(ctx: typer.Context, source: str) -> str:
    """Take a pipeline file for the options that it sets, as a config file, and return the source that it names."""
    from tagllm_cli.pipeline.recipe.file import is_recipe, load_recipe

    if ctx.resilient_parsing or not is_recipe(source):
        return source
    recipe = load_recipe(Path(source))
    ctx.meta[RECIPE_KEY] = recipe
    ctx.default_map = {**(ctx.default_map or {}), **recipe.options}
    return recipe.source


def _record_json(ctx: typer.Context, value: bool) -> bool:
    """Record `--json` in the context for error rendering, also where the config file sets it."""
    if value:
        ctx.meta[JSON_KEY] = True
    return value


_input = partial(typer.Option, rich_help_panel="Input")
_model = partial(typer.Option, rich_help_panel="Model")
_output = partial(typer.Option, rich_help_panel="Output")
_run = partial(typer.Option, rich_help_panel="Run")
_prices = partial(typer.Option, rich_help_panel="Prices, in any one unit of money")
# Options whose number may be left out, and the number that stands for it then.
ESTIMATE, INTERVALS, SUSPECTS = "--estimate", "--intervals", "--suspects"
LEFT_OUT_NUMBERS = {ESTIMATE: 32, INTERVALS: 200, SUSPECTS: 20}
FLAG = ""  # the metavar of an option that takes no value: typer would say <bool>

# -- shared by several commands ----------------------------------------------------------------------------------------

Json = Annotated[
    bool,
    _output("--json", metavar=FLAG, callback=_record_json, help="Print exactly one JSON object on stdout."),
]
Quiet = Annotated[bool, _output("--quiet", "-q", metavar=FLAG, help="Print warnings and errors only.")]
Verbose = Annotated[
    bool,
    _output("--verbose", metavar=FLAG, help="Log in detail; vLLM's log and tracebacks go to stderr."),
]
Config = Annotated[
    Path | None,
    _input("--config", metavar="FILE", help="YAML file with options.", callback=_read_config, is_eager=True),
]
VocabArgument = Annotated[str, typer.Argument(metavar="VOCAB", help="Built-in name or file.", show_default=False)]
TableOut = Annotated[
    Path,
    _output("--out", metavar="FILE", help="Table to write; its evidence and its log are kept beside it."),
]
Root = Annotated[
    str | None,
    _input("--root", metavar="PLACE", help="Folder or URL where the images are now, if they moved."),
]
SourceFormatName = Annotated[
    SourceFormat | None,
    _input("--source-format", help="What SOURCE is, where that is ambiguous."),
]
Split = Annotated[
    str | None,
    _input("--split", metavar="NAMES", help="Splits of a Parquet dataset to take, with commas; all by default."),
]
SourceImageColumn = Annotated[
    str | None,
    _input("--image-column", metavar="NAME", help="Column of a Parquet file or manifest that holds the images."),
]
IdColumn = Annotated[
    str | None,
    _input("--id-column", metavar="NAME", help="Column of a Parquet file or manifest that holds the image ids."),
]
ShardPart = Annotated[
    str | None,
    _run("--shard", metavar="I/N", help="Label the I-th of N parts of the source, from 0; each with its own --out."),
]
Exclude = Annotated[
    list[str] | None,
    _input("--exclude", metavar="GLOB", help="Leave out paths that match, as '*/thumbnails/*'; repeatable."),
]
SkipUnreadable = Annotated[
    bool,
    _input("--skip-unreadable", metavar=FLAG, help="Leave out subfolders that cannot be listed, with a warning."),
]
Model = Annotated[
    str | None,
    _model(
        "--model",
        metavar="NAME",
        envvar="TAGLLM_MODEL",
        help="Model that vLLM loads here: hub name or folder; with --endpoint, the served name.",
    ),
]
Endpoint = Annotated[
    list[str] | None,
    _model(
        "--endpoint",
        metavar="URL",
        envvar="TAGLLM_ENDPOINT",
        help="URL of a running OpenAI-compatible server; repeatable.",
    ),
]
Prompts = Annotated[
    Path | None,
    _model("--prompts", metavar="FOLDER", help="Folder of templates that replace built-in ones."),
]
MaxPixels = Annotated[
    int | None,
    _model(
        "--max-pixels",
        metavar="N",
        min=1,
        help="Pixel budget per image; larger ones are scaled down. (default: 1003520)",
    ),
]
EngineArg = Annotated[
    list[str] | None,
    _model("--engine-arg", metavar="KEY=VALUE", help="Any other argument of vLLM's engine; repeatable."),
]
Gpus = Annotated[
    str | None,
    _model("--gpus", metavar="N|all", help="GPUs of this machine to load copies of the model on. (default: one copy)"),
]
ChatTemplateKwargs = Annotated[
    str | None,
    _model("--chat-template-kwargs", metavar="JSON", help="Variables for the model's chat template."),
]
ModelId = Annotated[
    str | None,
    _model("--model-id", metavar="NAME", help="Identity of the model, where its name or files do not determine it."),
]
Concurrency = Annotated[
    int | None,
    _model(
        "--concurrency",
        metavar="N",
        min=1,
        help="Requests in flight per endpoint. (default: depends on the server)",
    ),
]
Timeout = Annotated[
    float | None,
    _model(
        "--timeout",
        metavar="SECONDS",
        min=1,
        help="Timeout of one response of an endpoint. (default: 300; of an LLM: 120)",
    ),
]
Retries = Annotated[
    int | None,
    _model(
        "--retries",
        metavar="N",
        min=0,
        help="Attempts after a retryable failure of an endpoint. (default: 8; of an LLM: 2)",
    ),
]
Replay = Annotated[
    Path | None,
    _model("--replay", metavar="FILE", help="Take responses from a recording instead of a model."),
]
Record = Annotated[
    Path | None,
    _model("--record", metavar="FILE", help="Write every response to a recording."),
]
LlmEndpoint = Annotated[
    str | None,
    _model(
        "--llm-endpoint",
        metavar="URL",
        envvar="TAGLLM_LLM_ENDPOINT",
        help="Server of the LLM that writes. (default: the multimodal model itself)",
    ),
]
LlmModel = Annotated[
    str | None,
    _model("--llm-model", metavar="NAME", help="Model of that server, where it serves several."),
]
ImageColumn = Annotated[
    str | None,
    _input("--image-column", metavar="NAME", help="Truth file: the column that names the image."),
]
LabelColumn = Annotated[
    str | None,
    _input("--label-column", metavar="NAME", help="Truth file: the column that holds the labels."),
]
Separator = Annotated[
    str | None,
    _input("--separator", metavar="TEXT", help="Truth file: what separates several labels in one cell."),
]

# -- candidates, disambiguate ------------------------------------------------------------------------------------------

Ray = Annotated[
    str | None,
    _run("--ray", metavar="local|ADDRESS", help="Let workers on a Ray cluster label: HOST:PORT, auto, or local."),
]
RayWorkers = Annotated[
    int | None,
    _run("--ray-workers", metavar="N", min=1, help="With --ray: how many workers; one per GPU or machine by default."),
]
Limit = Annotated[int | None, _run("--limit", metavar="N", min=1, help="Only the first N images.")]
Sample = Annotated[
    int | None,
    _run("--sample", metavar="N", min=1, help="Only N images, drawn with --seed."),
]
SampleSeed = Annotated[int, _run("--seed", metavar="N", help="Seed of --sample.")]
DryRun = Annotated[
    bool,
    _run("--dry-run", metavar=FLAG, help="Show what would be asked, and why; load no model, write nothing."),
]
Offline = Annotated[
    bool,
    _run("--offline", metavar=FLAG, help="Rebuild the table from its evidence: open no image, load no model."),
]
OnMissing = Annotated[MissingResponse, _run("--missing", help="With --offline: how a missing response counts.")]
Replan = Annotated[
    bool,
    _run("--replan", metavar=FLAG, help="Take the new model, templates or groups; what is not given stays as pinned."),
]
ChangedBy = Annotated[
    ChangeDetection,
    _run("--changed-by", help="Detect changed images by size and time, or by a hash of their bytes."),
]
AllowGone = Annotated[bool, _run("--allow-gone", metavar=FLAG, help="Accept that many images are gone.")]
MaxFailedRate = Annotated[
    float,
    _run("--max-failed-rate", metavar="P", min=0, max=1, help="Exit with 3 when a larger share of images failed."),
]
NoPreflight = Annotated[
    bool,
    _run(
        "--no-preflight",
        metavar=FLAG,
        help="Continue when the first responses look wrong, or nearly all requests fail.",
    ),
]
Vocab = Annotated[
    str,
    _input("--vocab", metavar="VOCAB", help="Built-in vocabulary (`tagllm vocab list`) or a file."),
]
StrategyName = Annotated[
    Strategy | None,
    _model(
        "--strategy",
        help="Ask by groups, openly, about all labels at once, or yes/no about every label. (default: groups)",
    ),
]
Arms = Annotated[
    str | None,
    _model(
        "--arms",
        metavar="ARM,...",
        help="Ways to group, united; NAME@SEED shuffles, `random` is one too. (default: cooccurring,disjoint)",
    ),
]
GroupSize = Annotated[
    int | None,
    _model("--group-size", metavar="N", min=1, help="Labels per request. (default: 12)"),
]
Cooccurrence = Annotated[
    Path | None,
    _input(
        "--cooccurrence",
        metavar="FILE",
        help="Which labels share images: a label table, or the file of `tagllm vocab scenes`. (default: parents)",
    ),
]
MinVotes = Annotated[
    int,
    _output("--min-votes", metavar="N", min=1, help="Number of arms that must propose a label."),
]
BinaryThreshold = Annotated[
    float,
    _output("--threshold", metavar="P", min=0, max=1, help="--strategy binary: a probability above it proposes."),
]
Concepts = Annotated[
    str | None,
    _input(
        "--concepts",
        metavar="FILE",
        help="Concept cards, which replace the vocabulary's descriptions; `none` asks bare questions.",
    ),
]
Threshold = Annotated[
    float | None,
    _output(
        "--threshold",
        metavar="P",
        min=0,
        max=1,
        help="A probability above it is a yes. (default: 0.5, or the common one of --thresholds)",
    ),
]
ThresholdFile = Annotated[
    Path | None,
    _input("--thresholds", metavar="FILE", help="Thresholds of single labels, from `tagllm calibrate`."),
]
MinMass = Annotated[
    float,
    _output(
        "--min-mass", metavar="P", min=0, max=1, help="Less probability than this on yes and no together: unknown."
    ),
]

# -- prices ------------------------------------------------------------------------------------------------------------

GpuPrice = Annotated[
    float | None,
    _prices("--gpu-price", metavar="MONEY", min=0, help="Price of one GPU for an hour."),
]
PriceIn = Annotated[
    float | None,
    _prices("--price-in", metavar="MONEY", min=0, help="Price of a million prompt tokens, cached ones included."),
]
PriceOut = Annotated[
    float | None,
    _prices("--price-out", metavar="MONEY", min=0, help="Price of a million output tokens."),
]
EstimateImages = Annotated[
    int | None,
    _run(
        ESTIMATE,
        metavar="[N]",
        min=2,
        help=f"Ask about N images drawn at random ({LEFT_OUT_NUMBERS[ESTIMATE]}), and say what the rest will take.",
    ),
]
MaxSeconds = Annotated[
    float | None,
    _run("--max-seconds", metavar="S", min=0, help="End the run after so long; the same command goes on."),
]
MaxRequests = Annotated[
    int | None,
    _run("--max-requests", metavar="N", min=0, help="End the run after so many requests."),
]
MaxCost = Annotated[
    float | None,
    _run("--max-cost", metavar="MONEY", min=0, help="End the run when it has cost so much; needs a price."),
]
HumanPrice = Annotated[
    float,
    _prices(
        "--human-price",
        metavar="MONEY",
        min=0,
        help="Price of 1,000 annotation units: one person looks at one image with up to 20 labels.",
    ),
]

# -- run ---------------------------------------------------------------------------------------------------------------

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
    _output(
        "--out",
        metavar="FILE",
        help="Label table; NAME.candidates.parquet, evidence, log and NAME.run.json are kept beside it.",
    ),
]
CandidateThreshold = Annotated[
    float,
    _output(
        "--candidate-threshold", metavar="P", min=0, max=1, help="--strategy binary: a probability above it proposes."
    ),
]
GateTruth = Annotated[
    Path | None,
    _input("--truth", metavar="FILE", help="Human labels that the label table is measured against."),
]
ExportTo = Annotated[
    list[str] | None,
    _output("--export", metavar="FORMAT=PATH", help="Export the labels, as coco=labels.json; repeatable."),
]

# -- evaluate, export --------------------------------------------------------------------------------------------------

Truth = Annotated[
    Path,
    _input("--truth", metavar="FILE", help="Human labels: CSV, COCO JSON, or a label table."),
]
FailUnder = Annotated[
    list[str] | None,
    _output("--fail-under", metavar="METRIC=VALUE", help="Exit with 1 below it, as of1=0.9; repeatable."),
]
MinOverlap = Annotated[
    float,
    _output(
        "--min-overlap",
        metavar="P",
        min=0,
        max=1,
        help="--fail-under fails when a smaller share of the truth's images is in the table.",
    ),
]
Overall = Annotated[bool, _output("--overall", metavar=FLAG, help="Leave out the figures of single labels.")]
IncludeHuman = Annotated[
    bool,
    _input("--include-human", metavar=FLAG, help="Count labels that people decided, too."),
]
ThresholdMetric = Annotated[
    str,
    _output("--metric", metavar="METRIC", help="f1; precision=P, then the most recall; recall=R, then the least yes."),
]
CalibrationTruth = Annotated[
    Path | None,
    _input("--truth", metavar="FILE", help="Human labels of some images; without them --bias alone decides."),
]
BiasImages = Annotated[
    int | None,
    _model(
        "--bias",
        metavar="N",
        min=1,
        help="Ask all questions about N blank and N shuffled images, and use the bias where it helps.",
    ),
]
ThresholdsOut = Annotated[
    Path,
    _output("--out", metavar="FILE", help="File of thresholds to write, for --thresholds."),
]
Folds = Annotated[
    int,
    _run("--folds", metavar="N", min=3, help="Parts of the images: each is measured by thresholds from the others."),
]
FoldSeed = Annotated[int, _run("--seed", metavar="N", help="Seed of the folds and of resampling.")]
OtherTables = Annotated[
    list[Path] | None,
    _input("--compare", metavar="TABLE", help="Another table of the same images; repeatable."),
]
IntervalRounds = Annotated[
    int | None,
    _output(
        INTERVALS,
        metavar="[ROUNDS]",
        min=20,
        help=f"95% intervals of all figures, by resampling the images ({LEFT_OUT_NUMBERS[INTERVALS]} times).",
    ),
]
Details = Annotated[
    bool,
    _output(
        "--details",
        metavar=FLAG,
        help="Figures of parts (frequency, size, arms, probability); confused labels; reliability.",
    ),
]
SuspectCount = Annotated[
    int | None,
    _output(
        SUSPECTS,
        metavar="[K]",
        min=1,
        help=f"Who is wrong where people disagree, and the {LEFT_OUT_NUMBERS[SUSPECTS]} pairs to look at first.",
    ),
]
SuspectsOut = Annotated[
    Path | None, _output("--suspects-out", metavar="FILE", help="CSV file for all pairs of --suspects.")
]
CandidateTable = Annotated[
    Path | None,
    _prices("--candidates", metavar="TABLE", help="What the label tables were made from, if not by `tagllm run`."),
]
ResamplingSeed = Annotated[int, _output("--seed", metavar="N", min=0, help="Seed of --intervals and --compare.")]
Format = Annotated[ExportFormat, _output("--format", help="Format to write.")]
ExportOut = Annotated[Path, _output("--out", metavar="PATH", help="File or folder to write.")]
ScoreThreshold = Annotated[
    float | None,
    _output("--threshold", metavar="P", min=0, max=1, help="Take labels by score instead of by decision."),
]
NoEmbed = Annotated[
    bool,
    _output("--no-embed", metavar=FLAG, help="hf: name the images instead of copying them."),
]
IncludeUnknown = Annotated[
    bool,
    _output("--include-unknown", metavar=FLAG, help="Count undecided labels as yes."),
]

# -- audit -------------------------------------------------------------------------------------------------------------

AuditAnswers = Annotated[
    Path | None,
    _input("--audit", metavar="FILE", help="Answers about the pairs that `tagllm audit` drew, instead of --truth."),
]
AuditOut = Annotated[Path, _output("--out", metavar="FOLDER", help="Folder to write: a page, a CSV and the design.")]
AuditSize = Annotated[
    int, _run("--size", metavar="N", min=1, help="How many pairs of image and label to draw; some may stay unanswered.")
]
AuditSeed = Annotated[int, _run("--seed", metavar="N", min=0, help="Seed of the sample.")]
AuditConcepts = Annotated[
    Path | None,
    _input("--concepts", metavar="FILE", help="Concept cards to show, as `disambiguate` took them."),
]

# -- report ------------------------------------------------------------------------------------------------------------

ReportOut = Annotated[Path | None, _output("--out", metavar="FILE", help="HTML page to write.")]
CardOut = Annotated[
    Path | None,
    _output("--card", metavar="FILE", help="Dataset card to write, as the Hugging Face Hub reads it."),
]
OptionalTruth = Annotated[
    Path | None,
    _input("--truth", metavar="FILE", help="Human labels: CSV, COCO JSON, or a label table."),
]
ReportImages = Annotated[
    int,
    _output(
        "--images", metavar="N", min=0, help="Images in the gallery: by errors, doubt, disagreement; some at random."
    ),
]
ReportSeed = Annotated[int, _output("--seed", metavar="N", help="Seed of the images at random.")]

# -- concepts, vocab scenes --------------------------------------------------------------------------------------------

CardsOut = Annotated[
    Path,
    _output("--out", metavar="FILE", help="Card file to write; an existing one is revised."),
]
ScenesOut = Annotated[
    Path,
    _output("--out", metavar="FILE", help="File of scenes to write."),
]
ValidationTable = Annotated[
    Path | None,
    _input("--table", metavar="TABLE", help="Candidate or label table whose images the cards are validated on."),
]
ValidationTruth = Annotated[
    Path | None,
    _input("--truth", metavar="FILE", help="Human labels of some of these images, as `evaluate` takes them."),
]
ValidationImages = Annotated[
    str | None,
    _input("--images", metavar="SOURCE", help="Images to validate the cards on, where there is no table."),
]
ValidationSeed = Annotated[int, _run("--seed", metavar="N", help="Seed of the validation set.")]
Rounds = Annotated[int, _run("--rounds", metavar="N", min=1, help="Maximum of rounds; ends when no card changes.")]
Review = Annotated[
    bool,
    _run("--review", metavar=FLAG, help="Accept, edit or reject each card in the terminal."),
]
OnlyLabels = Annotated[
    str | None,
    _input("--labels", metavar="LABEL,...", help="Only these labels."),
]
