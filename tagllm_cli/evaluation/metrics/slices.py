"""The figures of parts: rare and frequent labels, small and large images, sets of arms, bands of probability."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tagllm_cli.evaluation.entries import ABSENT, NOT_JUDGED, PREDICTED, PRESENT, Array, Comparison
from tagllm_cli.evaluation.metrics.bootstrap import Interval, resample
from tagllm_cli.evaluation.metrics.columns import columns_of
from tagllm_cli.evaluation.metrics.counts import count
from tagllm_cli.evaluation.metrics.figures import headline
from tagllm_cli.evaluation.sections import Cells, rounded, share, shown

# Upper ends of image sizes in pixels; 512 x 512, 1024 x 1024, 2048 x 2048.
_AREAS = {"below 0.26 MP": 2**18, "0.26 to 1.05 MP": 2**20, "1.05 to 4.2 MP": 2**22, "4.2 MP and more": np.inf}
_UNKNOWN_AREA = "size unknown"
_BANDS = 10
_MOST_ARM_SETS = 8


@dataclass(frozen=True, slots=True)
class Part:
    """Some images and labels: overall figures and mAP in [0, 1]; `of1_interval` at 95% where it was asked for."""

    name: str
    images: int
    labels: int
    support: int
    op: float
    or_: float
    of1: float
    map: float
    of1_interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class EntryPart:
    """Some judged entries of a table: `present` is the share that is there, `precision` that of those predicted.

    `recall` is the share of all that is present which these predictions find. None without a denominator.
    """

    name: str
    listed: int
    present: float | None
    predicted: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class Slices:
    """Parts by `frequency`, `size`, `arms` and `probability`; () where there is nothing to divide."""

    frequency: tuple[Part, ...]
    size: tuple[Part, ...]
    arms: tuple[EntryPart, ...]
    probability: tuple[EntryPart, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def tables(self) -> Sequence[tuple[str, Cells]]:
        """Return a table for each way to divide."""
        parts = {"by frequency of the label in the truth": self.frequency, "by size of the image": self.size}
        entries = {"by the arms that proposed it": self.arms, "by probability": self.probability}
        return [
            *((title, _part_cells(found)) for title, found in parts.items() if found),
            *((title, _entry_cells(found)) for title, found in entries.items() if found),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        parts = {"frequency": self.frequency, "size": self.size}
        entries = {"arms": self.arms, "probability": self.probability}
        return {
            **{name: [_part_json(each) for each in found] for name, found in parts.items()},
            **{name: [rounded(asdict(each)) for each in found] for name, found in entries.items()},
        }


def slice_comparison(comparison: Comparison, rounds: int = 0, seed: int = 0) -> Slices:
    """Divide a comparison; with `rounds`, each part's OF1 gets an interval by as many resamples of its images."""
    size = (len(comparison.entries.ids), len(comparison.entries.names))
    all_rows, all_labels = (np.arange(length) for length in size)
    by_label = {name: (all_rows, labels) for name, labels in _thirds(comparison)}
    by_image = {name: (rows, all_labels) for name, rows in _areas(comparison)}
    frequency, areas = (_parts(comparison, parts, rounds, seed) for parts in (by_label, by_image))
    return Slices(frequency, areas, _by_arms(comparison), _by_probability(comparison))


def _parts(
    comparison: Comparison, parts: Mapping[str, tuple[Array, Array]], rounds: int, seed: int
) -> tuple[Part, ...]:
    if len(parts) < 2:
        return ()
    return tuple(_part(name, comparison.restricted(*kept), rounds, seed) for name, kept in parts.items())


def _part(name: str, comparison: Comparison, rounds: int, seed: int) -> Part:
    columns = columns_of(comparison)
    counts = count(columns, np.ones((1, columns.images), np.uint8))
    figures = {key: float(value[0]) for key, value in headline(counts).items()}
    interval = Interval.of(resample(columns, rounds, seed).figures["of1"]) if rounds else None
    ratios = (figures["op"], figures["or"], figures["of1"], figures["map"])
    return Part(name, columns.images, len(columns.columns), int(counts.present.sum()), *ratios, interval)


