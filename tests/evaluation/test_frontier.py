"""Quality against cost: what no other table beats in both, and what the runs on record say of each stage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tagllm_cli.errors import TableError
from tagllm_cli.evaluation.cost import Cost, Prices
from tagllm_cli.evaluation.frontier import Frontier, StageCost, Strategy, find_frontier
from tests.evaluation.test_noise import RECORDED

RELEASE = Path("tests/data/release_0_1")
NO_PRICE = Prices()


def strategy(name: str, of1: float | None, seconds: float | None, **more: float) -> Strategy:
    """A table whose only stage took so many seconds for 1,000 images."""
    stages = () if seconds is None else (StageCost("candidates", Cost(gpu_seconds=seconds), 1000),)
    return Strategy(Path(name), {"of1": of1, **more}, stages, () if stages else ("candidates",))


@pytest.mark.parametrize(
    ("points", "best"),
    [
        ({"a": (0.9, 10.0), "b": (0.8, 20.0), "c": (0.95, 30.0)}, {"a", "c"}),
        ({"a": (0.9, 10.0), "b": (0.9, 20.0)}, {"a"}),  # as good and cheaper
        ({"a": (0.9, 10.0), "b": (0.8, 10.0)}, {"a"}),  # as cheap and better
        ({"a": (0.9, 10.0), "b": (0.9, 10.0)}, {"a", "b"}),
        ({"a": (0.9, 10.0), "b": (0.99, None)}, {"a"}),  # what it cost is not known
        ({"a": (0.9, 10.0), "b": (None, 1.0)}, {"a"}),
        ({"a": (0.5, 0.0)}, {"a"}),
    ],
)
def test_on_the_frontier_is_what_no_other_table_beats_in_both(
    points: dict[str, tuple[float | None, float | None]], best: set[str]
) -> None:
    found = Frontier(tuple(strategy(name, *point) for name, point in points.items()), NO_PRICE)
    assert {path.name for path in found.best("of1")} == best


def test_each_figure_has_a_frontier_of_its_own() -> None:
    found = Frontier((strategy("a", 0.9, 10, map=0.5), strategy("b", 0.8, 20, map=0.6)), NO_PRICE)
    assert [found.best(figure) for figure in ("of1", "map", "cf1")] == [(Path("a"),), (Path("a"), Path("b")), ()]
    assert [row[-1] for row in found.tables()[1][1][1]] == ["OF1 mAP", "mAP"]


def test_prices_decide_what_counts_as_cheap() -> None:
    long = Strategy(Path("long"), {"of1": 0.9}, (StageCost("candidates", Cost(gpu_seconds=3600), 1000),))
    wordy = Strategy(Path("wordy"), {"of1": 0.9}, (StageCost("candidates", Cost(prompt_tokens=9_000_000), 1000),))
    assert Frontier((long, wordy), NO_PRICE).best("of1") == (Path("wordy"),)
    priced = Frontier((long, wordy), Prices(gpu_hour=2.0, million_in=1.0))
    assert priced.best("of1") == (Path("long"),)
    assert [each.per_1000(priced.prices)["price"] for each in priced.strategies] == [2.0, 9.0]


def test_stages_of_different_size_add_up_for_1000_images() -> None:
    both = Strategy(
        Path("l"),
        {"of1": 0.9},
        (
            StageCost("candidates", Cost(gpu_seconds=50, requests=100), 50),
            StageCost("labels", Cost(gpu_seconds=10, requests=7), 20),
        ),
    )
    found = both.per_1000(NO_PRICE)
    assert (found["gpu_seconds"], found["requests"], found["price"]) == (1500.0, 2350.0, None)


def test_costs_of_a_label_table_hold_those_of_its_candidates() -> None:
    table, candidates = RELEASE / "l.parquet", RELEASE / "c.parquet"
    alone, both = (find_frontier({table: {"of1": 0.8}}, NO_PRICE, each) for each in (None, candidates))
    assert alone is not None
    assert both is not None
    assert [stage.stage for stage in both.strategies[0].stages] == ["candidates", "labels"]
    assert alone.best("of1") == ()
    missing = "no run is on record for the candidates of tests/data/release_0_1/l.parquet: what it cost is not known"
    assert missing in alone.warnings
    asked = [sum(int(run.cost.requests) for run in each.strategies[0].stages) for each in (alone, both)]
    assert 0 < asked[0] < asked[1]
    assert not [line for line in both.warnings if "no run is on record" in line]
    value = both.to_json()
    assert json.loads(json.dumps(value)) == value
    assert value["tables"][0]["stages"].keys() == {"candidates", "labels"}
    assert value["tables"][0]["frontier"] == ["of1"]


def test_the_candidates_that_a_run_leaves_beside_its_labels_are_found(tmp_path: Path) -> None:
    for old, new in {"l": "labels", "c": "labels.candidates"}.items():
        for ending in ("parquet", "evidence"):
            shutil.copy(RELEASE / f"{old}.{ending}", tmp_path / f"{new}.{ending}")
    found = find_frontier({tmp_path / "labels.parquet": {"of1": 0.8}}, NO_PRICE)
    assert found is not None
    assert [stage.stage for stage in found.strategies[0].stages] == ["candidates", "labels"]


def test_without_any_run_on_record_there_is_no_cost() -> None:
    assert find_frontier({RECORDED: {"of1": 0.9}}, Prices(gpu_hour=1.0)) is None


def test_a_label_table_is_nobodys_candidates() -> None:
    with pytest.raises(TableError, match=r"l\.parquet is no candidate table"):
        find_frontier({RECORDED: {}}, NO_PRICE, RELEASE / "l.parquet")
