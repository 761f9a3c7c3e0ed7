"""The two stages. Each is two pure functions: what to ask about an image, and what the recorded answers mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tagllm_cli.records import Item, Request, Response, Row


class Stage(Protocol):
    """What the runner needs of a stage. Neither method sees a path, a server, a database or a progress bar."""

    def requests(self, item: Item) -> Sequence[Request]:
        """Return what to ask about the image: distinct requests, () where there is nothing to ask."""
        ...

    def row(self, item: Item, responses: Sequence[Response | None]) -> Row:
        """Return the table's row, given what is on record for each of `requests(item)` (None: not asked yet)."""
        ...

    def complaint(self, responses: Sequence[tuple[Request, Response]]) -> str | None:
        """Say what is wrong with a first sample of answers, None when they make sense."""
        ...
