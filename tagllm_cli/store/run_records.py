"""The records of runs: what one has recorded so far, and what all of them say."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tagllm_cli.records import Response


class RunProgress:
    """What a run has recorded so far: all that is known of one that is killed; `has_clock`: seconds are its own."""

    def __init__(self, *, has_clock: bool = True) -> None:
        self._began = time.monotonic() if has_clock else None
        self._counts = self._kept = (0, 0, 0, 0, 0)

    @property
    def is_new(self) -> bool:
        """Whether there is more than `to_json` last returned."""
        return self._counts != self._kept

    @property
    def has_failures(self) -> bool:
        """Whether a request has failed."""
        return self._counts[1] > 0

    def add(self, response: Response) -> None:
        """Count one response."""
        requests, failed, prompt, cached, output = self._counts
        self._counts = (
            requests + 1,
            failed + (response.failure is not None),
            prompt + response.prompt_tokens,
            cached + response.cached_tokens,
            output + response.output_tokens,
        )

    def rollback(self) -> None:
        """Forget what `to_json` did not return yet."""
        self._counts = self._kept

    def to_json(self) -> dict[str, Any]:
        """Return the counts under the keys of a run's report; `seconds` since the run was opened."""
        self._kept = self._counts
        requests, failed, prompt, cached, output = self._counts
        return {
            "asked": {"requests": requests, "failed_requests": failed},
            "tokens": {"prompt": prompt, "cached": cached, "output": output},
            "seconds": 0.0 if self._began is None else round(time.monotonic() - self._began, 3),
        }


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as on record. `started` and `ended` are Unix times; `ended` is None while it runs and after a kill.

    `report` is what the run told at its end, or so far. `answers` are (requests, prompt, cached and output tokens,
    failed requests) of its rows, for a run whose report lacks them: releases up to 0.1.0 told nothing before the end.
    """

    id: int
    command: str
    version: str
    started: float
    ended: float | None = None
    engine: str | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    answers: tuple[int, int, int, int, int] | None = None

    @classmethod
    def of(cls, values: Sequence[Any], answers: Sequence[int] | None) -> RunRecord:
        """Return the record of (id, command, version, started, ended, engine, report as JSON)."""
        id_, command, version, started, ended, engine, report = values
        requests = None if answers is None else (answers[0], answers[1], answers[2], answers[3], answers[4])
        return cls(id_, command, version, started, ended, engine, json.loads(report) if report else {}, requests)
