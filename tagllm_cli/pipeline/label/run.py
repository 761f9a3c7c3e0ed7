"""Labeling one table: pin the plan, list the images, ask what is missing, materialize the table.

    plan (pinned) + source -> evidence -> scheduler (only what is missing) -> evidence -> table

`candidates` and `disambiguate` differ in their `Job`, and in nothing else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import tagllm_cli
from tagllm_cli.engines.base import Usage
from tagllm_cli.errors import (
    InterruptedRunError,
    OfflineError,
    StoppedRunError,
    TableError,
    TagllmError,
    TooManyFailedError,
)
from tagllm_cli.labeling.plan import Plan
from tagllm_cli.labeling.replan import first_notes, new_plan, renew, revise
from tagllm_cli.labeling.stage import Stage
from tagllm_cli.pipeline.label.job import Job, RunOptions
from tagllm_cli.pipeline.label.listing import (
    check_gone,
    check_not_empty,
    list_source,
    relist,
)
from tagllm_cli.pipeline.label.materialize import finished_counts, materialize
from tagllm_cli.pipeline.label.pending import (
    PendingCounts,
    RequestKeys,
    count_pending,
    pending_images,
    reopen_incomplete,
)
from tagllm_cli.pipeline.label.ray.cluster import Cluster
from tagllm_cli.pipeline.label.scheduler import Scheduler, StageRun
from tagllm_cli.pipeline.label.stats import RunStats
from tagllm_cli.pipeline.label.summary import DryRun, RowCounts, Summary
from tagllm_cli.pipeline.label.token_estimate import PendingPrompts, estimate_tokens
from tagllm_cli.pipeline.label.worker import Settings
from tagllm_cli.pipeline.progress import Reporter
from tagllm_cli.sources.base import summarize_left_out
from tagllm_cli.store.atomic import check_free_space, check_writable_path
from tagllm_cli.store.damage import damage_as_table_error
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.store.listing import SourceChanges
from tagllm_cli.store.table import open_table
from tagllm_cli.store.write_ahead_log import loses_commits

logger = logging.getLogger(__name__)

# After a signal, the table gets this long; a process that goes on is killed 10 s after it (`docker stop`).
TABLE_SECONDS = 2.5


def run_job(job: Job, options: RunOptions, reporter: Reporter) -> Summary | DryRun:
    """Bring the job's table up to date; what ends a run after something was recorded is the summary's `error`.

    Raises UsageError, nothing touched, where the input cannot be used, and StoppedRunError where answers are recorded
    and no table can be written.
    """
    began = time.monotonic()
    logger.info("%s: %s -> %s (tagllm %s)", job.command, job.source.describe().uri, job.out, tagllm_cli.__version__)
    _check_out(job)
    with Evidence(_evidence_path(job, options)) as evidence:
        plan, notes = _pin(job, evidence, options)
        listing = _list(job, evidence, options, notes)
        if listing.is_nothing and not (options.dry_run or options.offline or options.by_hash):
            counts = finished_counts(job, plan, evidence, options)
            if counts is not None:
                for note in [*notes, *_left_out(job)]:
                    reporter.note(note)
                return _nothing_to_do(job, counts, listing, options, began)
        listing = _merge(job, evidence, options, listing, notes)
        notes += (told := _left_out(job))
        stage, keys = job.stage(plan), RequestKeys(plan.context())
        if options.dry_run or options.offline or options.replan:
            prompts = PendingPrompts() if options.dry_run else None
            found = count_pending(
                stage,
                evidence,
                keys,
                listed_only=not (options.complete or options.offline),
                observe=None if prompts is None else prompts.add,
            )
            if prompts is not None:
                evidence.rollback()
                for note in notes:
                    reporter.note(note)
                return DryRun(listing, found, estimate_tokens(prompts, job.counter, job.source, plan.max_pixels))
            if options.replan:
                notes.append(f"--replan: {found.requests:,} requests about {found.images:,} images are to be asked")
            if options.offline and not options.missing_unknown:
                _refuse(found, evidence.meta("unread", derived=True) or 0)
        for note in notes:
            reporter.note(note)
        stats, usage = RunStats(), Usage()
        if not options.offline:
            stats, usage = _ask(job, plan, stage, evidence, keys, options, reporter)
            if listing.unread:  # what is in these shards is known only now
                evidence.set_meta("unread", listing.unread - stats.shards, revises=False)
                _look_again(job, evidence, options, stats, told, reporter)
        counts = _materialize_after(stats, job, plan, stage, evidence, keys, options)
        if counts.pending and not options.offline and stats.is_complete and reopen_incomplete(stage, evidence, keys):
            # The table shows that images that were complete lack answers now: they are asked about in a second pass.
            reporter.note("answers that were on record are gone: they are asked for again")
            try:
                more, more_usage = _ask(job, plan, stage, evidence, keys, options, reporter)
            except TagllmError as error:
                raise StoppedRunError.after(error) from error
            stats, usage = stats.plus(more), usage.add(more_usage)
            counts = _materialize_after(stats, job, plan, stage, evidence, keys, options)
        verdict = _verdict(counts, stats, options)
        seconds = time.monotonic() - began
        summary = Summary(job.command, job.out, counts, stats, usage, listing, seconds, job.next_command, verdict)
        logger.info("%s ended: %s, error: %s", job.command, counts, verdict)
        if stats.asked or stats.images:
            evidence.end_run(summary.to_json())
        return summary


def _nothing_to_do(job: Job, counts: RowCounts, listing: SourceChanges, options: RunOptions, began: float) -> Summary:
    """Return the summary of a run whose source, plan and table are as they were, without looking at each image."""
    stats, seconds = RunStats(), time.monotonic() - began
    verdict = _verdict(counts, stats, options)
    logger.info("%s: nothing has changed", job.command)
    return Summary(job.command, job.out, counts, stats, Usage(), listing, seconds, job.next_command, verdict)


def _look_again(
    job: Job, evidence: Evidence, options: RunOptions, stats: RunStats, told: Sequence[str], reporter: Reporter
) -> None:
    """Say what is left out of shards that were read, and raise SourceError where they held no image."""
    for note in _left_out(job):
        if note not in told:
            reporter.note(note)
    if stats.is_complete:
        check_not_empty(job.source, evidence.count_images(), options.part)


def _left_out(job: Job) -> list[str]:
    left_out = summarize_left_out(job.source.left_out)
    return [f"left out: {left_out}"] if left_out else []


def _evidence_path(job: Job, options: RunOptions) -> Path | None:
    if options.dry_run and not job.evidence.exists():
        return None
    if options.offline and not job.evidence.exists():
        raise OfflineError(f"there is no evidence at {job.evidence}", "Run once without --offline.")
    if options.offline and loses_commits(job.evidence):
        raise OfflineError(
            f"the log {job.evidence.name}-wal is damaged: what was recorded last is lost", "Run once without --offline."
        )
    return job.evidence


def _check_out(job: Job) -> None:
    """Refuse to replace anything but our own table of the same stage."""
    check_writable_path(job.out, TableError)
    if job.out.exists():
        stage = open_table(job.out).info.stage
        if stage != job.plan_options.stage:
            raise TableError(f"{job.out} is a table of another kind ({stage})", "Choose another --out.")
        if not job.evidence.exists():
            raise _without_evidence(job, "not")
        if job.evidence.is_file() and job.evidence.stat().st_size == 0:
            raise _without_evidence(job, "empty")


def _without_evidence(job: Job, state: str) -> TableError:
    """Return the error for a table whose responses are not there: they would all be paid for again."""
    return TableError(
        f"{job.out} is there, but its evidence {job.evidence.name} is {state}",
        "Put the evidence back, or choose another --out.",
    )


def _pin(job: Job, evidence: Evidence, options: RunOptions) -> tuple[Plan, list[str]]:
    """Return the plan to follow: the pinned one brought up to date, or a new one."""
    record = evidence.meta("plan")
    with damage_as_table_error(job.evidence):
        pinned = None if record is None else Plan.from_json(record)
    if pinned is None and job.out.exists():
        raise _without_evidence(job, "empty")
    if pinned is not None and pinned.stage != job.plan_options.stage:
        raise TableError(f"{job.evidence} belongs to a table of another kind ({pinned.stage})", "Choose another --out.")
    plan_options = job.plan_options
    is_new = pinned is None or options.replan or not evidence.has_responses()
    if plan_options.model is None and is_new and not options.offline and (found := job.served()) is not None:
        plan_options = replace(plan_options, model=found.name, model_digest=found.digest)
    if pinned is not None and plan_options.model is None:
        plan_options = replace(plan_options, model=pinned.model, model_digest=pinned.model_digest)
    if pinned is not None and options.replan:
        plan, notes = renew(pinned, plan_options)
    elif pinned is None or not evidence.has_responses():
        plan = new_plan(plan_options, {} if pinned is None else pinned.label_ids)
        notes = first_notes(plan, plan_options)
    else:
        plan, notes = revise(pinned, plan_options)
    if json.dumps(plan.to_json(), sort_keys=True) != json.dumps(record, sort_keys=True):
        evidence.set_meta("plan", plan.to_json())
    return plan, notes


def _list(job: Job, evidence: Evidence, options: RunOptions, notes: list[str]) -> SourceChanges:
    """List the source and compare it with the record; offline the record stays as it is."""
    if options.offline:
        evidence.check_images(complete=False)
        count = evidence.count_images()
        return SourceChanges(total=count, new=0, changed=0, gone=0, known=count)
    list_source(job.source, job.items, evidence, options.selection, by_hash=options.by_hash)
    if damaged := evidence.check_images(complete=options.complete):
        notes.append(f"{job.evidence} was damaged: what it says about {damaged:,} images is found out again")
    listing = evidence.compare(complete=options.complete)
    if job.items is None:  # the table of an empty part is empty as well
        check_not_empty(job.source, listing.total + listing.unread, options.part)
    return listing


def _merge(
    job: Job, evidence: Evidence, options: RunOptions, listing: SourceChanges, notes: list[str]
) -> SourceChanges:
    """Merge what is listed into the evidence, uncommitted; return how it differs from the record."""
    if options.offline:
        return listing
    if damaged := evidence.damaged_shards():
        notes.append(f"{job.evidence} was damaged: {len(damaged):,} shards are listed again")
        for shard in damaged:
            relist(job.source, evidence, options.selection, shard)
        evidence.check_images(complete=options.complete)
        listing = evidence.compare(complete=options.complete)
    if not options.allow_gone:
        check_gone(job.source, listing.gone, listing.known)
    evidence.merge(complete=options.complete, by_hash=options.by_hash)
    if options.complete and listing.unread != (evidence.meta("unread", derived=True) or 0):
        evidence.set_meta("unread", listing.unread, revises=False)
    if (source := asdict(job.source.describe())) != evidence.meta("source", derived=True):
        evidence.set_meta("source", source, revises=False)
    return listing


def _ask(
    job: Job,
    plan: Plan,
    stage: Stage,
    evidence: Evidence,
    keys: RequestKeys,
    options: RunOptions,
    reporter: Reporter,
) -> tuple[RunStats, Usage]:
    """Ask what is missing, if anything is. Raises TableError before an engine starts where no answer could be kept."""
    listed_only = not options.complete
    unread = sum(is_unread for _, is_unread in evidence.shards(listed_only=listed_only))
    pending = pending_images(stage, evidence, keys, listed_only=listed_only)
    images = sum(image is not None for image in pending)
    if not images and not unread:
        return RunStats(), Usage()
    check_free_space(job.evidence.absolute().parent)
    cluster = None if options.ray is None else Cluster(options.ray)
    evidence.start_run(job.command, tagllm_cli.__version__)
    run = StageRun(stage, evidence, keys)
    with reporter.watching(job.command, images, unread) as progress:
        scheduler = Scheduler(
            [run],
            job.source,
            partial(job.engine, plan),
            Settings(plan.max_pixels, job.expects_same_bytes),
            progress,
            cluster=cluster,
            checks=options.preflight,
            by_hash=options.by_hash,
        )
        asyncio.run(scheduler.run(listed_only=listed_only))
    return run.stats, run.usage


def _refuse(found: PendingCounts, unread: int) -> None:
    if unread:
        raise OfflineError(
            f"{unread:,} shards were never read to their end, so not all images are on record",
            "Run once without --offline, or do without them with --missing unknown.",
        )
    if found.requests:
        raise OfflineError(
            f"{found.requests:,} answers about {found.images:,} images are missing, and --offline asks nothing",
            "Run once without --offline, or take them as unknown with --missing unknown.",
        )


def _materialize_after(
    stats: RunStats, job: Job, plan: Plan, stage: Stage, evidence: Evidence, keys: RequestKeys, options: RunOptions
) -> RowCounts:
    """`materialize`; where it fails after something was recorded, StoppedRunError is raised with the first cause."""
    try:
        seconds = TABLE_SECONDS if stats.interrupted else None
        return materialize(job, plan, stage, evidence, keys, options, seconds)
    except TableError as error:
        if stats.asked:
            raise stats.error or StoppedRunError.after(error) from error
        raise


def _verdict(counts: RowCounts, stats: RunStats, options: RunOptions) -> TagllmError | None:
    if stats.error is not None:
        return stats.error
    if stats.interrupted:
        return InterruptedRunError("interrupted; what was answered is kept", "The same command goes on from here.")
    if options.offline and options.missing_unknown:
        return None  # rows that are only partial for want of answers are what was asked for
    answered = counts.total - counts.pending
    bad = counts.failed + counts.partial
    if bad > options.max_failed_rate * answered:
        return TooManyFailedError(
            f"{bad:,} of {answered:,} images failed in whole or in part, "
            f"more than --max-failed-rate {options.max_failed_rate:g} allows",
            "The table's `error` column has the reasons. The same command asks failed requests again, "
            "not those whose answer cannot be read.",
        )
    return None
