"""Chosen thresholds as the file that `--thresholds` takes, each label with what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tagllm_cli.evaluation.entries import ABSENT, PRESENT, Array, Comparison
from tagllm_cli.evaluation.thresholds.crossfit import KEPT, Chosen
from tagllm_cli.evaluation.thresholds.fit import expit, logit
from tagllm_cli.evaluation.thresholds.metric import Metric
from tagllm_cli.labeling.threshold_file import LabelThreshold, ThresholdFile, table_questions
from tagllm_cli.store.table import Table

_REFUSED = "no better over all labels on held-out images"


def as_file(
    table: Table,
    path: Path,
    metric: Metric,
    comparison: Comparison,
    grid: Array,
    chosen: Chosen | None,
    measured: Mapping[str, Any],
) -> ThresholdFile:
    """Return the file of all labels of a table; without anything chosen, it has the thresholds of the table itself."""
    plan, questions = table_questions(table)
    kept: Mapping[str, float] = table.info.plan.get("label_thresholds", {})
    size = (len(comparison.entries.ids), len(comparison.entries.names))
    positives, negatives = (comparison.judgments.count(each, *size) for each in (PRESENT, ABSENT))
    place = {name: number for number, name in enumerate(comparison.entries.names)}

    def of(name: str) -> LabelThreshold:
        known = (name, plan.label_ids[name], questions[name])
        if name not in place:
            return LabelThreshold(*known, kept.get(name), why="not in the truth")
        label = place[name]
        present, judged = int(positives[label]), int(positives[label] + negatives[label])
        why = _REFUSED if chosen is None else chosen.reasons[label]
        if chosen is None or chosen.labels[label] == KEPT:
            return LabelThreshold(*known, kept.get(name), positives=present, judged=judged, why=why)
        if why:
            return LabelThreshold(*known, positives=present, judged=judged, why=why)
        low, high = (round(float(each[label]), 6) for each in (chosen.fit.low, chosen.fit.high))
        return LabelThreshold(*known, float(grid[chosen.labels[label]]), low, high, present, judged)

    has_new = chosen is not None and chosen.common != KEPT
    common = float(grid[chosen.common]) if chosen is not None and has_new else table.info.plan.get("threshold", 0.5)
    identity = (plan.model, plan.model_digest.hex(), plan.max_pixels, plan.imaging)
    return ThresholdFile(path, str(metric), common, *identity, tuple(map(of, plan.vocabulary.names)), measured)


def of_offsets(table: Table, path: Path, offsets: Mapping[str, float]) -> ThresholdFile:
    """Return the file of thresholds that follow measured bias alone: logit(threshold) plus each label's offset.

    Source: contextual calibration, Zhao et al., ICML 2021, arXiv 2102.09690. No truth has seen them.
    """
    plan, questions = table_questions(table)
    common = float(table.info.plan.get("threshold", 0.5))

    def of(name: str) -> LabelThreshold:
        known = (name, plan.label_ids[name], questions[name])
        if name not in offsets:
            return LabelThreshold(*known, why="its question was not answered")
        return LabelThreshold(*known, float(expit(logit(np.array(common)) + offsets[name])))

    identity = (plan.model, plan.model_digest.hex(), plan.max_pixels, plan.imaging)
    labels = tuple(map(of, plan.vocabulary.names))
    return ThresholdFile(path, "bias", common, *identity, labels, {"bias": "alone, and no truth has seen it"})
