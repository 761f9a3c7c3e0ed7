"""Gates: least values of metrics, and the least overlap of truth and table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.gates import check_gates, check_overlap, need_intervals, parse_gates
from tagllm_cli.evaluation.metrics.bootstrap import Interval
from tests.evaluation.problem import evaluated


def test_gates_are_missed_below_their_value_only() -> None:
    found = evaluated()
    assert check_gates(found, [f"of1={found.of1!r}", "map=0"]) == []
    missed = check_gates(found, ["cp=0", " OF1 = 1.0", "or=0.999"])
    assert [(gate.metric, gate.least, gate.value) for gate in missed] == [
        ("of1", 1.0, found.of1),
        ("or", 0.999, found.or_),
    ]
    assert str(missed[0]) == f"of1 is {found.of1:.4f}, below 1"


@pytest.mark.parametrize("spec", ["f1=0.9", "of1", "of1=", "of1=high", "of1=90", "of1=-0.1", "of1=nan", "=0.5", ""])
def test_gates_that_are_none_are_usage_errors(spec: str) -> None:
    with pytest.raises(UsageError):
        parse_gates([spec])


def test_gates_on_what_wrong_predictions_lower_are_missed_where_nothing_is_judged_absent() -> None:
    found = replace(evaluated(), negatives=0, unjudged=5)
    missed = check_gates(found, ["op=0", "or=0", "of1=0", "cp=0", "cr=0", "cf1=0", "map=0", "exact_match=0"])
    assert [gate.metric for gate in missed] == ["op", "of1", "cp", "cf1", "map", "exact_match"]
    assert str(missed[0]) == "op cannot be measured: the truth judges no label absent"
    assert check_gates(replace(found, unjudged=0), ["op=0"]) == []  # everything is present, and judged


@pytest.mark.parametrize(("found", "images", "passes"), [(9, 10, True), (10, 10, True), (8, 10, False), (0, 0, False)])
def test_the_overlap_is_a_gate(found: int, images: int, passes: bool) -> None:
    missed = check_overlap(found, images, 0.9)
    assert bool(missed) != passes
    assert check_overlap(found, images, 0) == []
    assert all(f"only {found} of {images} images of the truth" in str(gate) for gate in missed)


def test_a_gate_on_the_lower_end_of_an_interval_is_missed_where_the_figure_itself_would_pass() -> None:
    found = evaluated()
    intervals = {"of1": Interval(found.of1 - 0.1, found.of1 + 0.1)}
    assert need_intervals(["of1=0.9"]) is False
    assert need_intervals(["map=0.9", " OF1.LOW = 0.9"]) is True
    assert check_gates(found, [f"of1={found.of1!r}", f"of1.low={found.of1 - 0.1!r}"], intervals) == []
    (missed,) = check_gates(found, [f"of1.low={found.of1!r}"], intervals)
    assert (missed.metric, missed.value) == ("of1.low", found.of1 - 0.1)
    with pytest.raises(UsageError, match=r"of1\.high"):
        parse_gates(["of1.high=0.9"])
