"""Curves and histograms of scores, thinned to what a plot can show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tagllm_cli.evaluation.entries import ABSENT, NOT_JUDGED, PRESENT, Array, Entries, Judgments

BINS = 20


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and recall at descending thresholds; parallel arrays, float64.

    `thresholds` are the scores from which on an entry counts as predicted. A curve ends where all listed entries are
    taken: what is not listed has no score.
    """

    thresholds: Array
    recall: Array
    precision: Array

    def to_json(self) -> dict[str, list[float]]:
        """Return the curve rounded to four digits."""
        parts = {"thresholds": self.thresholds, "recall": self.recall, "precision": self.precision}
        return {name: [round(each, 4) for each in values.tolist()] for name, values in parts.items()}


def precision_recall(entries: Entries, judgments: Judgments, points: int = 60) -> tuple[Curve, dict[str, Curve]]:
    """Return the curve over all labels together, and that of each label with support and listed scores.

    Pairs that are not judged count in nothing. A curve has up to `points` points, evenly spaced among its thresholds,
    the first and the last among them; each is exact.
    """
    images, labels = len(entries.ids), len(entries.names)
    support = judgments.count(PRESENT, images, labels)
    said = judgments.of(entries.cells)
    listed = np.flatnonzero((said != NOT_JUDGED) & (entries.scores > 0))
    order = listed[np.argsort(_label_then_score(entries.labels[listed], entries.scores[listed]))]
    bounds = np.searchsorted(entries.labels[order], np.arange(labels + 1))
    found = {}
    for label, name in enumerate(entries.names):
        part = order[bounds[label] : bounds[label + 1]]
        if len(part) and support[label]:
            found[name] = _curve(entries.scores[part], said[part] == PRESENT, int(support[label]), points)
    together = listed[np.argsort(-entries.scores[listed])]
    total = max(1, int(support.sum()))
    return _curve(entries.scores[together], said[together] == PRESENT, total, points), found


def _label_then_score(labels: Array, scores: Array) -> Array:
    """Return keys, int64, that sort by label, then by falling score: floats from 0 on are ordered as their bits are."""
    bits = np.ascontiguousarray(scores, np.float32).view(np.int32)
    return np.asarray((labels.astype(np.int64) << 32) | (np.iinfo(np.int32).max - bits))


def _curve(scores: Array, hits: Array, support: int, points: int) -> Curve:
    """Return the curve of descending scores; equal scores are taken together."""
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.empty(0, np.int64)
    if len(ends) > points:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, points).round().astype(np.int64))]
    true = np.cumsum(hits, dtype=np.float64)[ends]
    return Curve(scores[ends].astype(np.float64), true / support, true / (ends + 1))


def histogram(entries: Entries, said: Array | None) -> dict[str, list[int]]:
    """Return the probabilities in BINS equal bins from 0 to 1, by what `said` (int8 [entries]) the truth.

    Without a truth there is one list, `all`; else `present`, `absent` and `not judged`. Entries without a probability
    count in none.
    """
    kinds = {"all": None} if said is None else {"present": PRESENT, "absent": ABSENT, "not judged": NOT_JUDGED}
    known = ~np.isnan(entries.probabilities)
    found = {}
    for name, value in kinds.items():
        which = known if value is None else known & (said == value)
        found[name] = np.histogram(entries.probabilities[which], BINS, (0, 1))[0].tolist()
    return {name: counts for name, counts in found.items() if any(counts)}
