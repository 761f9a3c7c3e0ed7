"""One run of `tagllm run`: both stages over the images, then gates, a page, exports, and a report of all of it.

A stage that ends with an error, and a missed gate, keep what comes after them from being done: an export that exists is
one of labels that are whole and pass. The page is written also where a gate was missed, to see why.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tagllm_cli
from tagllm_cli.errors import GateError, InterruptedRunError, TableError, TagllmError
from tagllm_cli.pipeline.label.job import Job, RunOptions
from tagllm_cli.pipeline.label.one_pass import run_both
from tagllm_cli.pipeline.label.summary import DryRun, Summary
from tagllm_cli.pipeline.progress import Reporter
from tagllm_cli.pipeline.recipe.report import read_report, report_path, write_report
from tagllm_cli.pipeline.recipe.steps import (
    ExportStep,
    GateStep,
    ReportStep,
    StepResult,
    check_gates,
    check_steps,
    export_labels,
    write_page,
)
from tagllm_cli.store.atomic import file_state

_DIGITS = re.compile(r"\d[\d,]*")


@dataclass(frozen=True, slots=True)
class Work:
    """Everything that one command does; `labels` is the `follow_up_job` of `candidates`."""

    candidates: Job
    labels: Job
    options: RunOptions
    gates: GateStep | None = None
    exports: Sequence[ExportStep] = ()
    report: ReportStep | None = None

    @property
    def out(self) -> Path:
        """The label table."""
        return self.labels.out

    def tables(self) -> Sequence[Any]:
        """Return what tells one state of both tables from another."""
        return [file_state(self.candidates.out), file_state(self.out)]

    def check(self) -> None:
        """Raise UsageError for what could not be done at the end of the run: nothing has been asked yet."""
        check_steps(self.gates, self.exports, self.report, [self.out, self.candidates.out, report_path(self.out)])


@dataclass(slots=True)
class Outcome:
    """What a run came to; `began` and `ended` are seconds since the epoch.

    `labels` is None where the first stage's end left no second one. `told` are the warnings of gates and page that
    earlier runs have given: cron mails none twice, whatever the counts in it.
    """

    out: Path
    candidates: Summary
    labels: Summary | None
    began: float
    gates: StepResult | None = None
    report: StepResult | None = None
    exports: list[StepResult] = field(default_factory=list)
    skipped: Sequence[str] = ()
    error: TagllmError | None = None
    ended: float = 0.0
    told: Sequence[str] = ()

    @property
    def stages(self) -> Sequence[Summary]:
        """The summaries that there are, in their order."""
        return [self.candidates] if self.labels is None else [self.candidates, self.labels]

    @property
    def warnings(self) -> Sequence[str]:
        """What looks wrong, though the run did not stop for it."""
        stages = (warning for each in self.stages for warning in each.warnings)
        told = {_DIGITS.sub("", each) for each in self.told}
        steps = (each for each in self._step_warnings if _DIGITS.sub("", each) not in told)
        return list(dict.fromkeys([*stages, *steps]))

    @property
    def _step_warnings(self) -> Sequence[str]:
        return [warning for each in (self.gates, self.report) if each for warning in each.warnings]

    @property
    def has_written(self) -> bool:
        """Whether the page or an export was written."""
        return any(each is not None and each.done for each in (self.report, *self.exports))

    @property
    def asked(self) -> int:
        """How many requests both stages have sent."""
        return sum(each.stats.asked for each in self.stages)

    def to_json(self) -> dict[str, Any]:
        """Return the report: plain JSON values, times in UTC."""
        return {
            "tagllm": tagllm_cli.__version__,
            "table": str(self.out),
            "began": _utc(self.began),
            "ended": _utc(self.ended),
            "seconds": round(self.ended - self.began, 3),
            "exit_code": 0 if self.error is None else self.error.exit_code,
            "error": None if self.error is None else self.error.to_json(),
            "candidates": {**self.candidates.to_json(), "next": None},  # it was done
            "labels": None if self.labels is None else self.labels.to_json(),
            "gates": None if self.gates is None else dict(self.gates.value),
            "report": None if self.report is None else dict(self.report.value),
            "exports": [dict(each.value) for each in self.exports],
            "skipped": list(self.skipped),
            "told": list(self._step_warnings if self.gates or self.report else self.told),
        }

    def lines(self) -> list[str]:
        """Return three lines for each stage, one for gates and exports each, and what to run next."""
        stages = [line for each in self.stages for line in each.lines() if not line.startswith("next: ")]
        steps = [line for each in (self.gates, self.report, *self.exports) if each is not None for line in each.lines]
        skipped = [f"not done: {', '.join(self.skipped)}"] if self.skipped else []
        is_next = self.labels is not None and self.error is None and self.gates is None
        return [*stages, *steps, *skipped, *([f"next: {self.labels.next_command}"] if is_next and self.labels else [])]


@dataclass(frozen=True, slots=True)
class DryOutcome:
    """What a run would ask. The second stage's questions are known for the candidates that there are already."""

    candidates: DryRun
    labels: DryRun | None
    error: None = None
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return both reports as plain JSON values."""
        return {
            "candidates": self.candidates.to_json(),
            "labels": None if self.labels is None else self.labels.to_json(),
        }

    def lines(self) -> list[str]:
        """Return both reports for people, each under a title."""
        if self.labels is None:
            return ["candidates:", *self.candidates.lines(), "labels: one request about each candidate"]
        title = "labels, about the candidates that there are now:"
        return ["candidates:", *self.candidates.lines(), title, *self.labels.lines()]


def dry_run(work: Work, reporter: Reporter) -> DryOutcome:
    """Return what `work`, whose options say `dry_run`, would ask. Writes nothing, loads no model."""
    work.check()
    first, second = run_both(work.candidates, work.labels, work.options, reporter)
    assert isinstance(first, DryRun)
    assert second is None or isinstance(second, DryRun)
    return DryOutcome(first, second)


def run_work(work: Work, reporter: Reporter, redact: Callable[[str], str]) -> Outcome:
    """Do everything that is not done yet; what ends a run after something was recorded is the outcome's `error`.

    `redact` takes secrets out of the report's text. Raises UsageError, nothing touched, where the input cannot be used.
    """
    work.check()
    last = read_report(work.out)
    began, tables = time.time(), work.tables()
    candidates, labels = run_both(work.candidates, work.labels, work.options, reporter)
    assert isinstance(candidates, Summary)
    assert labels is None or isinstance(labels, Summary)
    outcome = Outcome(work.out, candidates, labels, began, told=last.get("told", ()))
    outcome.error = _first_error(outcome.stages)
    try:
        _do_steps(work, outcome, last)
    except TagllmError as error:
        if outcome.asked == 0 and work.tables() == tables and not outcome.has_written:
            raise
        step = "the gates" if outcome.skipped[0] == "gates" else outcome.skipped[0]
        outcome.error = TagllmError(f"the labels are written; {step} failed: {error.message}", error.hint)
    except KeyboardInterrupt:
        outcome.error = InterruptedRunError("interrupted; the labels are written", "The same command does the rest.")
    outcome.ended = time.time()
    try:
        write_report(work.out, outcome.to_json(), redact)
    except TableError as error:
        reporter.warn(f"{error.message}: the next run repeats gates and exports")
    return outcome


def _first_error(stages: Sequence[Summary]) -> TagllmError | None:
    """Return the error that ended the run: an interrupt before anything else, else the first one."""
    errors = [each.error for each in stages if each.error is not None]
    return next((each for each in errors if isinstance(each, InterruptedRunError)), errors[0] if errors else None)


def _do_steps(work: Work, outcome: Outcome, last: Mapping[str, Any]) -> None:
    """Check the gates, write the page, then export. Each result is in the outcome as soon as it is there."""
    exports = [str(each.out) for each in work.exports]
    page = [str(work.report.out)] if work.report else []
    table = [str(work.out)] if outcome.labels is None else []
    outcome.skipped = [*table, *(["gates"] if work.gates else []), *page, *exports]
    if outcome.error is not None:
        return
    if work.gates is not None:
        outcome.gates = check_gates(work.out, work.gates, last.get("gates"))
        outcome.skipped = [*page, *exports]
    if work.report is not None:
        outcome.report = write_page(work.out, work.report, last.get("report"))
        outcome.skipped = exports
    if outcome.gates is not None and outcome.gates.missed:
        outcome.error = GateError(
            "; ".join(outcome.gates.missed),
            "`tagllm evaluate` lists the labels with the lowest F1 first; nothing is exported.",
        )
        return
    for number, result in enumerate(export_labels(work.out, work.exports, last.get("exports") or []), start=1):
        outcome.exports.append(result)
        outcome.skipped = exports[number:]


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
