"""The two stages. Each is two pure functions: what to ask about an image, and what the recorded answers mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tagllm_cli.records import Reply, Request, Row, Subject


class Stage(Protocol):
    """What the runner needs of a stage. Neither method sees a path, a server, a database or a progress bar."""

    def requests(self, subject: Subject) -> Sequence[Request]:
        """Return what to ask about the image: distinct requests, () where there is nothing to ask."""
        ...

    def row(self, subject: Subject, replies: Sequence[Reply | None]) -> Row:
        """Return the table's row, given what is on record for each of `requests(subject)` (None: not asked yet)."""
        ...

    def complaint(self, replies: Sequence[tuple[Request, Reply]]) -> str | None:
        """Say what is wrong with a first sample of answers, None when they make sense."""
        ...
