"""The options of all commands, as typer reads them: name, environment variable, help, panel."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.labeling.strategies import STRATEGIES

WANTS_JSON = "tagllm.json"  # a key of the context's `meta`, which all commands share


class Missing(StrEnum):
    """What `--offline` makes of an answer that is not on record."""

    error = "error"
    unknown = "unknown"


class ChangedBy(StrEnum):
    """How a changed image is recognised."""

    stat = "stat"
    hash = "hash"


Strategy = StrEnum("Strategy", list(STRATEGIES))  # type: ignore[misc]


def _configure(ctx: typer.Context, path: Path | None) -> Path | None:
    if path is not None and not ctx.resilient_parsing:
        from tagllm_cli.cli.config import Command, load_config

        commands: dict[str, Command] = {}
        for name, command in ctx.find_root().command.commands.items():  # type: ignore[attr-defined]
            names = frozenset(param.name for param in command.params)
            if "config" in names:
                repeatable = frozenset(param.name for param in command.params if getattr(param, "multiple", False))
                commands[name] = Command(names - {"config"}, repeatable)
        ctx.default_map = load_config(path, str(ctx.info_name), commands)
    return path


def _note_json(ctx: typer.Context, value: bool) -> bool:
    """Leave word that `--json` holds, also where the config file says so, for errors later on."""
    if value:
        ctx.meta[WANTS_JSON] = True
    return value


_input = partial(typer.Option, rich_help_panel="Input")
_model = partial(typer.Option, rich_help_panel="Model")
_output = partial(typer.Option, rich_help_panel="Output")
_run = partial(typer.Option, rich_help_panel="Run")
FLAG = ""  # the metavar of an option that takes no value: typer would say <bool>

Out = Annotated[
    Path,
    _output("--out", metavar="FILE", help="Table to write; its evidence lies beside it."),
]
Json = Annotated[
    bool,
    _output("--json", metavar=FLAG, callback=_note_json, help="Print exactly one JSON object on stdout."),
]
Quiet = Annotated[bool, _output("--quiet", "-q", metavar=FLAG, help="No progress, no notes, no summary.")]
Config = Annotated[
    Path | None,
    _input("--config", metavar="FILE", help="YAML file with options.", callback=_configure, is_eager=True),
]
Root = Annotated[
    Path | None,
    _input("--root", metavar="FOLDER", help="Where the images are now, if they moved."),
]
Model = Annotated[
    str | None,
    _model("--model", metavar="NAME", envvar="TAGLLM_MODEL", help="Model that vLLM loads here: hub name or folder."),
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
ModelId = Annotated[
    str | None,
    _model("--model-id", metavar="NAME", help="Identity of the model, where its name or files do not settle it."),
]
EngineArg = Annotated[
    list[str] | None,
    _model("--engine-arg", metavar="KEY=VALUE", help="Anything else for vLLM; repeatable."),
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
Replay = Annotated[
    Path | None,
    _model("--replay", metavar="FILE", help="Take answers from a recording instead of a model."),
]
Record = Annotated[
    Path | None,
    _model("--record", metavar="FILE", help="Write every answer to a recording."),
]
Verbose = Annotated[
    bool,
    _model("--verbose", metavar=FLAG, help="vLLM's log on stderr instead of in a file."),
]
Limit = Annotated[int | None, _run("--limit", metavar="N", min=1, help="Only the first N images.")]
Sample = Annotated[
    int | None,
    _run("--sample", metavar="N", min=1, help="Only N images, drawn with --seed."),
]
Seed = Annotated[int, _run("--seed", metavar="N", help="Seed of --sample.")]
Dry = Annotated[
    bool,
    _run("--dry-run", metavar=FLAG, help="Say what would be asked, and why; load no model, write nothing."),
]
Offline = Annotated[
    bool,
    _run("--offline", metavar=FLAG, help="Rebuild the table from its evidence: no image, no model."),
]
MissingAs = Annotated[Missing, _run("--missing", help="With --offline: what a missing answer is.")]
Replan = Annotated[
    bool,
    _run("--replan", metavar=FLAG, help="Take the new model, templates or groups; what is not given stays as pinned."),
]
Changed = Annotated[
    ChangedBy,
    _run("--changed-by", help="Notice changed images by size and time, or by reading them."),
]
Gone = Annotated[bool, _run("--allow-gone", metavar=FLAG, help="It is meant that many images are gone.")]
FailedRate = Annotated[
    float,
    _run("--max-failed-rate", metavar="P", min=0, max=1, help="Exit with 3 when a larger share of images failed."),
]
NoPreflight = Annotated[
    bool,
    _run("--no-preflight", metavar=FLAG, help="Go on when the first answers make no sense."),
]
Vocab = Annotated[
    str,
    _input("--vocab", metavar="VOCAB", help="Built-in vocabulary (`tagllm vocab list`) or a file."),
]
StrategyName = Annotated[
    Strategy | None,
    _model(
        "--strategy",
        help="Ask by groups, openly, all labels at once, or yes/no about every label. (default: groups)",
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
Cooccurrence = Annotated[
    Path | None,
    _input(
        "--cooccurrence",
        metavar="FILE",
        help="Which labels share images: a label table, or the file of `tagllm vocab scenes`. (default: parents)",
    ),
]
GroupSize = Annotated[
    int | None,
    _model("--group-size", metavar="N", min=1, help="Labels per request. (default: 12)"),
]
MinVotes = Annotated[
    int,
    _output("--min-votes", metavar="N", min=1, help="Arms that must propose a label."),
]
Concepts = Annotated[
    str | None,
    _input(
        "--concepts",
        metavar="FILE",
        help="File of concept cards, which come before the vocabulary's descriptions; `none` asks bare questions.",
    ),
]
Threshold = Annotated[
    float,
    _output("--threshold", metavar="P", min=0, max=1, help="A probability above it is a yes."),
]
BinaryThreshold = Annotated[
    float,
    _output("--threshold", metavar="P", min=0, max=1, help="--strategy binary: a probability above it proposes."),
]
MinMass = Annotated[
    float,
    _output(
        "--min-mass", metavar="P", min=0, max=1, help="Less probability than this on yes and no together: unknown."
    ),
]
Truth = Annotated[
    Path,
    _input("--truth", metavar="FILE", help="COCO instances JSON, CSV, or a label table."),
]
FailUnder = Annotated[
    list[str] | None,
    _output("--fail-under", metavar="METRIC=VALUE", help="Exit with 1 below it, as of1=0.9; repeatable."),
]
Overall = Annotated[bool, _output("--overall", metavar=FLAG, help="Leave out the single labels.")]
IncludeHuman = Annotated[
    bool,
    _input("--include-human", metavar=FLAG, help="Count labels that people decided, too."),
]
Format = Annotated[str, _output("--format", metavar="FORMAT", help="coco, csv, jsonl or hf.")]
ExportOut = Annotated[Path, _output("--out", metavar="PATH", help="File or folder to write.")]
ScoreThreshold = Annotated[
    float | None,
    _output("--threshold", metavar="P", min=0, max=1, help="Scores above it, instead of decisions."),
]
NoEmbed = Annotated[
    bool,
    _output("--no-embed", metavar=FLAG, help="hf: name the images instead of copying them."),
]
IncludeUnknown = Annotated[
    bool,
    _output("--include-unknown", metavar=FLAG, help="Undecided labels count as yes."),
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
    _model("--llm-model", metavar="NAME", help="Which model of that server, where it serves several."),
]
CardsOut = Annotated[
    Path,
    _output("--out", metavar="FILE", help="Card file to write; one that is there is revised."),
]
ScenesOut = Annotated[
    Path,
    _output("--out", metavar="FILE", help="File of scenes to write."),
]
Images = Annotated[
    Path | None,
    _input("--images", metavar="FOLDER", help="Pictures to try the cards on, where there is no table."),
]
TriedTable = Annotated[
    Path | None,
    _input("--table", metavar="TABLE", help="Candidate or label table whose pictures the cards are tried on."),
]
TriedTruth = Annotated[
    Path | None,
    _input("--truth", metavar="FILE", help="Human labels of some of these pictures, as `evaluate` takes them."),
]
SampleSeed = Annotated[int, _run("--seed", metavar="N", help="Which pictures a card is tried on.")]
Rounds = Annotated[int, _run("--rounds", metavar="N", min=1, help="Rounds at most; it ends when no card changes.")]
Review = Annotated[
    bool,
    _run("--review", metavar=FLAG, help="Accept, edit or reject each card in the terminal."),
]
OnlyLabels = Annotated[
    str | None,
    _input("--labels", metavar="LABEL,...", help="Only these labels."),
]
