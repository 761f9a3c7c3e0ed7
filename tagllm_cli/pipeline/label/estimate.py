"""What a whole run will take, from asking about images drawn at random. Their answers are kept.

Images and requests are counted where what is to be asked is known: all of the first stage, and of the second one what
is asked about images whose candidates are on record. For the other images the second stage's requests are extrapolated
from the images that were drawn, as if none had been asked before; tokens are extrapolated for all. Intervals are 95%
bootstrap intervals over these images: they say how different images are, not how the machine's speed will change.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeAlias

import numpy as np

from tagllm_cli.errors import ModelError, TagllmError, UsageError
from tagllm_cli.evaluation.cost import Cost, Prices
from tagllm_cli.labeling.plan import Plan
from tagllm_cli.pipeline.label.job import Job, RunOptions
from tagllm_cli.pipeline.label.one_pass import run_both
from tagllm_cli.pipeline.label.pending import PendingCounts, RequestKeys
from tagllm_cli.pipeline.label.run import run_job
from tagllm_cli.pipeline.label.summary import DryRun, Summary
from tagllm_cli.pipeline.progress import Reporter, Silent
from tagllm_cli.records import Item
from tagllm_cli.store.evidence import Evidence

_ROUNDS = 2000
_LEVEL = 0.95

# (lowest, expected, highest)
Interval: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """What is left of one stage: counts, tokens, hours of the engine, and money (None without prices)."""

    command: str
    images: int
    requests: Interval
    prompt_tokens: Interval
    output_tokens: Interval
    hours: Interval | None
    money: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Return everything by name; intervals as [lowest, expected, highest]."""
        rounded = {
            name: None if value is None else [round(each, digits) for each in value]
            for name, value, digits in (
                ("requests", self.requests, None),
                ("prompt_tokens", self.prompt_tokens, None),
                ("output_tokens", self.output_tokens, None),
                ("hours", self.hours, 4),
                ("cost", self.money, 4),
            )
        }
        return {"command": self.command, "images": self.images, **rounded}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is left of a run, stage by stage, from so many `asked` images. No stages: `error` ended the asking early."""

    asked: int
    stages: tuple[StageEstimate, ...]
    error: TagllmError | None = None
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as plain JSON values."""
        return {
            "asked_images": self.asked,
            "interval": _LEVEL,
            "stages": [stage.to_json() for stage in self.stages],
            "error": None if self.error is None else self.error.to_json(),
        }

    def lines(self) -> list[str]:
        """Return the estimate for people."""
        asked = f"{self.asked:,} images were asked about, drawn at random; their answers are kept."
        lines = [f"{asked} What is left:" if self.stages else f"{asked} That is too early for an estimate."]
        for stage in self.stages:
            name = "candidates" if stage.command == "candidates" else "labels"
            lines.append(f"{name}: {stage.images:,} images, {_shown(stage.requests)} requests")
            tokens = f"  {_shown(stage.prompt_tokens)} prompt tokens, {_shown(stage.output_tokens)} output tokens"
            hours = ["  hours unknown: nothing was asked"] if stage.hours is None else [f"  {_time(stage.hours)}"]
            money = [] if stage.money is None else [f"  cost {_shown(stage.money)}"]
            lines += [tokens, *hours, *money]
        return lines


def estimate(
    job: Job, labels: Job | None, options: RunOptions, reporter: Reporter, prices: Prices, images: int
) -> Estimate:
    """Ask about `images` images and return what is left; `labels` is the second stage of a run of both, else None.

    Raises UsageError where the options choose images themselves, and what the runs raise.
    """
    if options.limit is not None or options.sample is not None or options.offline or options.dry_run:
        raise UsageError(
            "--estimate draws the images itself, and asks about them",
            "Leave out --limit, --sample, --offline and --dry-run.",
        )
    drawn = replace(options, sample=images)
    if labels is None:
        done: Sequence[Summary | DryRun | None] = (run_job(job, drawn, reporter),)
    else:
        done = run_both(job, labels, drawn, reporter)
    summaries = [each for each in done if isinstance(each, Summary)]
    error = next((each.error for each in summaries if each.error is not None), None)
    warnings = tuple(warning for each in summaries for warning in each.warnings)
    if not all(each.stats.is_complete for each in summaries):
        return Estimate(summaries[0].stats.images, (), error, warnings)
    jobs = [job] if labels is None else [job, labels]
    left = _left(job, options).pending
    pace, gpus = _pace(summaries), next((each.stats.gpus for each in summaries if each.stats.gpus), 1)
    samples = [_sampled(each, drawn) for each in jobs]
    stages = [_stage(job, left, 0, samples[0], pace, prices, gpus)]
    if labels is not None:
        known = _left(labels, replace(options, part=None)).pending  # the candidate table holds the part
        stages.append(_stage(labels, known, left.images, samples[1], pace, prices, gpus))
    return Estimate(len(samples[0]), tuple(stages), error, warnings)


