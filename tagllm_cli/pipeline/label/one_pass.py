"""Both stages in one pass over the images: candidates are asked about while the engine still holds their image.

The pass is that of the candidates; what an image proposes is asked about at once, and the answers go to the evidence of
the label table. The ordinary run over the candidate table comes after it: what the pass has asked is on record by then,
and the rest is asked (candidates of images that were complete before). So both tables, and what is on record for them,
are what the two commands make, and either command can go on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import tagllm_cli
from tagllm_cli.engines.base import Engine, ForwardingEngine
from tagllm_cli.errors import InterruptedRunError, StoppedRunError, TagllmError
from tagllm_cli.labeling.plan import Plan
from tagllm_cli.labeling.row_counts import RowCounts
from tagllm_cli.pipeline.label.budget import Budget
from tagllm_cli.pipeline.label.job import Job, RunOptions
from tagllm_cli.pipeline.label.pending import RequestKeys
from tagllm_cli.pipeline.label.pinning import check_out, evidence_path, pin
from tagllm_cli.pipeline.label.run import JobRun, Session, run_job
from tagllm_cli.pipeline.label.scheduler import StageRun
from tagllm_cli.pipeline.label.summary import DryRun, Summary
from tagllm_cli.pipeline.progress import Reporter
from tagllm_cli.store.evidence import Evidence


def run_both(
    candidates: Job, labels: Job, options: RunOptions, reporter: Reporter
) -> tuple[Summary | DryRun, Summary | DryRun | None]:
    """Bring a candidate table and the label table made from it (`jobs.follow_up_job`) up to date; return what was done.

    There is no second summary where the first run was interrupted, or where a dry run cannot know what would be asked.
    Where the first run ended early, the second one asks nothing more. Raises what `run_job` raises; StoppedRunError
    where the second run cannot begin and the first one has recorded something.
    """
    later = replace(options, part=None, by_hash=False)  # the candidate table holds the part, and what the bytes are
    if options.dry_run or options.offline:
        shared = Session(Budget(options.limits))
        only = run_job(candidates, options, reporter, shared)
        return only, run_job(labels, later, reporter, shared) if candidates.out.exists() else None
    check_out(labels)
    with Evidence(evidence_path(labels, later)) as evidence, _OnePass(labels, evidence, options, reporter) as session:
        first = run_job(candidates, options, reporter, session)
        if not isinstance(first, Summary):
            return first, None
        if first.stats.interrupted:
            session.end_followed(first)
            return first, None
        if session.followed is not None:
            session.followed.stats.error = first.stats.error  # which ended its questions, too
        later = replace(
            later,
            replan=later.replan and session.followed is None,  # else it was done
            tables_only=first.stats.error is not None,
        )
        try:
            return first, JobRun(labels, evidence, later, reporter, session, session.followed).run()
        except InterruptedRunError:
            raise
        except TagllmError as error:
            if first.stats.asked:
                raise StoppedRunError.after(error) from error
            raise


class _OnePass(Session):
    """The passes of `run_both`: one loop, and one engine where both plans ask the same model about the same pixels.

    `followed` is the second stage during the first pass, None where it was not asked in it.
    """

    def __init__(self, labels: Job, evidence: Evidence, options: RunOptions, reporter: Reporter) -> None:
        super().__init__(Budget(options.limits))
        self._labels, self._evidence, self._options, self._reporter = labels, evidence, options, reporter
        self._runner = asyncio.Runner()
        self._engines: dict[bytes, _KeptEngine] = {}  # by the context of the plan
        self.followed: StageRun | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._runner:
            for engine in self._engines.values():
                self._runner.run(engine.end())

    def follow(self, plan: Plan) -> Sequence[StageRun]:
        """Return the stage of the label table, unless its plan needs other pixels or another model."""
        is_second = plan.stage == self._labels.plan_options.stage
        if self.followed is not None or is_second:
            return ()
        own, notes = pin(self._labels, self._evidence, self._options)
        if own.context() != plan.context():
            return ()
        self.tell(notes, self._reporter)
        self._evidence.start_run(self._labels.command, tagllm_cli.__version__, has_clock=False)
        self.followed = StageRun(self._labels.stage(own), self._evidence, RequestKeys(own.context()))
        return (self.followed,)

    def end_followed(self, first: Summary) -> None:
        """Close the run record of the second stage after a signal, which leaves no time for its table."""
        if (run := self.followed) is not None:
            labels, seconds = self._labels, run.stats.seconds
            counts = RowCounts(), run.stats, run.usage, first.listing
            summary = Summary(labels.command, labels.out, *counts, seconds, labels.next_command, first.error)
            self._evidence.end_run({**summary.to_json(), "rows": None, "source": None})

    def engine(self, job: Job, plan: Plan) -> Engine:
        """Return the engine for a plan, which may have been started by an earlier pass."""
        context = plan.context()
        if context not in self._engines:
            self._engines[context] = _KeptEngine(self._labels.engine(plan))
        return self._engines[context]

    def wait(self, asking: Coroutine[Any, Any, None]) -> None:
        """Run one pass, in the loop of all."""
        self._runner.run(asking)


class _KeptEngine(ForwardingEngine):
    """An engine that is started once and stays ready between passes, until `end`."""

    _is_started = False

    async def start(self) -> None:
        if not self._is_started:
            await super().start()
            self._is_started = True

    async def close(self) -> None:
        """Nothing: another pass may come."""

    async def end(self) -> None:
        """Close the engine."""
        await super().close()
