"""What a stage provides: what to ask about an image, what the responses mean, whether the first ones make sense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tagllm_cli.records import Item, Request, Response, Row


class Stage(Protocol):
    """Pure: no method does I/O."""

    def requests(self, item: Item) -> Sequence[Request]:
        """Return what to ask about the image: distinct requests, () where there is nothing to ask."""
        ...

    def row(self, item: Item, responses: Sequence[Response | None]) -> Row:
        """Return the table's row, given what is on record for each of `requests(item)` (None: not asked yet)."""
        ...

    def complaint(self, responses: Sequence[tuple[Request, Response]]) -> str | None:
        """Return what is wrong with a first sample of responses in a sentence, None when they make sense."""
        ...
