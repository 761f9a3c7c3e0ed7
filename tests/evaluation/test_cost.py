"""Money by hand: GPU-hours and tokens at given prices, and what people cost for the same question."""

from __future__ import annotations

from typing import Any

import pytest

from tagllm_cli.evaluation.cost import Cost, HumanCost, Prices, per_1000
from tagllm_cli.store.run_records import RunRecord


def run(report: dict[str, Any], ended: float | None = 2.0, **more: Any) -> RunRecord:
    return RunRecord(1, "candidates", "1.0", 1.0, ended, "vllm 0.32.0", report, **more)


REPORT = {
    "asked": {"images": 10, "requests": 140, "failed_requests": 3},
    "tokens": {"prompt": 2_000_000, "cached": 1_500_000, "output": 100_000},
    "seconds": 7200.0,
    "seconds_asking": 7000.0,
}


def test_a_run_costs_its_gpu_hours_and_its_tokens() -> None:
    cost = Cost.of(run(REPORT))
    assert (cost.requests, cost.failed_requests, cost.seconds, cost.cached_share) == (140, 3, 7200.0, 0.75)
    assert Prices(gpu_hour=2.5).of(cost) == 5.0
    assert Prices(million_in=0.25, million_out=3.0).of(cost) == pytest.approx(0.5 + 0.3)
    assert Prices(2.5, 0.25, 3.0).of(cost) == pytest.approx(5.8)
    assert Prices().of(cost) is None
    assert Prices(gpu_hour=0.0).of(cost) == 0.0


def test_the_gpus_of_a_run_are_those_of_its_record_else_one() -> None:
    eight, unsaid = Cost.of(run({**REPORT, "gpus": 8})), Cost.of(run(REPORT))
    assert (Prices(gpu_hour=2.5).of(eight), eight.without_gpus) == (40.0, 0)
    assert (Prices(gpu_hour=2.5).of(unsaid), unsaid.without_gpus) == (5.0, 1)


def test_a_run_without_a_report_costs_its_answers_and_no_known_seconds() -> None:
    killed = Cost.of(run({}, ended=None, answers=(50, 5000, 4000, 250, 2)))
    assert (killed.requests, killed.prompt_tokens, killed.cached_tokens, killed.output_tokens) == (50, 5000, 4000, 250)
    assert (killed.failed_requests, killed.without_end, killed.without_seconds) == (2, 1, 1)
    nothing = Cost.of(run({}, ended=None))
    assert (nothing.requests, nothing.without_seconds) == (0, 0)


def test_several_runs_add_up() -> None:
    both = Cost.of(run(REPORT)).plus(Cost.of(run({**REPORT, "gpus": 2}, ended=None)))
    assert (both.requests, both.gpu_seconds, both.without_end, both.without_gpus) == (280, 21_600.0, 1, 1)
    assert both.cached_share == 0.75
    assert Cost().cached_share is None


def test_people_look_at_an_image_once_for_each_twenty_labels() -> None:
    assert [HumanCost(labels).units_per_image for labels in (1, 20, 21, 80, 365)] == [1, 1, 2, 4, 19]
    assert HumanCost(80, price=25.0).per_1000_images == 100.0


def test_the_ratio_is_of_1000_images() -> None:
    assert per_1000(0.7, 5000) == pytest.approx(0.14)
    assert HumanCost(80).ratio(0.14) == pytest.approx(1 / 1000)
    assert per_1000(0.7, 0) is None
    assert per_1000(None, 10) is None
    for price, ours in ((35.0, None), (35.0, 0.0), (0.0, 1.0)):
        assert HumanCost(80, price).ratio(ours) is None
