"""Options that several commands share, as frozen dataclasses, and what the packages below make of them.

`expand` turns a parameter annotated with one of them into its options. A group's methods return the record of the
package below that the options describe.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from tagllm_cli.cli.options.labeling import Arms, Cooccurrence, GroupSize, MinVotes, StrategyName
from tagllm_cli.cli.options.shared import (
    ChatTemplateKwargs,
    Concurrency,
    Endpoint,
    EngineArg,
    Exclude,
    Gpus,
    HumanOnly,
    IdColumn,
    ImageColumn,
    Json,
    LabelColumn,
    LlmEndpoint,
    LlmModel,
    Model,
    ModelId,
    Quiet,
    Record,
    Replay,
    Retries,
    Separator,
    SkipUnreadable,
    SourceFormatName,
    SourceImageColumn,
    Split,
    Timeout,
    Verbose,
)
from tagllm_cli.errors import UsageError

if TYPE_CHECKING:
    from tagllm_cli.cli.console import Console
    from tagllm_cli.engines.factory import ModelOptions
    from tagllm_cli.evaluation.truth import TruthOptions
    from tagllm_cli.sources.base import SourceOptions

# An LLM gets a few hundred short requests: a hanging one is given up earlier than one of a million images.
LLM_TIMEOUT_S = 120.0
LLM_RETRIES = 2

Origin = Literal["flag", "environment", "config", "default"]
_ORIGINS: dict[str, Origin] = {"COMMANDLINE": "flag", "ENVIRONMENT": "environment", "DEFAULT_MAP": "config"}


@dataclass(frozen=True)
class OutputGroup:
    """What is printed."""

    json_output: Json = False
    quiet: Quiet = False
    verbose: Verbose = False

    def console(self, log_of: Path | None = None) -> Console:
        """Return the console of a command; `log_of` is the file that the command writes, whose log is kept."""
        return make_console(self.json_output, self.quiet, self.verbose, log_of)


@dataclass(frozen=True)
class ModelGroup:
    """The model: one that vLLM loads here, or one that servers offer."""

    context: typer.Context
    model: Model = None
    endpoint: Endpoint = None

    def chosen(self) -> tuple[str | None, tuple[str, ...]]:
        """Return the model and the endpoints to use, by the precedence of where each was given."""
        from tagllm_cli.engines.factory import resolve

        return resolve(self.model, self.endpoint or (), self._origin("model"), self._origin("endpoint"))

    def _origin(self, option: str) -> Origin:
        source = self.context.get_parameter_source(option)
        return "default" if source is None else _ORIGINS.get(source.name, "default")


@dataclass(frozen=True)
class RecordingGroup:
    """Recorded responses, for tests and demonstrations."""

    replay: Replay = None
    record: Record = None


@dataclass(frozen=True)
class EngineGroup:
    """How the model is loaded, or its servers are asked."""

    engine_arg: EngineArg = None
    gpus: Gpus = None
    chat_template_kwargs: ChatTemplateKwargs = None
    model_id: ModelId = None
    concurrency: Concurrency = None
    timeout: Timeout = None
    retries: Retries = None

    def model_options(
        self,
        model: ModelGroup,
        console: Console,
        *,
        verbose: bool,
        prompts: Path | None = None,
        max_pixels: int | None = None,
        recording: RecordingGroup = RecordingGroup(),
    ) -> ModelOptions:
        """Return the model that answers; say so on `console` where it keeps endpoints from being asked.

        Raises UsageError for an --engine-arg that is not KEY=VALUE, --chat-template-kwargs that are no object, and
        --gpus that are no number or of a server.
        """
        from tagllm_cli.engines.factory import ModelOptions

        name, endpoints = model.chosen()
        if model.endpoint and not endpoints:
            console.note(
                f"{name} is loaded here; the endpoint that comes from the environment or the config file is ignored"
            )
        gpus = _gpus(self.gpus)
        if gpus is not None and endpoints:
            raise UsageError(
                "--gpus is for a model that is loaded here, and --endpoint names a server", "Leave one out."
            )
        return ModelOptions(
            model=name,
            endpoints=endpoints,
            gpus=gpus,
            model_id=self.model_id,
            api_key=os.environ.get("TAGLLM_API_KEY"),  # never a flag: other users can read a process's arguments
            engine_args=_pairs(self.engine_arg),
            chat_template_kwargs=_json_object("--chat-template-kwargs", self.chat_template_kwargs),
            prompts=prompts,
            max_pixels=max_pixels,
            replay=recording.replay,
            record=recording.record,
            verbose=verbose,
            timeout_s=self.timeout,
            retries=self.retries,
            concurrency=self.concurrency,
        )


@dataclass(frozen=True)
class LlmGroup:
    """The language model that writes cards and scenes."""

    llm_endpoint: LlmEndpoint = None
    llm_model: LlmModel = None

    def model_options(self, engine: EngineGroup) -> ModelOptions:
        """Return the server of the LLM, if one is named; without an API key of its own it gets TAGLLM_API_KEY."""
        from tagllm_cli.engines.factory import ModelOptions

        if self.llm_model and not self.llm_endpoint:
            raise UsageError("--llm-model names a model, but no server", "Add --llm-endpoint URL, or leave it out.")
        return ModelOptions(
            model=self.llm_model,
            endpoints=(self.llm_endpoint,) if self.llm_endpoint else (),
            api_key=os.environ.get("TAGLLM_LLM_API_KEY") or os.environ.get("TAGLLM_API_KEY"),
            timeout_s=LLM_TIMEOUT_S if engine.timeout is None else engine.timeout,
            retries=LLM_RETRIES if engine.retries is None else engine.retries,
            concurrency=engine.concurrency,
        )


@dataclass(frozen=True)
class SourceGroup:
    """How the images of a source are found, and which of them are left out."""

    source_format: SourceFormatName = None
    split: Split = None
    exclude: Exclude = None
    skip_unreadable: SkipUnreadable = False

    def source_options(self, image_column: str | None, id_column: str | None) -> SourceOptions:
        """Return what a listing takes and leaves out."""
        from tagllm_cli.sources.base import SourceOptions

        return SourceOptions(
            exclude=tuple(self.exclude or ()),
            skip_unreadable=self.skip_unreadable,
            splits=names(self.split, "--split", "train,validation") or (),
            image_column=image_column or "",
            id_column=id_column or "",
        )


@dataclass(frozen=True)
class ColumnGroup:
    """Which columns of a Parquet file or a manifest are read."""

    image_column: SourceImageColumn = None
    id_column: IdColumn = None


@dataclass(frozen=True)
class TruthGroup:
    """How a file of human labels is read where guessing is unsafe."""

    image_column: ImageColumn = None
    label_column: LabelColumn = None
    separator: Separator = None
    human_only: HumanOnly = False

    def truth_options(self) -> TruthOptions:
        """Return how the file is read."""
        from tagllm_cli.evaluation.truth import TruthOptions

        return TruthOptions(self.image_column, self.label_column, self.separator, self.human_only)


@dataclass(frozen=True)
class MethodGroup:
    """How candidates are asked for and united."""

    strategy: StrategyName = None
    arms: Arms = None
    group_size: GroupSize = None
    cooccurrence: Cooccurrence = None
    min_votes: MinVotes = 1

    def job_options(self, threshold: float) -> dict[str, Any]:
        """Return what `candidates_job` takes of these; `threshold` is that of the strategy `binary`."""
        return {
            "strategy": self.strategy,
            "arms": names(self.arms, "--arms", "cooccurring,disjoint"),
            "group_size": self.group_size,
            "cooccurrence": self.cooccurrence,
            "min_votes": self.min_votes,
            "threshold": threshold,
        }


def make_console(
    json_output: bool = False, quiet: bool = False, verbose: bool = False, log_of: Path | None = None
) -> Console:
    """Return the console of a command that has all its imports, and start the log beside the file that it writes."""
    from tagllm_cli.cli import interrupts_raise, logs
    from tagllm_cli.cli.console import Console

    interrupts_raise()
    logs.start(log_of, verbose=verbose)
    return Console(json_output=json_output, quiet=quiet)


def names(given: str | None, option: str, example: str) -> tuple[str, ...] | None:
    """Return the names between commas, without repetitions. Raises UsageError where there is none."""
    if given is None:
        return None
    found = tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    if not found:
        raise UsageError(f"{option} names nothing", f"For example {option} {example}.")
    return found


def _json_object(option: str, given: str | None) -> dict[str, Any]:
    try:
        value = json.loads(given or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UsageError(
            f"{option} takes a JSON object, not {given!r}", f"For example {option} '{{\"thinking\": false}}'."
        )
    return value


def _gpus(given: str | None) -> int | Literal["all"] | None:
    if given is None:
        return None
    if given == "all":
        return "all"
    if not given.isascii() or not given.isdigit() or int(given) < 1:
        raise UsageError(f"--gpus takes a number or `all`, not {given!r}", "For example --gpus all.")
    return int(given)


def _pairs(given: Sequence[str] | None) -> dict[str, str]:
    pairs = {}
    for each in given or ():
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise UsageError(
                f"--engine-arg takes KEY=VALUE, not {each!r}", "For example --engine-arg max_model_len=8192."
            )
        pairs[key.strip().replace("-", "_")] = value
    return pairs