def _left(job: Job, options: RunOptions) -> DryRun:
    """Count what is left of a job, without counting tokens; shards that nobody has read are read for it.

    Images whose bytes are only looked at again (`by_hash`) are taken for unchanged.
    """

    def counter() -> NoReturn:
        raise ModelError("tokens are extrapolated")

    counting, options = replace(job, counter=counter), replace(options, dry_run=True, replan=False, by_hash=False)
    found = run_job(counting, options, Silent())
    assert isinstance(found, DryRun)
    if found.listing.unread:
        found = run_job(counting, replace(options, limit=sys.maxsize), Silent())  # chooses among all, and so lists all
        assert isinstance(found, DryRun)
    return found


def _pace(summaries: Sequence[Summary]) -> float | None:
    """Return the engine's hours for each token that it computed; None where nothing was asked."""
    tokens = sum(each.usage.computed_tokens for each in summaries)
    seconds = sum(each.stats.seconds for each in summaries)
    return seconds / tokens / 3600 if tokens else None


# Of one image: requests, prompt tokens, cached tokens, output tokens.
_Row: TypeAlias = tuple[int, int, int, int]


def _sampled(job: Job, drawn: RunOptions) -> list[_Row]:
    """Return what is on record about the images that were drawn."""
    with Evidence(job.evidence) as evidence:
        plan = Plan.from_json(evidence.meta("plan"))
        stage, keys = job.stage(plan), RequestKeys(plan.context())
        numbered: Iterator[tuple[int, Item]] = ((each.position, each.item()) for each in evidence.iter_recorded())
        rows = []
        for _, item in replace(drawn.selection, part=None).of(numbered):
            fingerprint = b"" if item.info is None else item.info.fingerprint
            answers = evidence.answers(keys.keys(stage.requests(item), fingerprint)).values()
            rows.append(
                (
                    len(answers),
                    sum(each.prompt_tokens for each in answers),
                    sum(each.cached_tokens for each in answers),
                    sum(each.output_tokens for each in answers),
                )
            )
        return rows


def _stage(
    job: Job, left: PendingCounts, others: int, rows: Sequence[_Row], pace: float | None, prices: Prices, gpus: int
) -> StageEstimate:
    """Extrapolate one stage to what is counted in `left`, and to so many `others`, images whose requests nobody knows.

    `pace` is in hours per computed token, None where it is not known.
    """
    table = np.asarray(rows, dtype=float).reshape(-1, 4)
    random, count = np.random.default_rng(0), len(table)
    drawn = (random.integers(0, max(1, count), count) for _ in range(_ROUNDS))  # one at a time: all take gigabytes
    times = (np.bincount(each, minlength=count) for each in drawn)
    sums = np.array([table.sum(axis=0), *(each @ table for each in times)])  # the first one is the sample itself
    requests = left.requests + sums[:, 0] * (others / max(1, count))
    prompt, cached, output = sums.T[1:] * (requests / np.maximum(1, sums[:, 0]))
    hours = None if pace is None else (prompt - cached + output) * pace
    money = None
    if prices.are_known and (hours is not None or prices.gpu_hour is None):
        seconds = np.zeros_like(prompt) if hours is None else hours * 3600 * gpus
        money = np.array(
            [
                prices.of(Cost(gpu_seconds=each, prompt_tokens=int(in_), output_tokens=int(out))) or 0.0
                for each, in_, out in zip(seconds, prompt, output, strict=True)
            ]
        )
    return StageEstimate(
        job.command,
        left.images + others,
        _interval(requests),
        _interval(prompt),
        _interval(output),
        None if hours is None else _interval(hours),
        None if money is None else _interval(money),
    )


def _interval(values: np.ndarray[Any, Any]) -> Interval:
    """Return the bootstrap interval around the first value, which is the estimate itself."""
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return float(low), float(values[0]), float(high)


def _shown(interval: Interval) -> str:
    """Return an interval with three digits that matter.

    >>> _shown((90.0, 100.0, 112.0)), _shown((1234.5, 1234.5, 1234.5)), _shown((0.011, 0.0123, 0.014))
    ('100 (90 to 112)', '1,230', '0.0123 (0.011 to 0.014)')
    """
    low, expected, high = map(_round, interval)
    return expected if low == high else f"{expected} ({low} to {high})"


def _round(value: float) -> str:
    shown = f"{float(f'{value:.3g}'):,.6f}".rstrip("0").rstrip(".")
    return shown or "0"


def _time(hours: Interval) -> str:
    """Return a time in the unit that suits it.

    >>> _time((0.9, 1.0, 1.1)), _time((0.01, 0.01, 0.01))
    ('1 (0.9 to 1.1) hours on this machine', '36 seconds on this machine')
    """
    unit, factor = ("hours", 1) if hours[1] >= 1 else ("minutes", 60) if hours[1] * 60 >= 1 else ("seconds", 3600)
    return f"{_shown((hours[0] * factor, hours[1] * factor, hours[2] * factor))} {unit} on this machine"
