"""What `evaluate` prints below its headline: each finding is a section; figures, ratios and cells of tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return plain JSON values, rounded to six digits."""
        return {"value": round(self.value, 6), "low": round(self.low, 6), "high": round(self.high, 6)}

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def rounded(value: Any) -> Any:
    """Return plain JSON values with six digits after the point."""
    return json.loads(json.dumps(value, allow_nan=False), parse_float=lambda digits: round(float(digits), 6))


def share(part: float, whole: float) -> float | None:
    """Return `part` / `whole`, None without a whole."""
    return part / whole if whole else None


def shown(value: float | None, digits: int = 4) -> str:
    """Return a ratio as text; `-` where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"
