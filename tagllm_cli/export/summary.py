"""What an export wrote and left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export wrote, and why it left images out, counted by reason (`failed`, `pending`, ...).

    `elsewhere` counts the images whose file names are URLs or paths that do not lie below the source root. `by_label`
    counts labels by name, `splits` images by split; `card` is the dataset card, which was left alone where somebody
    edited it (`card_kept`).
    """

    files: tuple[Path, ...]
    images: int
    labels: int
    unknown: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    elsewhere: int = 0
    notes: Sequence[str] = ()
    by_label: Mapping[str, int] = field(default_factory=dict)
    human: int = 0
    card: Path | None = None
    card_kept: bool = False
    splits: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values under stable keys."""
        return {
            "files": [str(path) for path in self.files],
            "images": self.images,
            "labels": self.labels,
            "unknown": self.unknown,
            "left_out": dict(self.left_out),
            "elsewhere": self.elsewhere,
            "splits": dict(self.splits),
            "card": None if self.card is None else str(self.card),
            "card_kept": self.card_kept,
        }

    def lines(self) -> list[str]:
        """Return the same as lines of text."""
        lines = [f"exported {self.images:,} images with {self.labels:,} labels: {', '.join(map(str, self.files))}"]
        if self.splits:
            lines.append(", ".join(f"{name}: {count:,} images" for name, count in self.splits.items()))
        if self.unknown:
            lines.append(f"{self.unknown:,} labels are undecided")
        if self.elsewhere:
            lines.append(f"{self.elsewhere:,} images are named by a URL, or by a path that leads out of the source")
        lines += [f"left out {count:,} images: {reason}" for reason, count in self.left_out.items()]
        if self.card_kept:
            lines.append(f"{self.card} is not as tagllm wrote it, and was left alone")
        return lines