def _thirds(comparison: Comparison) -> Iterator[tuple[str, Array]]:
    """Yield the rarest third of the labels that occur, the middle and the most frequent one."""
    support = comparison.judgments.count(PRESENT, len(comparison.entries.ids), len(comparison.entries.names))
    ordered = np.argsort(support, kind="stable")
    ordered = ordered[support[ordered] > 0]
    for name, labels in zip(("rare", "medium", "frequent"), np.array_split(ordered, 3), strict=True):
        if len(labels):
            yield f"{name}: {support[labels[0]]:,} to {support[labels[-1]]:,} images", np.sort(labels)


def _areas(comparison: Comparison) -> Iterator[tuple[str, Array]]:
    area = comparison.entries.widths.astype(np.int64) * comparison.entries.heights
    band = np.where(area > 0, np.searchsorted(list(_AREAS.values()), area, side="right"), len(_AREAS))
    for number, name in enumerate([*_AREAS, _UNKNOWN_AREA]):
        if len(rows := np.flatnonzero(band == number)):
            yield name, rows


def _by_arms(comparison: Comparison) -> tuple[EntryPart, ...]:
    """Divide the entries by the exact set of arms that proposed them, the most common first."""
    sets, place, counts = np.unique(comparison.entries.arms, return_inverse=True, return_counts=True)
    names = comparison.entries.arm_names
    if len(sets) < 2:
        return ()
    order = np.argsort(-counts, kind="stable")
    number = np.empty(len(sets), np.int64)
    number[order] = np.minimum(np.arange(len(sets)), _MOST_ARM_SETS)
    shown_sets = [_arm_set(names, int(code)) for code in sets[order[:_MOST_ARM_SETS]]]
    return _entry_parts(comparison, number[place], [*shown_sets, "other sets of arms"])


def _arm_set(names: Sequence[str], code: int) -> str:
    return " + ".join(name for number, name in enumerate(names) if code >> number & 1) or "no arm"


def _by_probability(comparison: Comparison) -> tuple[EntryPart, ...]:
    probabilities = comparison.entries.probabilities
    bands = np.minimum(np.nan_to_num(probabilities) * _BANDS, _BANDS - 1).astype(np.int64)
    names = [f"{low / _BANDS:.1f} to {(low + 1) / _BANDS:.1f}" for low in range(_BANDS)]
    if np.isnan(probabilities).all():
        return ()
    return _entry_parts(comparison, np.where(np.isnan(probabilities), _BANDS, bands), [*names, "no probability"])


def _entry_parts(comparison: Comparison, number: Array, names: Sequence[str]) -> tuple[EntryPart, ...]:
    entries, judgments = comparison.entries, comparison.judgments
    said = judgments.of(entries.cells)
    predicted = ((entries.flags & PREDICTED) > 0) & (said != NOT_JUDGED)
    which = (said == PRESENT, said == ABSENT, predicted, predicted & (said == PRESENT))
    counts = zip(names, *(np.bincount(number[each], minlength=len(names)).tolist() for each in which), strict=True)
    there = int(judgments.count(PRESENT, len(entries.ids), len(entries.names)).sum())
    parts = []
    for name, present, absent, predictions, right in counts:
        if listed := present + absent:
            ratios = (share(present, listed), predictions, share(right, predictions), share(right, there))
            parts.append(EntryPart(name, listed, *ratios))
    return tuple(parts)


def _part_cells(parts: Sequence[Part]) -> Cells:
    rows = [
        (part.name, f"{part.images:,}", f"{part.labels:,}", f"{part.support:,}", shown(part.op), shown(part.or_),
         f"{part.of1:.4f} {part.of1_interval}" if part.of1_interval else shown(part.of1), shown(part.map))
        for part in parts
    ]  # fmt: skip
    return ("part", "images", "labels", "true", "OP", "OR", "OF1", "mAP"), rows


def _entry_cells(parts: Sequence[EntryPart]) -> Cells:
    rows = [
        (part.name, f"{part.listed:,}", shown(part.present), f"{part.predicted:,}", shown(part.precision),
         shown(part.recall))
        for part in parts
    ]  # fmt: skip
    return ("part", "listed", "share true", "predicted", "precision", "share of recall"), rows


def _part_json(part: Part) -> dict[str, Any]:
    value = {key.rstrip("_"): each for key, each in asdict(part).items()}
    return {**rounded(value), "of1_interval": part.of1_interval.to_json() if part.of1_interval else None}
