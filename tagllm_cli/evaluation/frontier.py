"""Quality against cost: what each stage of a table took, and which tables no other one beats in both.

Costs are those of the runs on record (`cost.py`), the start of the model included, for 1,000 labeled images. A label
table costs what its candidates cost, too. A table is on the frontier of a figure where no other is at least as good at
no more cost, and better or cheaper (Pareto). Cost is money where there are prices, else GPU-seconds; a machine without
a GPU counts by the clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from tagllm_cli.errors import TableError
from tagllm_cli.evaluation.cost import Cost, Prices, per_1000
from tagllm_cli.evaluation.sections import Cells, rounded, shown
from tagllm_cli.records import Status
from tagllm_cli.store.evidence_snapshot import read_evidence
from tagllm_cli.store.merge.parts import evidence_of
from tagllm_cli.store.table import Table, open_table

FIGURES = {"of1": "OF1", "cf1": "CF1", "map": "mAP"}
_BATCH = 1 << 16


@dataclass(frozen=True, slots=True)
class StageCost:
    """What the runs of one stage took, and for how many labeled images."""

    stage: str
    cost: Cost
    images: int

    def per_1000(self, prices: Prices) -> dict[str, float | None]:
        """Return seconds, requests, tokens and money for 1,000 images; money is None without prices."""
        found = {
            "gpu_seconds": self.cost.gpu_seconds,
            "requests": self.cost.requests,
            "prompt_tokens": self.cost.prompt_tokens,
            "cached_tokens": self.cost.cached_tokens,
            "output_tokens": self.cost.output_tokens,
            "price": prices.of(self.cost),
        }
        return {name: per_1000(value, self.images) for name, value in found.items()}


@dataclass(frozen=True, slots=True)
class Strategy:
    """One table: its figures in [0, 1], and its stages; `missing` are stages of which no run is on record."""

    table: Path
    figures: Mapping[str, float | None]
    stages: tuple[StageCost, ...]
    missing: tuple[str, ...] = ()

    def per_1000(self, prices: Prices) -> dict[str, float | None]:
        """Return what 1,000 images take in all stages; None for what is not on record of each."""
        stages = [stage.per_1000(prices) for stage in self.stages]
        names = StageCost("", Cost(), 1).per_1000(prices)
        return {
            name: None
            if self.missing or any(each[name] is None for each in stages)
            else sum(each[name] or 0.0 for each in stages)
            for name in names
        }


@dataclass(frozen=True, slots=True)
class Frontier:
    """Tables with their quality and cost."""

    strategies: tuple[Strategy, ...]
    prices: Prices

    @property
    def unit(self) -> str:
        """What is weighed against quality: `price` or `gpu_seconds`."""
        return "price" if self.prices.are_known else "gpu_seconds"

    def best(self, figure: str) -> tuple[Path, ...]:
        """Return the tables on the frontier of a figure; a table without a known cost is not on it."""
        points = [
            (each.table, cost, value)
            for each in self.strategies
            if (cost := each.per_1000(self.prices)[self.unit]) is not None
            and (value := each.figures.get(figure)) is not None
        ]
        return tuple(
            table
            for table, cost, value in points
            if not any(
                other <= cost and better >= value and (other, better) != (cost, value) for _, other, better in points
            )
        )

    @property
    def notes(self) -> Sequence[str]:
        """What the costs hold."""
        return ["costs are those of the runs on record, the start of the model included"]

    @property
    def warnings(self) -> Sequence[str]:
        """What is not on record, a line for each table."""
        lines = [
            f"no run is on record for the {stage} of {each.table}: what it cost is not known"
            for each in self.strategies
            for stage in each.missing
        ]
        total = reduce(Cost.plus, (stage.cost for each in self.strategies for stage in each.stages), Cost())
        if total.without_seconds:
            lines.append(f"runs whose seconds are not known count as 0 s: {total.without_seconds:,}")
        return lines

    def tables(self) -> Sequence[tuple[str, Cells]]:
        """Return the cost of each stage, and quality beside cost with the tables on the frontier."""
        return [self._costs(), self._quality()]

    def _costs(self) -> tuple[str, Cells]:
        rows = []
        for each in self.strategies:
            for stage in each.stages:
                found = stage.per_1000(self.prices)
                rows.append((each.table.name, stage.stage, f"{stage.images:,}", *map(_amount, found.values())))
        columns = ("table", "stage", "images", "GPU s", "requests", "prompt", "cached", "output", "price")
        return "cost of each stage for 1,000 images", _without_price((columns, rows), self.prices)

    def _quality(self) -> tuple[str, Cells]:
        best = {figure: self.best(figure) for figure in FIGURES}
        rows = []
        for each in self.strategies:
            costs = each.per_1000(self.prices)
            marks = [name for figure, name in FIGURES.items() if each.table in best[figure]]
            rows.append(
                (
                    each.table.name,
                    *(shown(each.figures.get(figure)) for figure in FIGURES),
                    *(_amount(costs[name]) for name in ("gpu_seconds", "prompt_tokens", "price")),
                    " ".join(marks) if len(self.strategies) > 1 else "",
                )
            )
        title = "quality against cost for 1,000 images"
        columns = ("table", *FIGURES.values(), "GPU s", "prompt", "price", "on the frontier of")
        return title, _without_price((columns, rows), self.prices)

    def to_json(self) -> Any:
        """Return plain JSON values: what a plot needs."""
        best = {figure: self.best(figure) for figure in FIGURES}
        return rounded(
            {
                "unit": self.unit,
                "prices": self.prices.to_json(),
                "tables": [
                    {
                        "table": str(each.table),
                        "figures": {figure: each.figures.get(figure) for figure in FIGURES},
                        "per_1000_images": each.per_1000(self.prices),
                        "stages": {
                            stage.stage: {"images": stage.images, "per_1000_images": stage.per_1000(self.prices)}
                            for stage in each.stages
                        },
                        "frontier": [figure for figure in FIGURES if each.table in best[figure]],
                        "missing": list(each.missing),
                    }
                    for each in self.strategies
                ],
            }
        )


def find_frontier(
    figures: Mapping[Path, Mapping[str, float | None]], prices: Prices, candidates: Path | None = None
) -> Frontier | None:
    """Return quality and cost of tables, each with its figures; None where no run of any is on record.

    `candidates` is the table that label tables were made from, where `tagllm run` has written none beside them. Raises
    TableError where it is no candidate table.
    """
    if candidates is not None and open_table(candidates).info.stage != "candidates":
        raise TableError(f"{candidates} is no candidate table", "Name what the label tables were made from.")
    found = tuple(_strategy(table, each, candidates) for table, each in figures.items())
    return Frontier(found, prices) if any(each.stages for each in found) else None


def candidates_of(table: Path, named: Path | None = None) -> Path:
    """Return the candidate table that `tagllm run` writes beside a label table; without one, the `named` one.

    >>> str(candidates_of(Path("a/labels.parquet")))
    'a/labels.candidates.parquet'
    """
    beside = table.with_name(f"{table.name.removesuffix('.parquet')}.candidates.parquet")
    return beside if named is None or beside.exists() else named


def _strategy(path: Path, figures: Mapping[str, float | None], candidates: Path | None) -> Strategy:
    tables = {"candidates": path}
    if open_table(path).info.stage == "labels":
        tables = {"candidates": candidates_of(path, candidates), "labels": path}
    costs = {stage: _stage_cost(stage, table) for stage, table in tables.items()}
    known = tuple(cost for cost in costs.values() if cost is not None)
    return Strategy(path, figures, known, tuple(stage for stage, cost in costs.items() if cost is None))


def _stage_cost(stage: str, path: Path) -> StageCost | None:
    """Return what the runs of a table took; None without any on record."""
    try:
        evidence = read_evidence(evidence_of(path))
        runs = evidence.runs if evidence else ()
        images = _labeled(open_table(path)) if runs else 0
    except TableError:
        return None
    return StageCost(stage, reduce(Cost.plus, map(Cost.of, runs), Cost()), images) if images else None


def _labeled(table: Table) -> int:
    answered = (Status.OK.value, Status.PARTIAL.value)
    return sum(
        batch["status"].to_pylist().count(status) for batch in table.batches(_BATCH, ["status"]) for status in answered
    )


def _amount(value: float | None) -> str:
    """Return a number with three digits that matter.

    >>> _amount(1234567.0), _amount(0.01234), _amount(None)
    ('1,234,567', '0.0123', '-')
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _without_price(cells: Cells, prices: Prices) -> Cells:
    """Return a table without its column of prices where there are none."""
    columns, rows = cells
    if prices.are_known:
        return cells
    kept = [number for number, name in enumerate(columns) if name != "price"]
    return [columns[number] for number in kept], [[row[number] for number in kept] for row in rows]
