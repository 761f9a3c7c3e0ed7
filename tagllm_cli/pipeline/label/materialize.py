"""The table made from its evidence. Work follows the change: rows that are still right are taken over as they are.

A row is still right when its image has not changed since the table was written and the row was final: `ok`, or failed
because the bytes are no image. All other rows, and all rows under other settings or offline, are made anew. Both ways
give the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import tagllm_cli
from tagllm_cli.errors import InterruptedRunError
from tagllm_cli.labeling.human import HumanOverlay
from tagllm_cli.labeling.plan import Plan
from tagllm_cli.labeling.row_counts import RowCounts
from tagllm_cli.labeling.stage import Stage
from tagllm_cli.pipeline.label.pending import RETRIED_KINDS, RequestKeys
from tagllm_cli.records import Failure, Response, Row, SourceInfo, Status
from tagllm_cli.store.atomic import file_state
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.store.evidence_layout import RecordedImage
from tagllm_cli.store.table import RowReader, Table, TableInfo, open_table, table_metadata, write_table

if TYPE_CHECKING:
    from tagllm_cli.pipeline.label.job import Job, RunOptions

_IDS_PER_BATCH = 8192
_ROWS_PER_LOOK = 64  # at the clock


def materialize(
    job: Job,
    plan: Plan,
    stage: Stage,
    evidence: Evidence,
    keys: RequestKeys,
    options: RunOptions,
    seconds: float | None = None,
) -> RowCounts:
    """Commit the evidence and bring the job's table up to it; return what the table holds. No change, no write.

    Raises InterruptedRunError where it would take more than `seconds`: the table stays as it was.
    """
    until = None if seconds is None else time.monotonic() + seconds
    info = _info(job, plan, evidence, options)
    evidence.commit()
    revision, settings = evidence.revision, _settings(info, options)
    last = evidence.meta("table", derived=True) or {}
    is_comparable = (last.get("settings"), last.get("file")) == (settings, file_state(job.out))
    if is_comparable and last["revision"] == revision and not options.offline:
        return RowCounts(**last["counts"])
    counts = RowCounts()
    with contextlib.ExitStack() as stack:
        earlier = None
        if is_comparable and not options.offline:
            table = open_table(job.out)
            earlier = stack.enter_context(_EarlierTable(table, evidence, last["revision"], RowCounts(**last["counts"])))
            counts = earlier.counts
        unasked = Response(failure=Failure("missing", "not on record")) if options.missing_unknown else None
        decided = evidence.human.fingerprints()
        overlay = HumanOverlay(info) if decided else None
        rows = _until(until, _rows(stage, evidence, keys, unasked, earlier, counts, overlay, decided))
        write_table(job.out, info, rows, None if earlier is None else earlier.reader)
    state = {"revision": revision, "settings": settings, "file": file_state(job.out), "counts": counts.to_json()}
    evidence.set_meta("table", state, revises=False)
    return counts


def finished_counts(job: Job, plan: Plan, evidence: Evidence, options: RunOptions) -> RowCounts | None:
    """Return what the table holds, if it is finished and no run would find anything to do; else None."""
    last = evidence.meta("table", derived=True) or {}
    now = (_settings(_info(job, plan, evidence, options), options), file_state(job.out), evidence.revision)
    if (last.get("settings"), last.get("file"), last.get("revision")) != now or evidence.has_changes:
        return None
    counts = RowCounts(**last["counts"])
    return None if counts.pending or not evidence.is_settled(RETRIED_KINDS) else counts


def _info(job: Job, plan: Plan, evidence: Evidence, options: RunOptions) -> TableInfo:
    """Return what the table says about itself; offline the source is the one on record, since nobody looks at it."""
    source = job.source.describe()
    if options.offline and (recorded := evidence.meta("source", derived=True)) is not None:
        source = SourceInfo(**recorded)
    return TableInfo(job.plan_options.stage, source, plan.vocabulary, {**plan.to_json(), **job.derivation})


def _settings(info: TableInfo, options: RunOptions) -> str:
    """Return a hash of what decides all rows at once; another version of the tool may read the same responses anew."""
    settings = [tagllm_cli.__version__, table_metadata(info), options.missing_unknown]
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()


def _until(until: float | None, rows: Iterator[Row | int]) -> Iterator[Row | int]:
    for number, row in enumerate(rows):
        if until is not None and number % _ROWS_PER_LOOK == 0 and time.monotonic() > until:
            raise InterruptedRunError(
                "interrupted; what was answered is kept, and not in the table yet",
                "The same command goes on from here.",
            )
        yield row


def _rows(
    stage: Stage,
    evidence: Evidence,
    keys: RequestKeys,
    unasked: Response | None,
    earlier: _EarlierTable | None,
    counts: RowCounts,
    overlay: HumanOverlay | None,
    decided: Collection[bytes],
) -> Iterator[Row | int]:
    """Yield each image's row, or the number of its row in the earlier table; add those that are made to `counts`.

    `unasked` stands for responses that are not on record, `overlay` puts what people decided over the rows
    with `decided` fingerprints.
    """
    for image in evidence.iter_recorded():
        number = None if earlier is None else earlier.find(image)
        if number is not None:
            yield number
            continue
        item = image.item()
        fingerprint = item.info.fingerprint if item.info else b""
        requests = stage.requests(item)
        # What was never read has no responses: after an early signal, thousands of look-ups would delay the end.
        responses = evidence.responses(keys.keys(requests, fingerprint)) if fingerprint else [None] * len(requests)
        row = stage.row(item, [unasked if response is None else response for response in responses])
        if overlay is not None and fingerprint in decided:
            row = overlay.row(row, evidence.human.in_force(fingerprint))
        counts.add(row)
        yield row
    if earlier is not None:
        earlier.drop_rest()


class _EarlierTable:
    """The table that is being replaced, read in step with the images on record. Both are in source order.

    An image that moved within the source is not found, and its row is made anew.
    """

    def __init__(self, table: Table, evidence: Evidence, revision: int, counts: RowCounts) -> None:
        self.reader = RowReader(table)
        self.counts = counts  # of the table, less the rows that were dropped
        self._evidence = evidence
        self._revision = revision
        self._states = enumerate(_states(table))
        self._head = next(self._states, None)

    def __enter__(self) -> _EarlierTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()

    def find(self, image: RecordedImage) -> int | None:
        """Return the number of the image's row if it is still right."""
        while self._head and self._head[1][0] != image.id and not self._evidence.has_image(self._head[1][0]):
            self._drop()
        if self._head is None or self._head[1][0] != image.id:
            return None
        number, (_, status) = self._head
        if image.revision > self._revision or not (image.failed or status == Status.OK):
            self._drop()
            return None
        self._head = next(self._states, None)
        return number

    def drop_rest(self) -> None:
        """Drop the rows that were not reached."""
        while self._head:
            self._drop()

    def _drop(self) -> None:
        if self._head is not None:
            self.counts.add(self.reader.row(self._head[0]), times=-1)
            self._head = next(self._states, None)


def _states(table: Table) -> Iterator[tuple[str, str]]:
    for batch in table.batches(_IDS_PER_BATCH, ["image_id", "status"]):
        yield from zip(batch["image_id"].to_pylist(), batch["status"].to_pylist(), strict=True)
