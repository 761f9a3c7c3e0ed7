"""What a table holds, in numbers: kept with the state of the table, so that no run counts its rows again."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from tagllm_cli.records import Decision, Row, Status


@dataclass(slots=True)
class RowCounts:
    """Rows by status, and labels: `labels` are candidates, or decisions `yes`; `unknown` are decisions `unknown`."""

    ok: int = 0
    partial: int = 0
    failed: int = 0
    pending: int = 0
    labels: int = 0
    unknown: int = 0
    unmatched: int = 0

    @property
    def total(self) -> int:
        """All rows."""
        return self.ok + self.partial + self.failed + self.pending

    def add(self, row: Row, times: int = 1) -> None:
        """Count one row; `times` -1 takes it out again."""
        setattr(self, row.status.value, getattr(self, row.status.value) + times)
        for entry in row.labels or ():
            self.labels += times * (entry.decision in (None, Decision.YES))
            self.unknown += times * (entry.decision is Decision.UNKNOWN)
        self.unmatched += times * len(row.unmatched or ())

    def __str__(self) -> str:
        """Return the rows by status, those `ok` in any case.

        >>> str(RowCounts(ok=1200, failed=3))
        '1,200 ok, 3 failed'
        """
        counts = ((status, getattr(self, status.value)) for status in Status)
        return ", ".join(f"{count:,} {status.value}" for status, count in counts if count or status is Status.OK)

    def to_json(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)
