"""Summaries of labeling runs and of dry runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tagllm_cli.engines.base import Usage
from tagllm_cli.errors import InterruptedRunError, StoppedRunError
from tagllm_cli.labeling.row_counts import RowCounts
from tagllm_cli.pipeline.label.stats import RunStats
from tagllm_cli.pipeline.label.summary import Summary
from tagllm_cli.records import Decision, Failure, LabelEntry, Row, Status
from tagllm_cli.store.listing import SourceChanges
from tests.support.workspace import LABELS, Workspace, snapshot

EACH = 4
IMAGES = 12


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, IMAGES)


def row(status: Status, labels: tuple[LabelEntry, ...] | None = None, unmatched: tuple[str, ...] | None = None) -> Row:
    return Row("a", "a", b"f", 1, 1, status, None, labels, unmatched)


def counts() -> RowCounts:
    """Two images that are ok, one that is partial, one pending."""
    found = RowCounts()
    decided = tuple(LabelEntry("x", decision) for decision in (None, Decision.YES, Decision.NO, Decision.UNKNOWN))
    for each in (
        row(Status.OK, decided, ("unicorn",)),
        row(Status.OK, ()),
        row(Status.PARTIAL, ()),
        row(Status.PENDING),
    ):
        found.add(each)
    return found


CHANGES = SourceChanges(total=4, new=1, changed=0, gone=0, known=3)


def summary(
    stats: RunStats,
    usage: Usage = Usage(),  # noqa: B008 (frozen)
    error: InterruptedRunError | None = None,
    rows: RowCounts | None = None,
) -> Summary:
    return Summary(
        "candidates",
        Path("c.parquet"),
        rows or counts(),
        stats,
        usage,
        CHANGES,
        1.25,
        "tagllm next",
        error,
    )


def test_rows_are_counted_by_what_they_say() -> None:
    assert counts() == RowCounts(ok=2, partial=1, failed=0, pending=1, labels=2, unknown=1, unmatched=1)
    assert counts().total == 4


def test_four_lines_for_people() -> None:
    stats = RunStats(images=3, asked=12, failed_requests=1, engine="vllm 0.32.0")
    assert summary(stats, Usage(1200, 900, 60, 12)).lines() == [
        "c.parquet: 4 images (2 ok, 1 partial, 1 pending)",
        "2 candidates, 0.67 per image, 1 unknown, 1 answers outside the vocabulary",
        "12 requests about 3 images, 1 failed, 1,200 prompt tokens (75% from the cache), 1.2 s, vllm 0.32.0",
        "next: tagllm next",
    ]


def test_a_run_without_requests_says_why() -> None:
    done = RowCounts(ok=4)
    assert summary(RunStats(), rows=done).lines()[2] == "nothing to ask: every answer was on record (1.2 s)"
    looked = summary(RunStats(images=5, opened=5, failed_images=2), rows=done).lines()[2]
    assert looked == "nothing to ask: every answer was on record; 5 images opened, 2 failed (1.2 s)"
    assert summary(RunStats()).lines()[2] == "nothing was asked (1.2 s)"  # an image is pending: a limit, say
    assert summary(RunStats(interrupted=True)).lines()[2] == "interrupted before the first answer"


def failing() -> RunStats:
    stats = RunStats(images=400, asked=1600, failed_requests=90, failed_images=4)
    kinds = {"rejected": 60, "timeout": 20, "truncated": 10}
    for kind, count in kinds.items():
        for number in range(count):
            stats.failures.add("requests", Failure(kind, f"{kind} number {number}\n{'x' * 500}"))
    for _ in range(4):
        stats.failures.add("images", Failure("not_an_image", "text"))
    return stats


def test_the_most_frequent_reasons_of_failures_are_told_with_an_example() -> None:
    *_, first, second, third, next_line = summary(failing()).lines()
    assert first.startswith("  60 requests failed (rejected), for example: rejected number 0 xxx")
    assert len(first) < 270
    assert second.startswith("  20 requests failed (timeout), for example: ")
    assert third.startswith("  10 requests failed (truncated), for example: ")
    assert next_line == "next: tagllm next"
    told = summary(failing()).to_json()["failures"]
    assert [(each["what"], each["kind"], each["count"]) for each in told][-1] == ("images", "not_an_image", 4)


def test_a_run_that_did_not_come_to_its_end_names_no_next_command() -> None:
    for stats in (RunStats(interrupted=True), RunStats(asked=1, error=StoppedRunError("refused"))):
        assert not any(line.startswith("next: ") for line in summary(stats).lines())


def test_the_counts_of_two_passes_are_added() -> None:
    both = replace(failing(), engine="vllm 1").plus(RunStats(images=2, asked=8, warning="odd"))
    assert (both.engine, both.plus(RunStats(engine="vllm 2")).engine) == ("vllm 1", "vllm 2")
    assert (both.images, both.asked, both.failed_requests, both.warning) == (402, 1608, 90, "odd")
    assert both.failures == failing().failures


def test_the_same_for_programs() -> None:
    error = InterruptedRunError("interrupted", "Go on.")
    value = summary(RunStats(images=3, asked=12, seconds=0.5), Usage(1200, 900, 60, 12), error).to_json()
    assert value["rows"]["pending"] == 1
    assert value["engine"] is None
    assert value["failures"] == []
    assert value["asked"] == {"images": 3, "opened": 0, "requests": 12, "failed_requests": 0}
    assert value["tokens"] == {"prompt": 1200, "cached": 900, "output": 60}
    assert (value["seconds"], value["seconds_asking"]) == (1.25, 0.5)
    assert value["error"] == {"kind": "InterruptedRunError", "message": "interrupted", "hint": "Go on."}


def test_the_engine_that_answered_is_named(workspace: Workspace) -> None:
    assert workspace.candidates().to_json()["engine"] == workspace.engine.version
    assert workspace.candidates().to_json()["engine"] is None  # every answer was on record


def test_a_dry_run_writes_nothing_and_says_what_the_run_then_asks(workspace: Workspace) -> None:
    def check(*, images: int, requests: int, known: int, reasons: dict[str, int]) -> None:
        before = snapshot(workspace.out.parents[1])
        report = workspace.dry_run()
        assert snapshot(workspace.out.parents[1]) == before
        found = report.pending
        assert (found.images, found.requests, found.known, dict(found.reasons)) == (images, requests, known, reasons)
        assert found.example is not None
        assert any("Categories: " in line for line in report.lines())
        summary = workspace.candidates()
        assert (summary.stats.images, summary.stats.asked) == (images, requests)

    new, other = "new, changed or not opened yet", "asked with other questions before"
    check(images=IMAGES, requests=IMAGES * EACH, known=0, reasons={new: IMAGES})
    check(images=0, requests=0, known=IMAGES * EACH, reasons={})
    workspace.write_vocabulary([*LABELS, "bowl"])
    workspace.paint(100, "new.png")
    reasons = {other: IMAGES, new: 1}
    check(images=IMAGES + 1, requests=2 * IMAGES + EACH, known=2 * IMAGES, reasons=reasons)
    (workspace.images / "broken.png").write_bytes(b"no picture")
    workspace.candidates()
    assert dict(workspace.dry_run().pending.reasons) == {"failed earlier and could not be looked at": 1}
