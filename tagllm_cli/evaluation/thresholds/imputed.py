"""Judgments of pairs that people were not asked about, for thresholds from answers about doubtful pairs alone.

Pairs are reviewed because they are doubtful. Thresholds that are best for these are wrong for all: among doubtful pairs
it pays to say yes to nearly all of them, for the sure ones, which decide what a false yes costs, are missing. But which
pairs were asked about depends on what the tables said, not on the answer, so that the answers tell how often a label is
there at a given probability (ignorable selection: Rubin, Inference and Missing Data, Biometrika 63 (1976), 581-592):

    logit P(there) = m + a[label] + b * logit(probability)

with normal priors around the model's own probabilities (m: 0 and 1, a: 0 and 1, b: 1 and 1/2), so that few answers
change little. Answers that were recorded for what they are tell nothing of the kind: `check_selection` finds the two
usual ways, mistakes alone and one answer alone. What nobody judged is then drawn from it, with a fixed
seed (single imputation).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.calibration import decided
from tagllm_cli.evaluation.entries import ABSENT, NOT_JUDGED, PRESENT, Array, Comparison, Judgments
from tagllm_cli.evaluation.thresholds.fit import expit, logit
from tagllm_cli.evaluation.truth import ImageMatch, Truth

_FEW, _OPPOSED = 5, 0.1  # answers of each kind, and the area under the ROC curve that is no chance among them
_MANY, _ONE_SIDED = 20, 0.02
_STEPS = 50
_SLOPE_DEVIATION = 0.5


def of_all_images(truth: Truth, images: ImageMatch) -> Truth:
    """Return a truth that has the other images of the table, too, and judges nothing in them."""
    others: dict[str, frozenset[str]] = dict.fromkeys(images.not_in_truth, frozenset())
    return replace(truth, labels={**truth.labels, **others})


def check_selection(comparison: Comparison) -> str:
    """Return a warning where nearly all answers are the same, else "".

    Raises UsageError where answers oppose the probabilities, as where people decided only what the table has wrong.
    """
    entries, said = comparison.entries, comparison.judgments.of(comparison.entries.cells)
    asked = decided(entries) & (said != NOT_JUDGED)
    present, absent = (entries.probabilities[asked & (said == value)] for value in (PRESENT, ABSENT))
    fewer, more = sorted([len(present), len(absent)])
    if fewer >= _FEW and area_under_curve(present, absent) <= _OPPOSED:
        raise UsageError(
            "the higher a probability, the more often people said no: they seem to have decided only what is wrong",
            "Decide pairs whatever the answer is, as `tagllm review` asks for them, those that are right, too.",
        )
    if more < _MANY or fewer > _ONE_SIDED * more:
        return ""
    word, result = ("yes", "low") if len(present) > len(absent) else ("no", "high")
    return f"{more:,} of {fewer + more:,} answers are {word}: if others were not recorded, thresholds are too {result}"


def area_under_curve(present: Array, absent: Array) -> float:
    """Return how probably a score of `present` is above one of `absent`, ties counted half, in [0, 1]."""
    ordered = np.sort(absent)
    below = np.searchsorted(ordered, present, "left") + np.searchsorted(ordered, present, "right")
    return float(below.sum()) / (2 * len(present) * len(absent))


def with_imputed(comparison: Comparison, seed: int = 0) -> Comparison:
    """Return the comparison with a judgment of every entry that has a probability; those of people stay."""
    entries, judgments = comparison.entries, comparison.judgments
    cells, known = entries.cells, decided(entries)
    said = judgments.of(cells)
    asked, rest = known & (said != NOT_JUDGED), known & (said == NOT_JUDGED)
    logits = logit(entries.probabilities[known].astype(np.float64))
    chance = np.full(len(cells), np.nan)
    chance[known] = recalibrated(
        logits, entries.labels[known], asked[known], said[known] == PRESENT, len(entries.names)
    )
    drawn = np.random.default_rng(seed).random(int(rest.sum())) < chance[rest]
    values = np.where(drawn, np.int8(PRESENT), np.int8(ABSENT))
    together = np.concatenate([judgments.cells, cells[rest]])
    order = np.argsort(together, kind="stable")
    filled = Judgments(together[order], np.concatenate([judgments.values, values])[order], judgments.rest)
    return replace(comparison, judgments=filled)


def recalibrated(logits: Array, labels: Array, asked: Array, present: Array, size: int) -> Array:
    """Return the probability of each pair that the label is there, float64 [pairs] in (0, 1).

    Args:
        logits: of the model's probabilities, float64 [pairs].
        labels: int64 [pairs], below `size`.
        asked: which pairs people answered, bool [pairs].
        present: what they answered, bool [pairs].
        size: the number of labels.
    """
    x, label, y = logits[asked], labels[asked], present[asked].astype(np.float64)
    common, offset = np.array([0.0, 1.0]), np.zeros(size)
    prior, precision = np.array([0.0, 1.0]), np.array([1.0, 1 / _SLOPE_DEVIATION**2])
    design = np.stack([np.ones_like(x), x], axis=1)
    for _ in range(_STEPS):  # Newton's method, in turn for what is common and for the labels
        expected = expit(design @ common + offset[label])
        weight = expected * (1 - expected)
        slope = design.T @ (y - expected) - precision * (common - prior)
        bend = (design * weight[:, None]).T @ design + np.diag(precision)
        common = common + np.clip(np.linalg.solve(bend, slope), -1, 1)
        expected = expit(design @ common + offset[label])
        weight = expected * (1 - expected)
        steps = np.bincount(label, y - expected, minlength=size) - offset
        offset += np.clip(steps / (np.bincount(label, weight, minlength=size) + 1), -1, 1)
    return expit(common[0] + common[1] * logits + offset[labels])
