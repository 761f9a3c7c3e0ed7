"""Labeling one table: pin the plan, list the images, ask what is missing, materialize the table.

    plan (pinned) + source -> evidence -> scheduler (only what is missing) -> evidence -> table

`candidates` and `disambiguate` differ in their `Job`, and in nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import tagllm_cli
from tagllm_cli.engines.base import Engine, Usage
from tagllm_cli.errors import (
    InterruptedRunError,
    OfflineError,
    StoppedRunError,
    TableError,
    TagllmError,
    TooManyFailedError,
)
from tagllm_cli.labeling.human import shows_decisions
from tagllm_cli.labeling.plan import Plan
from tagllm_cli.labeling.row_counts import RowCounts
from tagllm_cli.pipeline.label.budget import Budget
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
    PendingImage,
    RequestKeys,
    count_pending,
    have_failed,
    missing_requests,
    pending_images,
    reopen_incomplete,
)
from tagllm_cli.pipeline.label.pinning import check_out, evidence_path, pin
from tagllm_cli.pipeline.label.ray.cluster import Cluster
from tagllm_cli.pipeline.label.scheduler import Scheduler, StageRun
from tagllm_cli.pipeline.label.stats import RunStats
from tagllm_cli.pipeline.label.summary import DryRun, Summary
from tagllm_cli.pipeline.label.token_estimate import PendingPrompts, estimate_tokens
from tagllm_cli.pipeline.label.worker import Settings
from tagllm_cli.pipeline.progress import Reporter
from tagllm_cli.sources.base import summarize_left_out
from tagllm_cli.store.atomic import check_free_space, file_state
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.store.evidence_snapshot import read_decisions
from tagllm_cli.store.listing import SourceChanges
from tagllm_cli.store.merge.parts import evidence_of
from tagllm_cli.store.table import open_table

logger = logging.getLogger(__name__)

# After a signal, the table gets this long; a process that goes on is killed 10 s after it (`docker stop`).
TABLE_SECONDS = 2.5


class Session:
    """What the passes of one command share: the budget, what was told, and how an engine is made and asked."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._told: set[str] = set()

    def tell(self, notes: Sequence[str], reporter: Reporter) -> None:
        """Report what no pass has told yet."""
        for note in notes:
            if note not in self._told:
                self._told.add(note)
                reporter.note(note)

    def follow(self, plan: Plan) -> Sequence[StageRun]:
        """Return the stages that are asked about what the first one, which has this plan, proposes."""
        return ()

    def engine(self, job: Job, plan: Plan) -> Engine:
        """Return the engine of a pass, not started."""
        return job.engine(plan)

    def wait(self, asking: Coroutine[Any, Any, None]) -> None:
        """Run one pass."""
        asyncio.run(asking)


def run_job(job: Job, options: RunOptions, reporter: Reporter, session: Session | None = None) -> Summary | DryRun:
    """Bring the job's table up to date; what ends a run after something was recorded is the summary's `error`.

    Raises UsageError, nothing touched, where the input cannot be used, and StoppedRunError where answers are recorded
    and no table can be written.
    """
    logger.info("%s: %s -> %s (tagllm %s)", job.command, job.source.describe().uri, job.out, tagllm_cli.__version__)
    check_out(job)
    with Evidence(evidence_path(job, options)) as evidence:
        return JobRun(job, evidence, options, reporter, session or Session(Budget(options.limits))).run()


