"""The circuit breaker opens when nearly all recent requests failed alike, early and late in a run, and not before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagllm_cli.errors import StoppedRunError
from tagllm_cli.pipeline.label.circuit_breaker import (
    LEAST_IMAGES,
    LEAST_REQUESTS,
    MOST_PER_IMAGE,
    WINDOW,
    CircuitBreaker,
)
from tagllm_cli.records import DecodedImage, Failure, Request
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import Workspace

EACH = 4
REFUSED = Failure("rejected", "the model does not take images")


def feed(breaker: CircuitBreaker, first: int, images: int, failure: Failure | None, each: int = EACH) -> str | None:
    """Add `each` requests about each of so many images, until the breaker opens."""
    for image in range(first, first + images):
        for _ in range(each):
            breaker.add(image.to_bytes(4, "big"), failure)
            if reason := breaker.verdict():
                return reason
    return None


def test_it_opens_after_a_few_dozen_requests_that_all_fail() -> None:
    breaker = CircuitBreaker()
    assert feed(breaker, 0, 7, REFUSED) is None
    reason = feed(breaker, 7, 10, REFUSED)
    assert reason == "30 of the last 30 requests failed, most often with: rejected: the model does not take images"


def test_a_server_that_begins_to_refuse_late_is_noticed() -> None:
    breaker = CircuitBreaker()
    assert feed(breaker, 0, 1000, None) is None
    reason = feed(breaker, 1000, WINDOW // EACH, REFUSED)
    assert reason is not None
    assert reason.startswith(f"190 of the last {WINDOW} requests failed, most often with: rejected: ")


def test_one_image_in_ten_that_is_answered_keeps_it_closed() -> None:
    breaker = CircuitBreaker()
    for image in range(200):
        assert feed(breaker, image, 1, None if image % 10 == 0 else REFUSED) is None


def test_failures_of_several_kinds_count_together() -> None:
    breaker = CircuitBreaker()
    for image in range(LEAST_REQUESTS):
        breaker.add(bytes([image]), Failure(("rejected", "timeout")[image % 2], "no"))
    assert str(breaker.verdict()).startswith(f"{LEAST_REQUESTS} of the last {LEAST_REQUESTS} requests failed")


def test_one_image_with_many_requests_does_not_open_it() -> None:
    breaker = CircuitBreaker()
    assert feed(breaker, 0, LEAST_IMAGES - 1, REFUSED, each=1000) is None
    assert feed(breaker, LEAST_IMAGES, 1, REFUSED, each=1) is not None
    assert MOST_PER_IMAGE * LEAST_IMAGES <= WINDOW


def test_where_the_run_has_few_images_all_of_them_are_enough() -> None:
    breaker = CircuitBreaker()
    breaker.expect(2)
    assert feed(breaker, 0, 1, REFUSED, each=100) is None
    assert feed(breaker, 1, 1, REFUSED, each=100) is not None


def test_images_that_are_too_long_for_the_model_say_nothing_about_the_server() -> None:
    breaker = CircuitBreaker()
    assert feed(breaker, 0, 1000, Failure("too_long", "maximum context length")) is None
    assert feed(breaker, 1000, 100, None) is None


def test_the_most_frequent_message_is_the_one_told() -> None:
    breaker = CircuitBreaker()
    for image in range(LEAST_REQUESTS):
        breaker.add(bytes([image]), Failure("rejected", "rare" if image % 3 == 0 else "frequent"))
    assert str(breaker.verdict()).endswith("most often with: rejected: frequent")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path, 100)
    workspace.engine = RuleEngine(fault=lambda image, request: REFUSED, capacity=8)
    return workspace


def test_a_run_whose_requests_all_fail_ends_early_with_the_reason(workspace: Workspace) -> None:
    summary = workspace.candidates()
    assert isinstance(summary.error, StoppedRunError)
    assert summary.error.exit_code == 3
    assert summary.error.message.endswith("most often with: rejected: the model does not take images")
    assert "--no-preflight" in summary.error.hint
    assert summary.stats.asked == len(workspace.engine.asked) < 100
    assert any("requests failed (rejected), for example: the model does not" in line for line in summary.lines())
    assert summary.rows.total == 100
    assert summary.rows.pending + summary.rows.failed == 100
    assert workspace.engine.closed == 1


def test_a_run_may_be_told_to_go_on_all_the_same(workspace: Workspace) -> None:
    summary = workspace.candidates(preflight=False)
    assert (summary.stats.asked, summary.rows.failed) == (100 * EACH, 100)


def test_a_server_that_refuses_from_some_image_on_ends_the_run(workspace: Workspace) -> None:
    def fault(image: DecodedImage | None, request: Request) -> Failure | None:
        return REFUSED if len(workspace.engine.asked) > 160 else None

    workspace.engine.fault = fault
    summary = workspace.candidates()
    assert isinstance(summary.error, StoppedRunError)
    assert 0 < summary.rows.ok <= 40
    assert summary.rows.pending > 0
    workspace.engine = RuleEngine()
    assert (workspace.candidates().stats.asked, workspace.rows()["099.png"].status) == (100 * EACH - 160, "ok")
