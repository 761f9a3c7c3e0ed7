"""How a command ends: its result, its warnings, its exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import typer

from tagllm_cli.errors import TagllmError

if TYPE_CHECKING:
    from tagllm_cli.cli.console import Console
    from tagllm_cli.cli.run_groups import BudgetGroup
    from tagllm_cli.pipeline.label.job import Job, RunOptions


class Outcome(Protocol):
    """What a command came to: for programs, for people, what looks wrong, and what it ended with."""

    @property
    def error(self) -> TagllmError | None: ...
    @property
    def warnings(self) -> Sequence[str]: ...
    def to_json(self) -> Mapping[str, Any]: ...
    def lines(self) -> Sequence[str]: ...


def end(console: Console, error: TagllmError) -> NoReturn:
    """Print an error whose result is out already, and exit with its code."""
    console.explain(error)
    raise typer.Exit(error.exit_code)


def run_and_show(job: Job, options: RunOptions, budget: BudgetGroup, console: Console) -> None:
    """Run a labeling job, or estimate what it takes, print its summary, exit with its error's code."""
    if budget.estimate is not None:
        from tagllm_cli.pipeline.label.estimate import estimate

        show(estimate(job, None, options, console, budget.prices(), budget.estimate), console)
    else:
        from tagllm_cli.pipeline.label.run import run_job

        show(run_job(job, options, console), console)


def show(outcome: Outcome, console: Console) -> None:
    """Print what came of a command, and exit with its error's code."""
    console.result(outcome.to_json(), outcome.lines())
    for warning in outcome.warnings:
        console.warn(warning)
    if outcome.error is not None:
        end(console, outcome.error)
