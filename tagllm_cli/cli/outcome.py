"""How a command ends: its result, its warnings, its exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import typer

from tagllm_cli.errors import TagllmError

if TYPE_CHECKING:
    from tagllm_cli.cli.console import Console
    from tagllm_cli.pipeline.label.job import Job, RunOptions


def end(console: Console, error: TagllmError) -> NoReturn:
    """Print an error whose result is out already, and exit with its code."""
    console.explain(error)
    raise typer.Exit(error.exit_code)


def run_and_show(job: Job, options: RunOptions, console: Console) -> None:
    """Run a labeling job, print its summary, exit with its error's code."""
    from tagllm_cli.pipeline.label.run import run_job

    outcome = run_job(job, options, console)
    console.result(outcome.to_json(), outcome.lines())
    for warning in outcome.warnings:
        console.warn(warning)
    if outcome.error is not None:
        end(console, outcome.error)