class JobRun:
    """One run of one job over its evidence, which is open; `before` was asked about it by an earlier pass."""

    def __init__(
        self,
        job: Job,
        evidence: Evidence,
        options: RunOptions,
        reporter: Reporter,
        session: Session,
        before: StageRun | None = None,
    ) -> None:
        self._job, self._evidence, self._options = job, evidence, options
        self._reporter, self._session, self._before = reporter, session, before
        self._began = time.monotonic()
        self._plan, notes = pin(job, evidence, options)
        self._notes = [*notes, *job.notes]
        self._keys = RequestKeys(self._plan.context())
        self._told: list[str] = []  # what was left out
        self._followers: Sequence[StageRun] = ()
        self._earlier: list[int] | None = None  # the state of the earlier table that is listed

    def run(self) -> Summary | DryRun:
        """See `run_job`."""
        job, options, evidence = self._job, self._options, self._evidence
        looks_at_all = options.dry_run or options.offline or options.by_hash
        if not looks_at_all and self._is_as_listed() and (counts := self._finished()):
            return self._nothing_to_do(counts, _unchanged(evidence))
        listing = self._list()
        if listing.is_nothing and not looks_at_all and (counts := self._finished()):
            return self._nothing_to_do(counts, listing)
        listing = self._merge(listing)
        self._told = self._left_out()
        self._notes += self._told
        self._stage = job.stage(self._plan)
        if options.dry_run or options.offline or options.replan:
            prompts = PendingPrompts() if options.dry_run else None
            found = count_pending(
                self._stage,
                evidence,
                self._keys,
                listed_only=not (options.complete or options.offline),
                observe=None if prompts is None else prompts.add,
            )
            if prompts is not None:
                evidence.rollback()
                self._tell()
                tokens = estimate_tokens(prompts, job.counter, job.source, self._plan.max_pixels)
                return DryRun(listing, found, tokens)
            if options.replan:
                self._notes.append(
                    f"--replan: {found.requests:,} requests about {found.images:,} images are to be asked"
                )
            if options.offline and not options.missing_unknown:
                _refuse(found, evidence.meta("unread", derived=True) or 0)
        self._tell()
        before = self._before
        stats, usage = (RunStats(), Usage()) if before is None else (before.stats, before.usage)
        if options.asks:
            asked, asked_usage = self._ask()
            stats, usage = stats.plus(asked), usage.add(asked_usage)
            if options.complete and asked.images:
                evidence.record_verified()
            if listing.unread:  # what is in these shards is known only now
                evidence.set_meta("unread", listing.unread - stats.shards, revises=False)
                self._look_again(stats)
        counts = self._materialize(stats)
        may_go_on = options.asks and stats.is_complete
        if counts.pending and may_go_on and reopen_incomplete(self._stage, evidence, self._keys):
            # The table shows that images that were complete lack answers now: they are asked about in a second pass.
            self._reporter.note("answers that were on record are gone: they are asked for again")
            try:
                more, more_usage = self._ask()
            except TagllmError as error:
                raise StoppedRunError.after(error) from error
            stats, usage = stats.plus(more), usage.add(more_usage)
            counts = self._materialize(stats)
        return self._summary(counts, stats, usage, listing)

    def _summary(self, counts: RowCounts, stats: RunStats, usage: Usage, listing: SourceChanges) -> Summary:
        job, verdict = self._job, _verdict(counts, stats, self._options)
        # A stage that was asked in the pass of another one takes its share of the engine's time from there.
        seconds = time.monotonic() - self._began - sum(each.stats.seconds for each in self._followers)
        if self._before is not None:
            seconds += self._before.stats.seconds
        people = self._evidence.human.people()
        done = (job.command, job.out, counts, stats, usage, listing, seconds, job.next_command, verdict)
        summary = Summary(*done, people, job.plan_options.vocabulary.names)
        logger.info("%s ended: %s%s", job.command, counts, f"; {verdict.message}" if verdict else "")
        self._evidence.end_run(summary.to_json())
        return summary

    def _tell(self) -> None:
        self._session.tell(self._notes, self._reporter)

    def _is_as_listed(self) -> bool:
        """Tell whether the earlier table is the one that was listed last, so that it need not be read."""
        job = self._job
        if job.earlier is None or not self._options.complete or self._evidence.has_changes:
            return False
        listed = self._evidence.meta("earlier", derived=True)
        return listed is not None and listed == file_state(job.earlier)

    def _finished(self) -> RowCounts | None:
        return finished_counts(self._job, self._plan, self._evidence, self._options)

    def _nothing_to_do(self, counts: RowCounts, listing: SourceChanges) -> Summary:
        """Return the summary of a run whose source, plan and table are as they were, without looking at each image."""
        self._notes += self._left_out()
        self._tell()
        logger.info("%s: nothing has changed", self._job.command)
        return self._summary(counts, RunStats(), Usage(), listing)

    def _look_again(self, stats: RunStats) -> None:
        """Say what is left out of shards that were read, and raise SourceError where they held no image."""
        for note in self._left_out():
            if note not in self._told:
                self._reporter.note(note)
        if stats.is_complete:
            check_not_empty(self._job.source, self._evidence.count_images(), self._options.part)

    def _left_out(self) -> list[str]:
        left_out = summarize_left_out(self._job.source.left_out)
        return [f"left out: {left_out}"] if left_out else []

    def _list(self) -> SourceChanges:
        """List the source and compare it with the record; offline the record stays as it is."""
        job, evidence, options = self._job, self._evidence, self._options
        # Before it is read: a table that is replaced meanwhile is another one for the next run.
        self._earlier = None if job.earlier is None else file_state(job.earlier)
        if job.earlier is not None:
            self._take_over(job.earlier)
        if options.offline:
            evidence.check_images(complete=False)
            return _unchanged(evidence)
        list_source(job.source, job.items, evidence, options.selection, by_hash=options.by_hash)
        if damaged := evidence.check_images(complete=options.complete):
            self._notes.append(f"{job.evidence} was damaged: what it says about {damaged:,} images is found out again")
        listing = evidence.compare(complete=options.complete)
        if job.items is None:  # the table of an empty part is empty as well
            check_not_empty(job.source, listing.total + listing.unread, options.part)
        return listing

    def _take_over(self, earlier: Path) -> None:
        """Record what people decided about the candidates; where their evidence cannot be read, say so."""
        evidence = evidence_of(earlier)
        try:
            self._evidence.record_decisions(read_decisions(evidence))
            reason = "" if evidence.exists() or not shows_decisions(open_table(earlier)) else f"{evidence} is not there"
        except TableError as error:
            reason = error.message
        if reason:
            self._notes.append(f"{reason}: what people decided about the candidates is not taken over")

    def _merge(self, listing: SourceChanges) -> SourceChanges:
        """Merge what is listed into the evidence, uncommitted; return how it differs from the record."""
        job, evidence, options = self._job, self._evidence, self._options
        if options.offline:
            return listing
        if damaged := evidence.damaged_shards():
            self._notes.append(f"{job.evidence} was damaged: {len(damaged):,} shards are listed again")
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
        # Once some images were taken from a table, the record is that of no table as a whole.
        if (earlier := self._earlier if options.complete else None) != evidence.meta("earlier", derived=True):
            evidence.set_meta("earlier", earlier, revises=False)
        return listing

    def _ask(self) -> tuple[RunStats, Usage]:
        """Ask what is missing, if anything is.

        Raises TableError before an engine starts where no answer could be kept.
        """
        job, evidence, options = self._job, self._evidence, self._options
        listed_only = not options.complete
        unread = sum(is_unread for _, is_unread in evidence.shards(listed_only=listed_only))
        pending = pending_images(self._stage, evidence, self._keys, listed_only=listed_only)
        images = sum(image is not None for image in pending) if self._before is None else self._complete(pending)
        if not images and not unread:
            return RunStats(), Usage()
        check_free_space(job.evidence.absolute().parent)
        if options.ray is not None:  # which takes a while
            self._reporter.note(f"connecting to Ray ({options.ray.address})")
        cluster = None if options.ray is None else Cluster(options.ray)
        evidence.start_run(job.command, tagllm_cli.__version__)
        run = StageRun(self._stage, evidence, self._keys)
        followers = self._session.follow(self._plan)
        self._followers = (*self._followers, *followers)
        verb = "run" if followers else job.command
        with self._reporter.watching(verb, images, unread) as progress:
            scheduler = Scheduler(
                [run, *followers],
                job.source,
                partial(self._session.engine, job, self._plan) if cluster is None else partial(job.engine, self._plan),
                Settings(self._plan.max_pixels, job.expects_same_bytes),
                progress,
                self._session.budget,
                cluster=cluster,
                checks=options.preflight,
                by_hash=options.by_hash,
            )
            self._session.wait(scheduler.run(listed_only=listed_only))
        return run.stats, run.usage

    def _complete(self, pending: Iterator[PendingImage | None]) -> int:
        """Mark the images as complete that the pass of another stage has asked about; return how many are left."""
        left = 0
        for image in pending:
            if image is None:
                continue
            missing = missing_requests(image.item, image.requests, self._evidence, self._keys)
            if not missing:
                self._evidence.set_completed(image.item.image.id, image.requests_hash)
            elif not have_failed(image.item, missing, self._evidence, self._keys):
                left += 1
        return left

    def _materialize(self, stats: RunStats) -> RowCounts:
        """`materialize`; where it fails after something was recorded, raise StoppedRunError with the first cause."""
        try:
            seconds = TABLE_SECONDS if stats.interrupted else None
            return materialize(self._job, self._plan, self._stage, self._evidence, self._keys, self._options, seconds)
        except TableError as error:
            if stats.asked:
                raise stats.error or StoppedRunError.after(error) from error
            raise


def _unchanged(evidence: Evidence) -> SourceChanges:
    count = evidence.count_images()
    return SourceChanges(total=count, new=0, changed=0, gone=0, known=count)


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
