"""Summary of a labeling run: `to_json` for programs, `lines` for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tagllm_cli.engines.base import Usage
from tagllm_cli.errors import TagllmError
from tagllm_cli.labeling.row_counts import RowCounts
from tagllm_cli.pipeline.label.pending import PendingCounts
from tagllm_cli.pipeline.label.stats import RunStats
from tagllm_cli.pipeline.label.token_estimate import TokenEstimate
from tagllm_cli.store.listing import SourceChanges
from tagllm_cli.store.people import People

FAILURE_LINES = 3
_MESSAGE_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Summary:
    """A run that has written its table. `error` is set when it ended with an exit code other than 0.

    `people`: what people decided, None where nobody decided anything; `names` are the table's labels.
    """

    command: str
    out: Path
    rows: RowCounts
    stats: RunStats
    usage: Usage
    listing: SourceChanges
    seconds: float
    next_command: str
    error: TagllmError | None = None
    people: People | None = None
    names: Sequence[str] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looks wrong, though the run did not stop for it."""
        return () if self.stats.warning is None else (f"the first answers look wrong: {self.stats.warning}",)

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        stats = self.stats
        asked = {
            "images": stats.images,
            "opened": stats.opened,
            "requests": stats.asked,
            "failed_requests": stats.failed_requests,
        }
        failures = [
            {"what": what, "kind": kind, "count": count, "example": stats.failures.examples[what, kind]}
            for (what, kind), count in stats.failures.counts.most_common()
        ]
        tokens = {
            "prompt": self.usage.prompt_tokens,
            "cached": self.usage.cached_tokens,
            "output": self.usage.output_tokens,
        }
        return {
            "command": self.command,
            "table": str(self.out),
            "rows": self.rows.to_json(),
            "source": asdict(self.listing),
            "asked": asked,
            "failures": failures,
            "tokens": tokens,
            "people": None if self.people is None else self.people.in_brief(self.names),
            "engine": stats.engine or None,
            "gpus": stats.gpus,
            "seconds": round(self.seconds, 3),
            "seconds_asking": round(stats.seconds, 3),
            "next": self.next_command,
            "warning": self.stats.warning,
            "error": None if self.error is None else self.error.to_json(),
        }

    def lines(self) -> list[str]:
        """Return rows, labels, requests and, where the run came to its end, what to run next: four lines in all.

        Up to three more after the third say why images or requests failed, the most frequent reasons first, and up to
        three which decisions of people apply to nothing.
        """
        rows = self.rows
        labels = "candidates" if self.command == "candidates" else "labels"
        mean = rows.labels / max(1, rows.ok + rows.partial)
        unsure = f", {rows.unknown:,} unknown" if rows.unknown else ""
        strange = f", {rows.unmatched:,} answers outside the vocabulary" if rows.unmatched else ""
        left = self.listing.unread - self.stats.shards
        unread = f"; {left:,} shards are not read yet" if left > 0 else ""
        return [
            f"{self.out}: {rows.total:,} images ({rows}){unread}",
            f"{rows.labels:,} {labels}, {mean:.2f} per image{unsure}{strange}",
            self._requests(),
            *self._failures(),
            *([] if self.people is None else self.people.problems(self.names)),
            *([f"next: {self.next_command}"] if self.stats.is_complete else []),
        ]

    def _failures(self) -> list[str]:
        failures = self.stats.failures
        return [
            f"  {count:,} {what} failed ({kind}), for example: {_shorten(failures.examples[what, kind])}"
            for (what, kind), count in failures.counts.most_common(FAILURE_LINES)
        ]

    def _requests(self) -> str:
        stats = self.stats
        if not stats.asked:
            if stats.interrupted:
                return "interrupted before the first answer"
            opened = f"; {stats.opened:,} images opened, {stats.failed_images:,} failed" if stats.opened else ""
            why = "nothing was asked" if self.rows.pending else "nothing to ask: every answer was on record"
            return f"{why}{opened} ({self.seconds:.1f} s)"
        cached = self.usage.cached_tokens / max(1, self.usage.prompt_tokens)
        failed = f", {stats.failed_requests:,} failed" if stats.failed_requests else ""
        tokens = f"{self.usage.prompt_tokens:,} prompt tokens ({cached:.0%} from the cache)"
        engine = f", {stats.engine}" if stats.engine else ""
        asked = f"{stats.asked:,} requests about {stats.images:,} images{failed}"
        return f"{asked}, {tokens}, {self.seconds:.1f} s{engine}"


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would ask, what it costs (or in a sentence why that is unknown), and one rendered request."""

    listing: SourceChanges
    pending: PendingCounts
    tokens: TokenEstimate | str | None = None
    error: None = None
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        found, example = self.pending, self.pending.example
        return {
            "source": asdict(self.listing),
            "images": found.images,
            "requests": found.requests,
            "known": found.known,
            "reasons": dict(found.reasons),
            "tokens": self.tokens.to_json() if isinstance(self.tokens, TokenEstimate) else None,
            "tokens_note": self.tokens if isinstance(self.tokens, str) else None,
            "example": None if example is None else {"system": example.system, "text": example.text},
        }

    def lines(self) -> list[str]:
        """Return the report for people."""
        found, example = self.pending, self.pending.example
        change = f"{self.listing.new:,} new, {self.listing.changed:,} changed, {self.listing.gone:,} gone"
        unread = f" and {self.listing.unread:,} shards that were not read yet" if self.listing.unread else ""
        lines = [
            f"{self.listing.total:,} images{unread} in the source ({change})",
            f"{found.requests:,} requests about {found.images:,} images would be asked; {found.known:,} are on record",
            *(f"  {count:,} images: {reason}" for reason, count in found.reasons.items()),
            *([self.tokens] if isinstance(self.tokens, str) else [] if self.tokens is None else self.tokens.lines()),
        ]
        if example is not None:
            lines += ["one question:", *(f"  | {line}" for line in f"{example.system}\n{example.text}".split("\n"))]
        return lines


def _shorten(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= _MESSAGE_LENGTH else f"{line[: _MESSAGE_LENGTH - 1]}…"
