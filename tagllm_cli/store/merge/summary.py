"""Summary of a merge: `to_json` for programs, `lines` for people."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tagllm_cli.records import Status
from tagllm_cli.store.merge.evidence import Added
from tagllm_cli.store.table import label_table_of


@dataclass(slots=True)
class MergeSummary:
    """What a merge has done. `rows` counts the table's rows by status, `unchanged` parts that were merged before."""

    out: Path
    parts: int
    unchanged: int
    stage: str
    rows: Counter[str]
    added: Added
    seconds: float
    warnings: list[str] = field(default_factory=list)

    @property
    def next_command(self) -> str:
        """The command that goes on from the table."""
        if self.stage != "candidates":
            return shlex.join(["tagllm", "evaluate", str(self.out), "--truth", "TRUTH"])
        return shlex.join(["tagllm", "disambiguate", str(self.out), "--out", str(label_table_of(self.out))])

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        added = asdict(self.added)
        del added["touched_shards"]
        return {
            "command": "merge",
            "table": str(self.out),
            "rows": {status.value: self.rows[status] for status in Status},
            "parts": self.parts,
            "unchanged": self.unchanged,
            "added": added,
            "seconds": round(self.seconds, 3),
            "next": self.next_command,
            "warnings": self.warnings,
        }

    def lines(self) -> list[str]:
        """Return rows by status, what came from the parts, what was paid for, and what to run next: four lines."""
        added = self.added
        others = [f"{self.rows[each]:,} {each.value}" for each in Status if each is not Status.OK and self.rows[each]]
        state = ", ".join([f"{self.rows[Status.OK]:,} ok", *others])
        tables = "1 table" if self.parts == 1 else f"{self.parts:,} tables"
        unchanged = f", {self.unchanged:,} of them merged before" if self.unchanged else ""
        replaced = f", {added.replaced:,} brought up to date" if added.replaced else ""
        failed = f", {added.failed_requests:,} failed requests" if added.failed_requests else ""
        decided = f", {added.decisions:,} decisions of people" if added.decisions else ""
        return [
            f"{self.out}: {self.rows.total():,} images ({state})",
            f"{tables}{unchanged}: {added.images:,} images added{replaced}",
            f"{added.responses:,} responses taken over{failed}{decided} ({self.seconds:.1f} s)",
            f"next: {self.next_command}",
        ]
