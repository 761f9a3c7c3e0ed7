"""The options that commands share, as typer reads them: name, environment variable, help, panel."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

WANTS_JSON = "tagllm.json"  # a key of the context's `meta`, which all commands share


class Missing(StrEnum):
    """What `--offline` makes of an answer that is not on record."""

    error = "error"
    unknown = "unknown"


class ChangedBy(StrEnum):
    """How a changed image is recognised."""

    stat = "stat"
    hash = "hash"


def _configure(ctx: typer.Context, path: Path | None) -> Path | None:
    if path is not None and not ctx.resilient_parsing:
        from tagllm_cli.config import Command, load_config

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


INPUT, MODEL, OUTPUT, RUN = "Input", "Model", "Output", "Run"
FLAG = ""  # the metavar of an option that takes no value: typer would say <bool>

Out = Annotated[
    Path,
    typer.Option("--out", metavar="FILE", help="Table to write; its evidence lies beside it.", rich_help_panel=OUTPUT),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        metavar=FLAG,
        callback=_note_json,
        help="Print exactly one JSON object on stdout.",
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", metavar=FLAG, help="No progress, no notes, no summary.", rich_help_panel=OUTPUT)
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="YAML file with options.",
        callback=_configure,
        is_eager=True,
        rich_help_panel=INPUT,
    ),
]
Root = Annotated[
    Path | None,
    typer.Option("--root", metavar="FOLDER", help="Where the images are now, if they moved.", rich_help_panel=INPUT),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        envvar="TAGLLM_MODEL",
        help="Model that vLLM loads here: hub name or folder.",
        rich_help_panel=MODEL,
    ),
]
Endpoint = Annotated[
    list[str] | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        envvar="TAGLLM_ENDPOINT",
        help="URL of a running OpenAI-compatible server; repeatable.",
        rich_help_panel=MODEL,
    ),
]
ModelId = Annotated[
    str | None,
    typer.Option(
        "--model-id",
        metavar="NAME",
        help="Identity of the model, where its name or files do not settle it.",
        rich_help_panel=MODEL,
    ),
]
EngineArg = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-arg", metavar="KEY=VALUE", help="Anything else for vLLM; repeatable.", rich_help_panel=MODEL
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        "--prompts", metavar="FOLDER", help="Folder of templates that replace built-in ones.", rich_help_panel=MODEL
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        metavar="N",
        min=1,
        help="Pixel budget per image; larger ones are scaled down. (default: 1003520)",
        rich_help_panel=MODEL,
    ),
]
Replay = Annotated[
    Path | None,
    typer.Option(
        "--replay", metavar="FILE", help="Take answers from a recording instead of a model.", rich_help_panel=MODEL
    ),
]
Record = Annotated[
    Path | None,
    typer.Option("--record", metavar="FILE", help="Write every answer to a recording.", rich_help_panel=MODEL),
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", metavar=FLAG, help="vLLM's log on stderr instead of in a file.", rich_help_panel=MODEL),
]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first N images.", rich_help_panel=RUN)
]
Sample = Annotated[
    int | None,
    typer.Option("--sample", metavar="N", min=1, help="Only N images, drawn with --seed.", rich_help_panel=RUN),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of --sample.", rich_help_panel=RUN)]
Dry = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        metavar=FLAG,
        help="Say what would be asked, and why; load no model, write nothing.",
        rich_help_panel=RUN,
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline", metavar=FLAG, help="Rebuild the table from its evidence: no image, no model.", rich_help_panel=RUN
    ),
]
MissingAs = Annotated[
    Missing, typer.Option("--missing", help="With --offline: what a missing answer is.", rich_help_panel=RUN)
]
Replan = Annotated[
    bool,
    typer.Option(
        "--replan",
        metavar=FLAG,
        help="Take the new model, templates or groups, and ask again what they change.",
        rich_help_panel=RUN,
    ),
]
Changed = Annotated[
    ChangedBy,
    typer.Option(
        "--changed-by", help="Notice changed images by size and time, or by reading them.", rich_help_panel=RUN
    ),
]
Gone = Annotated[
    bool, typer.Option("--allow-gone", metavar=FLAG, help="It is meant that many images are gone.", rich_help_panel=RUN)
]
FailedRate = Annotated[
    float,
    typer.Option(
        "--max-failed-rate",
        metavar="P",
        min=0,
        max=1,
        help="Exit with 3 when a larger share of images failed.",
        rich_help_panel=RUN,
    ),
]
NoPreflight = Annotated[
    bool,
    typer.Option(
        "--no-preflight", metavar=FLAG, help="Go on when the first answers make no sense.", rich_help_panel=RUN
    ),
]
