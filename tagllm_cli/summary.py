"""What a labelling command tells at its end: records for programs (`to_json`), lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tagllm_cli.engines import Counters
from tagllm_cli.errors import TagllmError
from tagllm_cli.evidence import Listing
from tagllm_cli.runner import Tally
from tagllm_cli.schema import Decision, Request, Row, Status


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

    def add(self, row: Row) -> None:
        """Count one row."""
        setattr(self, row.status.value, getattr(self, row.status.value) + 1)
        for entry in row.labels or ():
            self.labels += entry.decision in (None, Decision.YES)
            self.unknown += entry.decision is Decision.UNKNOWN
        self.unmatched += len(row.unmatched or ())

    def to_json(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished run. `error` is set when it ended with an exit code other than 0."""

    command: str
    out: Path
    rows: RowCounts
    tally: Tally
    counters: Counters
    listing: Listing
    seconds: float
    next_command: str
    error: TagllmError | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should look at, though the run did not stop for it."""
        return () if self.tally.warning is None else (f"the first answers look wrong: {self.tally.warning}",)

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        tally = self.tally
        asked = {
            "images": tally.images,
            "opened": tally.opened,
            "requests": tally.asked,
            "failed_requests": tally.failed_requests,
        }
        tokens = {
            "prompt": self.counters.prompt_tokens,
            "cached": self.counters.cached_tokens,
            "output": self.counters.output_tokens,
        }
        return {
            "command": self.command,
            "table": str(self.out),
            "rows": self.rows.to_json(),
            "source": asdict(self.listing),
            "asked": asked,
            "tokens": tokens,
            "seconds": round(self.seconds, 3),
            "next": self.next_command,
            "warning": self.tally.warning,
            "error": None if self.error is None else self.error.to_json(),
        }

    def lines(self) -> list[str]:
        """Return four lines for people: rows, labels, requests, and what to run next."""
        rows, tally = self.rows, self.tally
        others = [
            f"{count:,} {status.value}"
            for status in Status
            if status is not Status.OK and (count := getattr(rows, status.value))
        ]
        state = ", ".join([f"{rows.ok:,} ok", *others])
        labels = "candidates" if self.command == "candidates" else "labels"
        mean = rows.labels / max(1, rows.ok + rows.partial)
        unsure = f", {rows.unknown:,} unknown" if rows.unknown else ""
        strange = f", {rows.unmatched:,} answers outside the vocabulary" if rows.unmatched else ""
        return [
            f"{self.out}: {rows.total:,} images ({state})",
            f"{rows.labels:,} {labels}, {mean:.2f} per image{unsure}{strange}",
            self._requests(),
            f"next: {self.next_command}",
        ]

    def _requests(self) -> str:
        tally = self.tally
        if not tally.images:
            return f"nothing to ask: every answer was on record ({self.seconds:.1f} s)"
        cached = self.counters.cached_tokens / max(1, self.counters.prompt_tokens)
        failed = f", {tally.failed_requests:,} failed" if tally.failed_requests else ""
        return (
            f"{tally.asked:,} requests about {tally.images:,} images{failed}, {self.counters.prompt_tokens:,} prompt tokens "
            f"({cached:.0%} from the cache), {self.seconds:.1f} s"
        )


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would ask: counts of images and requests, why, and one rendered question."""

    listing: Listing
    images: int
    requests: int
    known: int
    reasons: Mapping[str, int]
    example: Request | None
    error: None = None
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "source": asdict(self.listing),
            "images": self.images,
            "requests": self.requests,
            "known": self.known,
            "reasons": dict(self.reasons),
            "example": None if self.example is None else {"system": self.example.system, "text": self.example.text},
        }

    def lines(self) -> list[str]:
        """Return the report for people."""
        change = f"{self.listing.new:,} new, {self.listing.changed:,} changed, {self.listing.gone:,} gone"
        lines = [
            f"{self.listing.total:,} images in the source ({change})",
            f"{self.requests:,} requests about {self.images:,} images would be asked; {self.known:,} are already answered",
            *(f"  {count:,} images: {reason}" for reason, count in self.reasons.items()),
        ]
        if self.example is not None:
            lines += [
                "one question:",
                *(f"  | {line}" for line in f"{self.example.system}\n{self.example.text}".split("\n")),
            ]
        return lines
