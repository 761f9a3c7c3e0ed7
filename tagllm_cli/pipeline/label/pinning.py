"""What a run follows: its evidence file, and in it the plan, pinned by the first run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tagllm_cli.errors import OfflineError, TableError
from tagllm_cli.labeling.plan import Plan
from tagllm_cli.labeling.replan import first_notes, new_plan, renew, revise
from tagllm_cli.pipeline.label.job import Job, RunOptions
from tagllm_cli.store.atomic import check_writable_path
from tagllm_cli.store.damage import damage_as_table_error
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.store.table import open_table
from tagllm_cli.store.write_ahead_log import loses_commits

# What --out may not be named like, unless a table is there already.
_OTHER_FORMATS = (".csv", ".tsv", ".json", ".jsonl")


def evidence_path(job: Job, options: RunOptions) -> Path | None:
    """Return the evidence file of a run, None where a dry run needs none. Raises OfflineError where one is missing."""
    if options.dry_run and not job.evidence.exists():
        return None
    if options.offline and not job.evidence.exists():
        raise OfflineError(f"there is no evidence at {job.evidence}", "Run once without --offline.")
    if options.offline and loses_commits(job.evidence):
        raise OfflineError(
            f"the log {job.evidence.name}-wal is damaged: what was recorded last is lost", "Run once without --offline."
        )
    return job.evidence


def check_out(job: Job) -> None:
    """Raise TableError where the job would replace anything but our own table of the same stage."""
    check_writable_path(job.out, TableError)
    if not job.out.exists() and job.out.suffix.lower() in _OTHER_FORMATS:
        raise TableError(
            f"{job.out} is to be a table, and tables are Parquet files",
            f"Give --out {job.out.with_suffix('.parquet')}; `tagllm export` writes other formats.",
        )
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


def pin(job: Job, evidence: Evidence, options: RunOptions) -> tuple[Plan, list[str]]:
    """Return the plan to follow, and notes about it: the pinned one brought up to date, or a new one."""
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
