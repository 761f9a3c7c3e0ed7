"""What a table is, how it was made and what it cost: its Parquet file and its evidence, or what there is of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

from tagllm_cli.errors import TableError
from tagllm_cli.evaluation.cost import Cost, HumanCost, Prices, per_1000
from tagllm_cli.evaluation.label_counts import TableCounts, count_table
from tagllm_cli.records import SourceInfo, Status
from tagllm_cli.store.damage import damage_as_table_error
from tagllm_cli.store.evidence_snapshot import EvidenceSnapshot, is_being_written, read_evidence
from tagllm_cli.store.merge.parts import evidence_of
from tagllm_cli.store.run_records import RunRecord
from tagllm_cli.store.table import TableInfo, open_table
from tagllm_cli.vocabulary.serialize import vocabulary_from_json

_THRESHOLDS = ("min_votes", "threshold", "min_mass", "thresholds", "label_thresholds")
_ENDS = {
    "InterruptedRunError": "interrupted",
    "TooManyFailedError": "failures",
    "StoppedRunError": "stopped",
}


@dataclass(frozen=True)
class TableReport:
    """One table. `counts` is None before its first run has written it, `evidence` where it lies there alone.

    `warning` says why the evidence cannot be read.
    """

    path: Path
    info: TableInfo
    counts: TableCounts | None
    evidence: EvidenceSnapshot | None
    warning: str | None = None

    @property
    def stage(self) -> str:
        """`candidates` or `labels`."""
        return self.info.stage

    @property
    def runs(self) -> Sequence[RunRecord]:
        """All runs on record."""
        return self.evidence.runs if self.evidence else ()

    @cached_property
    def cost(self) -> Cost:
        """What all runs took."""
        return reduce(Cost.plus, map(Cost.of, self.runs), Cost())

    @property
    def images(self) -> int:
        """The images that were labeled for it; a run under way has done more than the table shows."""
        by_now = self.evidence.completed if self.evidence else None
        return max(by_now or 0, self.counts.labeled if self.counts else 0)

    def ended(self, run: RunRecord) -> str:
        """Return how a run ended, in a word; `killed`: its process ended without another word."""
        if run.ended is not None:
            error = run.report.get("error")
            return _ENDS.get(error["kind"], "failed") if error else "done"
        is_last = run.started == max(each.started for each in self.runs)
        return "under way" if is_last and self.evidence and self.evidence.is_being_written else "killed"

    def to_json(self, prices: Prices) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        counts, evidence, plan = self.counts, self.evidence, self.info.plan
        return {
            "table": str(self.path),
            "stage": self.stage,
            "rows": None if counts is None else {status.value: counts.rows[status] for status in Status},
            "labels": None if counts is None else self._labels(counts),
            "plan": {
                "strategy": plan.get("strategy"),
                "arms": {arm: [list(names) for _, names in groups] for arm, groups in plan.get("arms", {}).items()},
                "group_size": plan.get("group_size"),
                "model": plan.get("model"),
                "max_pixels": plan.get("max_pixels"),
                "prompts": sorted(plan.get("templates", {})),
                "thresholds": {key: plan[key] for key in _THRESHOLDS if key in plan},
                "cards": plan.get("cards"),
            },
            "vocabulary": {"name": self.info.vocabulary.name, "labels": len(self.info.vocabulary.labels)},
            "source": asdict(self.info.source),
            "evidence": None
            if evidence is None
            else {
                "path": str(evidence.path),
                "bytes": evidence.bytes,
                "images": evidence.images,
                "part": evidence.meta.get("part"),
                "unread_shards": evidence.meta.get("unread") or 0,
                "merged_tables": evidence.merged_tables,
                "is_being_written": evidence.is_being_written,
            },
            "people": None
            if evidence is None or evidence.people is None
            else evidence.people.to_json(self.info.vocabulary.names),
            "runs": [self._run(run, prices) for run in self.runs],
            "images": self.images,
            "cost": _cost(self.cost, self.images, prices),
            "warning": self.warning,
        }

    def _labels(self, counts: TableCounts) -> dict[str, Any]:
        ordered = {name: counts.labels[name] for name in self.info.vocabulary.names}
        return {
            "count": counts.labels.total(),
            "per_image": round(counts.labels.total() / max(1, counts.labeled), 3),
            "no": counts.no,
            "unknown": counts.unknown,
            "human": counts.human,
            "unmatched": counts.unmatched,
            "by_label": {**ordered, **counts.labels},
        }

    def _run(self, run: RunRecord, prices: Prices) -> dict[str, Any]:
        cost = Cost.of(run)
        return {
            "id": run.id,
            "command": run.command,
            "table": run.report.get("table"),
            "version": run.version,
            "engine": run.engine,
            "started": _time(run.started),
            "ended": None if run.ended is None else _time(run.ended),
            "end": self.ended(run),
            "error": run.report.get("error"),
            "gpus": run.report.get("gpus"),
            **cost.to_json(),
            "price": _rounded(prices.of(cost)),
        }


@dataclass(frozen=True)
class InfoReport:
    """Several tables of one dataset: `together` is what an image costs in all stages that they cover."""

    tables: Sequence[TableReport]
    prices: Prices
    human_price: float

    @property
    def human(self) -> HumanCost:
        """What people would cost for the largest vocabulary."""
        return HumanCost(max(len(table.info.vocabulary.labels) for table in self.tables), self.human_price)

    @cached_property
    def stages(self) -> dict[str, tuple[Cost, int]]:
        """What each stage took, and for how many images: tables of one stage are parts of it."""
        found: dict[str, tuple[Cost, int]] = {}
        for table in self.tables:
            cost, images = found.get(table.stage, (Cost(), 0))
            found[table.stage] = (cost.plus(table.cost), images + table.images)
        return found

    @property
    def together(self) -> Cost:
        """What all stages took."""
        return reduce(Cost.plus, (cost for cost, _ in self.stages.values()), Cost())

    @property
    def per_1000_images(self) -> float | None:
        """The price of 1,000 images in all stages; None where it is not known of each."""
        found = [per_1000(self.prices.of(cost), images) for cost, images in self.stages.values()]
        return None if None in found else sum(price for price in found if price is not None)

    @property
    def ratio(self) -> float | None:
        """The price of 1,000 images as a share of the human one."""
        return self.human.ratio(self.per_1000_images)

    @property
    def warnings(self) -> list[str]:
        """What is missing from the report, a sentence each."""
        return [table.warning for table in self.tables if table.warning]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        ratio = self.ratio
        return {
            "tables": [table.to_json(self.prices) for table in self.tables],
            "prices": self.prices.to_json(),
            "stages": {name: _cost(cost, images, self.prices) for name, (cost, images) in self.stages.items()},
            "together": {
                **self.together.to_json(),
                "price": _rounded(self.prices.of(self.together)),
                "per_1000_images": _rounded(self.per_1000_images),
            },
            "human": self.human.to_json(),
            "ratio": None if ratio is None else float(f"{ratio:.4g}"),
        }


def report_tables(paths: Sequence[Path], prices: Prices, human_price: float) -> InfoReport:
    """Return what is known about tables on disk, each named once. Raises TableError where one cannot be read."""
    return InfoReport([report_table(path) for path in dict.fromkeys(paths)], prices, human_price)


def report_table(path: Path) -> TableReport:
    """Return what is known about a table on disk, from its evidence alone where a first run is still under way.

    Raises:
        TableError: it is no table, or damaged, or there is neither a table nor evidence.
    """
    evidence, warning = None, None
    table = open_table(path) if path.exists() else None
    try:
        evidence = read_evidence(evidence_of(path), progress=table is None)
    except TableError as error:
        if table is None:
            raise _not_yet(path) or error from error
        warning = f"{error.message}: what follows is from the table alone"
    if table is not None:
        if evidence is None and warning is None:
            warning = f"there is no evidence beside {path}: what runs asked and cost is not known"
        return TableReport(path, table.info, count_table(table), evidence, warning)
    if evidence is None or "plan" not in evidence.meta:
        raise _not_yet(path) or TableError(f"there is no table at {path}", "Write it first, with `tagllm run`.")
    with damage_as_table_error(evidence.path):
        plan = evidence.meta["plan"]
        source = SourceInfo(**(evidence.meta.get("source") or {"kind": "folder", "uri": ""}))
        info = TableInfo(plan["stage"], source, vocabulary_from_json(plan["vocabulary"]), plan)
    return TableReport(path, info, None, evidence)


def _not_yet(path: Path) -> TableError | None:
    """Return the error for a table whose first run has just begun; None where none is under way."""
    if not is_being_written(evidence_of(path)):
        return None
    return TableError(f"the first run of {path} has recorded nothing yet", "Try again in a moment.")


def _cost(cost: Cost, images: int, prices: Prices) -> dict[str, Any]:
    money = prices.of(cost)
    return {
        **cost.to_json(),
        "images": images,
        "price": _rounded(money),
        "per_1000_images": _rounded(per_1000(money, images)),
    }


def _rounded(money: float | None) -> float | None:
    return None if money is None else float(f"{money:.6g}")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
