"""What a run did: counts of images, requests, shards and failures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from tagllm_cli.errors import StoppedRunError
from tagllm_cli.records import Failure


@dataclass(slots=True)
class FailureCounts:
    """Failures by what failed (`images`, `requests`) and kind, with the first message of each as an example."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, what: str, failure: Failure) -> None:
        """Count one failure."""
        self.counts[what, failure.kind] += 1
        self.examples.setdefault((what, failure.kind), failure.message)


@dataclass(slots=True)
class RunStats:
    """What the run did so far: counts of images and requests, and seconds since the engine was ready.

    `shards` were read to their end, in which images became known.
    `error` ended the run early, `warning` did not. `engine` is the version of what answered, "" where nothing did, on
    so many `gpus` (None: nobody knows).
    """

    images: int = 0
    opened: int = 0
    failed_images: int = 0
    asked: int = 0
    failed_requests: int = 0
    shards: int = 0
    seconds: float = 0.0
    failures: FailureCounts = field(default_factory=FailureCounts)
    interrupted: bool = False
    warning: str | None = None
    error: StoppedRunError | None = None
    engine: str = ""
    gpus: int | None = None

    def __str__(self) -> str:
        """Return the counts in words, for the log.

        >>> str(RunStats(images=2, asked=3, failed_requests=1, engine="vllm 0.32.0", interrupted=True))
        '3 requests (1 failed) about 2 images (0 failed, 0 opened) in 0.0 s, vllm 0.32.0, interrupted'
        """
        counts = (
            f"{self.asked:,} requests ({self.failed_requests:,} failed) about {self.images:,} images "
            f"({self.failed_images:,} failed, {self.opened:,} opened) in {self.seconds:.1f} s"
        )
        failures = (f"{count:,} {what} {kind}" for (what, kind), count in self.failures.counts.most_common())
        end = self.error.message if self.error else "interrupted" if self.interrupted else ""
        return ", ".join(each for each in (counts, self.engine or "no engine", *failures, end) if each)

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end."""
        return self.error is None and not self.interrupted

    def plus(self, later: RunStats) -> RunStats:
        """Return the counts of both runs, with the end of the later one."""
        return replace(
            later,
            images=self.images + later.images,
            opened=self.opened + later.opened,
            failed_images=self.failed_images + later.failed_images,
            asked=self.asked + later.asked,
            failed_requests=self.failed_requests + later.failed_requests,
            shards=self.shards + later.shards,
            seconds=self.seconds + later.seconds,
            warning=later.warning or self.warning,
            engine=later.engine or self.engine,
            gpus=later.gpus if later.engine else self.gpus,
            failures=FailureCounts(
                self.failures.counts + later.failures.counts, {**later.failures.examples, **self.failures.examples}
            ),
        )
