"""What `evaluate` prints below its headline: each finding is a section."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

# Column names, and rows of as many texts.
Cells = tuple[Sequence[str], Sequence[Sequence[str]]]


class Section(Protocol):
    """A finding. `notes` say what it leaves out by design, `warnings` what makes it doubtful, a line each."""

    @property
    def notes(self) -> Sequence[str]:
        """What the figures leave out by design."""

    @property
    def warnings(self) -> Sequence[str]:
        """What makes the figures doubtful."""

    def tables(self) -> Sequence[tuple[str, Cells]]:
        """Return titles with (column names, rows)."""

    def to_json(self) -> Any:
        """Return plain JSON values."""


def rounded(value: Any) -> Any:
    """Return plain JSON values with six digits after the point."""
    return json.loads(json.dumps(value, allow_nan=False), parse_float=lambda digits: round(float(digits), 6))


def share(part: float, whole: float) -> float | None:
    """Return `part` / `whole`, None without a whole."""
    return part / whole if whole else None


def shown(value: float | None, digits: int = 4) -> str:
    """Return a ratio as text; `-` where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"
