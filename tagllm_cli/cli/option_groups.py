"""From a command's typed options to the settings of the rooms below; how a command ends."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from tagllm_cli.cli.options import ChangedBy, Missing
from tagllm_cli.errors import TagllmError, UsageError

if TYPE_CHECKING:
    from tagllm_cli.cli.console import Console
    from tagllm_cli.engines.factory import ModelOptions
    from tagllm_cli.pipeline.label.run import Job, RunOptions

# A few hundred short questions: one that hangs is not worth the patience that a million images have.
LLM_PATIENCE: Mapping[str, Any] = {"timeout_s": 120.0, "retries": 2}


def end(console: Console, error: TagllmError) -> NoReturn:
    """Leave with an error's exit code, its result being out already."""
    console.explain(error)
    raise typer.Exit(error.exit_code)


def model_options(settings: Mapping[str, Any]) -> ModelOptions:
    """Return which model answers; the API key comes from the environment alone."""
    from tagllm_cli.engines.factory import ModelOptions

    return ModelOptions(
        model=settings["model"],
        endpoints=tuple(settings["endpoint"] or ()),
        model_id=settings["model_id"],
        api_key=os.environ.get("TAGLLM_API_KEY"),  # never a flag: other users can read a process's arguments
        engine_args=_pairs(settings["engine_arg"]),
        prompts=settings["prompts"],
        max_pixels=settings["max_pixels"],
        replay=settings.get("replay"),
        record=settings.get("record"),
        verbose=settings["verbose"],
    )


def llm_options(settings: Mapping[str, Any]) -> ModelOptions:
    """Return the server of the language model, if one is named; its API key is the other's where it has none."""
    from tagllm_cli.engines.factory import ModelOptions

    url, name = settings["llm_endpoint"], settings["llm_model"]
    if name and not url:
        raise UsageError("--llm-model names a model of no server", "Add --llm-endpoint URL, or leave it out.")
    key = os.environ.get("TAGLLM_LLM_API_KEY") or os.environ.get("TAGLLM_API_KEY")
    return ModelOptions(model=name, endpoints=(url,) if url else (), api_key=key, **LLM_PATIENCE)


def run_options(settings: Mapping[str, Any]) -> RunOptions:
    """Return how much to do and when to stop."""
    from tagllm_cli.pipeline.label.run import RunOptions

    return RunOptions(
        limit=settings["limit"],
        sample=settings["sample"],
        seed=settings["seed"],
        dry_run=settings["dry_run"],
        offline=settings["offline"],
        missing_unknown=settings["missing"] is Missing.unknown,
        replan=settings["replan"],
        by_hash=settings.get("changed_by") is ChangedBy.hash,
        allow_gone=settings["allow_gone"],
        max_failed_rate=settings["max_failed_rate"],
        preflight=not settings["no_preflight"],
    )


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


def names(given: str | None, option: str, example: str) -> tuple[str, ...] | None:
    """Return names that were typed with commas between. Raises UsageError where there is none."""
    if given is None:
        return None
    found = tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    if not found:
        raise UsageError(f"{option} names nothing", f"For example {option} {example}.")
    return found


def make_console(json_output: bool = False, quiet: bool = False) -> Console:
    """Return the terminal that a command speaks to."""
    from tagllm_cli.cli.console import Console

    return Console(json_output=json_output, quiet=quiet)


def run_and_show(job: Job, options: RunOptions, console: Console) -> None:
    """Run a labeling job, print its summary, exit with its error's code."""
    from tagllm_cli.pipeline.label.run import run_job

    outcome = run_job(job, options, console)
    console.result(outcome.to_json(), outcome.lines())
    for warning in outcome.warnings:
        console.warn(warning)
    if outcome.error is not None:
        end(console, outcome.error)
