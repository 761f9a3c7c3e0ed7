"""Several tables side by side on the images and labels that all of them share, with paired differences.

In each round of the bootstrap every table is measured on the same drawn images: what makes an image easy or hard for
all of them cancels in the difference. A difference is beyond noise where its 95% interval leaves out 0; of many figures
and tables one in twenty is so by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.entries import HUMAN, NOT_JUDGED, Array, Comparison, Judgments
from tagllm_cli.evaluation.metrics.bootstrap import LEVEL, Interval, Resampled, resample
from tagllm_cli.evaluation.metrics.columns import Columns, columns_of
from tagllm_cli.evaluation.metrics.counts import count
from tagllm_cli.evaluation.metrics.figures import headline
from tagllm_cli.evaluation.sections import Cells, rounded

_SHOWN = {"op": "OP", "or": "OR", "of1": "OF1", "cp": "CP", "cr": "CR", "cf1": "CF1", "map": "mAP"}
_SHOWN |= {"exact_match": "exact match", "hamming": "Hamming"}


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of a table less that of the first one, with its 95% interval."""

    value: float
    interval: Interval

    @property
    def is_beyond_noise(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval.low > 0 or self.interval.high < 0

    def __str__(self) -> str:
        low, high = (f"{end:+.4f}" for end in (self.interval.low, self.interval.high))
        return f"{self.value:+.4f} [{low}, {high}]{' *' if self.is_beyond_noise else ''}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        ends = self.interval.to_json()
        return {"difference": round(self.value, 6), "interval": ends, "beyond_noise": self.is_beyond_noise}


@dataclass(frozen=True, slots=True)
class ComparedTable:
    """A table on what all share: its figures, and their differences to the first table (none for that itself)."""

    table: Path
    figures: Mapping[str, float]
    differences: Mapping[str, Difference]


@dataclass(frozen=True, slots=True)
class TableComparison:
    """Tables on the `images` and `labels` that all of them share."""

    images: int
    labels: int
    rounds: int
    seed: int
    compared: tuple[ComparedTable, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def tables(self) -> Sequence[tuple[str, Cells]]:
        """Return the figures side by side, and the differences with their intervals."""
        names = _short_names([each.table for each in self.compared])
        figures = [
            (name, *(f"{each.figures[key]:.4f}" for key in _SHOWN))
            for name, each in zip(names, self.compared, strict=True)
        ]
        title = f"tables on the {self.images:,} images and {self.labels:,} labels that all have"
        side_by_side: tuple[str, Cells] = (title, (("table", *_SHOWN.values()), figures))
        others = self.compared[1:]
        rows = [(shown, *(str(each.differences[key]) for each in others)) for key, shown in _SHOWN.items()]
        title = f"differences to {names[0]}, 95% intervals of {self.rounds:,} paired resamples; * is beyond noise"
        return [side_by_side, (title, (("", *names[1:]), rows))]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        head = {"images": self.images, "labels": self.labels, "rounds": self.rounds, "seed": self.seed, "level": LEVEL}
        tables = [
            {
                "table": str(each.table),
                **rounded(dict(each.figures)),
                "differences": {key: found.to_json() for key, found in each.differences.items()},
            }
            for each in self.compared
        ]
        return {**head, "tables": tables}


def compare_tables(
    tables: Sequence[tuple[Path, Comparison]], rounds: int, seed: int = 0, *, include_human: bool = False
) -> TableComparison:
    """Measure comparisons of several tables with one truth on what they share; the first is what others differ from.

    A label that a person decided in one of the tables is judged in none, unless `include_human`. Raises UsageError
    where no image or no label is in all of them.
    """
    shared = _shared([comparison for _, comparison in tables], include_human=include_human)
    columns = [columns_of(each) for each in shared]
    figures = [_figures(each) for each in columns]
    samples = [resample(each, rounds, seed) for each in columns]
    compared = [
        ComparedTable(path, found, {} if number == 0 else _differences(figures[0], found, samples[0], samples[number]))
        for number, ((path, _), found) in enumerate(zip(tables, figures, strict=True))
    ]
    entries = shared[0].entries
    return TableComparison(
        len(entries.ids), len(entries.names), rounds, seed, tuple(compared), _left_out(tables, shared)
    )


def _differences(
    first: Mapping[str, float], other: Mapping[str, float], before: Resampled, after: Resampled
) -> Mapping[str, Difference]:
    return {
        key: Difference(other[key] - first[key], Interval.of(after.figures[key] - before.figures[key])) for key in first
    }


def _figures(columns: Columns) -> Mapping[str, float]:
    counts = count(columns, np.ones((1, columns.images), np.uint8))
    return {key: float(value[0]) for key, value in headline(counts).items()}


def _shared(comparisons: Sequence[Comparison], *, include_human: bool) -> list[Comparison]:
    """Return each comparison on the images and labels of all, in one order and with the same judgments."""
    keys = [[each.images.keys[image] for image in each.entries.ids] for each in comparisons]
    in_all = set(keys[0]).intersection(*keys[1:])
    rows = [_places(keys[0], own, in_all) for own in keys]
    names = [each.entries.names for each in comparisons]
    labels = [_places(names[0], own, set(names[0]).intersection(*names[1:])) for own in names]
    for what, places in (("image", rows), ("label", labels)):
        if not len(places[0]):
            raise UsageError(f"the tables share no {what} that the truth has", "Compare tables of the same dataset.")
    found = [each.restricted(*kept) for each, kept in zip(comparisons, zip(rows, labels, strict=True), strict=True)]
    if include_human:
        return found
    by_people = [each.entries.cells[(each.entries.flags & HUMAN) > 0] for each in found]
    judgments = _without(found[0].judgments, np.unique(np.concatenate(by_people)))
    return [Comparison(each.stage, each.entries, judgments, each.images, each.names, each.statuses) for each in found]


def _places(order: Sequence[str], own: Sequence[str], kept: set[str]) -> Array:
    """Return where in `own` those of `order` stand that are `kept`."""
    place = {name: number for number, name in enumerate(own)}
    return np.fromiter((place[name] for name in order if name in kept), np.int64)


def _without(judgments: Judgments, cells: Array) -> Judgments:
    """Return judgments that do not judge `cells`."""
    if not len(cells):
        return judgments
    merged = np.concatenate([cells, judgments.cells])
    values = np.concatenate([np.full(len(cells), NOT_JUDGED, np.int8), judgments.values])
    unique, first = np.unique(merged, return_index=True)
    return Judgments(unique, values[first], judgments.rest)


def _left_out(tables: Sequence[tuple[Path, Comparison]], shared: Sequence[Comparison]) -> tuple[str, ...]:
    """Say of how many images and labels of each table the comparison knows nothing."""
    notes = []
    for (path, whole), kept in zip(tables, shared, strict=True):
        images, labels = (
            len(one) - len(other)
            for one, other in ((whole.entries.ids, kept.entries.ids), (whole.entries.names, kept.entries.names))
        )
        if images or labels:
            notes.append(f"{path}: {images:,} images and {labels:,} labels are not in all tables and are not compared")
    return tuple(notes)


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Return file names where they differ, else paths."""
    names = [path.name.removesuffix(".parquet") for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
