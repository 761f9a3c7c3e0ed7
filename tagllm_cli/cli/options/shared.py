"""Options that several commands share: output, source, model, truth file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tagllm_cli.cli.options.base import FLAG, JSON_KEY, input_option, model_option, output_option, run_option
from tagllm_cli.sources.kinds import KIND_NAMES

SourceFormat = StrEnum("SourceFormat", list(KIND_NAMES))  # type: ignore[misc]


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


def _record_json(ctx: typer.Context, value: bool) -> bool:
    """Record `--json` in the context for error rendering, also where the config file sets it."""
    if value:
        ctx.meta[JSON_KEY] = True
    return value


Json = Annotated[
    bool,
    output_option("--json", metavar=FLAG, callback=_record_json, help="Print exactly one JSON object on stdout."),
]
Quiet = Annotated[bool, output_option("--quiet", "-q", metavar=FLAG, help="Print warnings and errors only.")]
Verbose = Annotated[
    bool,
    output_option("--verbose", metavar=FLAG, help="Log in detail; vLLM's log and tracebacks go to stderr."),
]
Config = Annotated[
    Path | None,
    input_option("--config", metavar="FILE", help="YAML file with options.", callback=_read_config, is_eager=True),
]
VocabArgument = Annotated[str, typer.Argument(metavar="VOCAB", help="Built-in name or file.", show_default=False)]
TableOut = Annotated[
    Path,
    output_option("--out", metavar="FILE", help="Table to write; its evidence and its log are kept beside it."),
]
Root = Annotated[
    str | None,
    input_option("--root", metavar="PLACE", help="Folder or URL where the images are now, if they moved."),
]
SourceFormatName = Annotated[
    SourceFormat | None,
    input_option("--source-format", help="What SOURCE is, where that is ambiguous."),
]
Split = Annotated[
    str | None,
    input_option("--split", metavar="NAMES", help="Splits of a Parquet dataset to take, with commas; all by default."),
]
SourceImageColumn = Annotated[
    str | None,
    input_option("--image-column", metavar="NAME", help="Column of a Parquet file or manifest that holds the images."),
]
IdColumn = Annotated[
    str | None,
    input_option("--id-column", metavar="NAME", help="Column of a Parquet file or manifest that holds the image ids."),
]
ShardPart = Annotated[
    str | None,
    run_option(
        "--shard", metavar="I/N", help="Label the I-th of N parts of the source, from 0; each with its own --out."
    ),
]
Exclude = Annotated[
    list[str] | None,
    input_option("--exclude", metavar="GLOB", help="Leave out paths that match, as '*/thumbnails/*'; repeatable."),
]
SkipUnreadable = Annotated[
    bool,
    input_option("--skip-unreadable", metavar=FLAG, help="Leave out subfolders that cannot be listed, with a warning."),
]
Model = Annotated[
    str | None,
    model_option(
        "--model",
        metavar="NAME",
        envvar="TAGLLM_MODEL",
        help="Model that vLLM loads here: hub name or folder; with --endpoint, the served name.",
    ),
]
Endpoint = Annotated[
    list[str] | None,
    model_option(
        "--endpoint",
        metavar="URL",
        envvar="TAGLLM_ENDPOINT",
        help="URL of a running OpenAI-compatible server; repeatable.",
    ),
]
Prompts = Annotated[
    Path | None,
    model_option("--prompts", metavar="FOLDER", help="Folder of templates that replace built-in ones."),
]
MaxPixels = Annotated[
    int | None,
    model_option(
        "--max-pixels",
        metavar="N",
        min=1,
        help="Pixel budget per image; larger ones are scaled down. (default: 1003520)",
    ),
]
EngineArg = Annotated[
    list[str] | None,
    model_option("--engine-arg", metavar="KEY=VALUE", help="Any other argument of vLLM's engine; repeatable."),
]
Gpus = Annotated[
    str | None,
    model_option(
        "--gpus", metavar="N|all", help="GPUs of this machine to load copies of the model on. (default: one copy)"
    ),
]
ChatTemplateKwargs = Annotated[
    str | None,
    model_option("--chat-template-kwargs", metavar="JSON", help="Variables for the model's chat template."),
]
ModelId = Annotated[
    str | None,
    model_option(
        "--model-id", metavar="NAME", help="Identity of the model, where its name or files do not determine it."
    ),
]
Concurrency = Annotated[
    int | None,
    model_option(
        "--concurrency",
        metavar="N",
        min=1,
        help="Requests in flight per endpoint. (default: depends on the server)",
    ),
]
Timeout = Annotated[
    float | None,
    model_option(
        "--timeout",
        metavar="SECONDS",
        min=1,
        help="Timeout of one response of an endpoint. (default: 300; of an LLM: 120)",
    ),
]
Retries = Annotated[
    int | None,
    model_option(
        "--retries",
        metavar="N",
        min=0,
        help="Attempts after a retryable failure of an endpoint. (default: 8; of an LLM: 2)",
    ),
]
Replay = Annotated[
    Path | None,
    model_option("--replay", metavar="FILE", help="Take responses from a recording instead of a model."),
]
Record = Annotated[
    Path | None,
    model_option("--record", metavar="FILE", help="Write every response to a recording."),
]
LlmEndpoint = Annotated[
    str | None,
    model_option(
        "--llm-endpoint",
        metavar="URL",
        envvar="TAGLLM_LLM_ENDPOINT",
        help="Server of the LLM that writes. (default: the multimodal model itself)",
    ),
]
LlmModel = Annotated[
    str | None,
    model_option("--llm-model", metavar="NAME", help="Model of that server, where it serves several."),
]
ImageColumn = Annotated[
    str | None,
    input_option("--image-column", metavar="NAME", help="Truth file: the column that names the image."),
]
LabelColumn = Annotated[
    str | None,
    input_option("--label-column", metavar="NAME", help="Truth file: the column that holds the labels."),
]
Separator = Annotated[
    str | None,
    input_option("--separator", metavar="TEXT", help="Truth file: what separates several labels in one cell."),
]
HumanOnly = Annotated[
    bool,
    input_option("--human-only", metavar=FLAG, help="Truth table: only what people decided in it is true."),
]
