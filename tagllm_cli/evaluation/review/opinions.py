"""How probably a table is wrong about pairs of image and label, from all that tables and people said of them.

Each table that knows a pair has an opinion, in logits of "the label is there":

- with a probability p, and t the label's threshold: logit(p) - logit(t), cut to -4 and 4, so that no table is too sure
  to be asked about;
- yes or no without a probability: 2 or -2; -2 where it does not list the label; undecided: 0;
- plus 2 v - 1 where the share v of at least two arms proposed it.

The opinions of two tables are averaged: a logarithmic opinion pool with equal weights (Genest and Zidek, Combining
Probability Distributions, Statistical Science 1 (1986), 114-135). A table that says yes is wrong with probability
1 - expit(mean), one that says no with expit(mean), an undecided one with at least 1/2. Where people said otherwise (a
truth), it is the score of `find_suspects`, how doubtful that is; where they said the same, nothing is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tagllm_cli.evaluation.entries import (
    HUMAN,
    NOT_JUDGED,
    PREDICTED,
    UNDECIDED,
    Array,
    Entries,
    is_in,
    places,
)
from tagllm_cli.evaluation.report.subject import JudgedCells, answered_rows
from tagllm_cli.evaluation.thresholds.fit import expit, logit
from tagllm_cli.evaluation.truth.label_sets import sorted_set

_SUREST = 4.0
_PLAIN = 2.0
NO, YES, UNKNOWN, NOT_LISTED, NOT_COVERED = range(5)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one table says of some pairs: arrays [pairs].

    `said` is NO, YES, UNKNOWN, NOT_LISTED or NOT_COVERED (the table does not know the image or the label), int8;
    `logits` float64, NaN where NOT_COVERED; `probabilities` float32, NaN without one; `arms` uint64 bits; `human` bool.
    """

    said: Array
    logits: Array
    probabilities: Array
    arms: Array
    human: Array


@dataclass(frozen=True, slots=True)
class Doubts:
    """The pairs that can be asked about, by `cells` (row times labels plus label, sorted), and what is said of them.

    `wrong` float64 [pairs] in [0, 1] is the probability that what stands is wrong. `people` int8 [pairs] is what the
    truth says: PRESENT, ABSENT or NOT_JUDGED.
    """

    cells: Array
    own: Opinion
    other: Opinion | None
    people: Array
    wrong: Array


def doubts(
    entries: Entries,
    thresholds: Array,
    other: tuple[Entries, Array] | None = None,
    judged: JudgedCells | None = None,
) -> Doubts:
    """Return the pairs of answered images that a table lists, that another one gives, or that people dispute.

    `thresholds` are those of the labels, float64 [labels]; of the other table its own.
    """
    named = [entries.cells]
    if other is not None:
        named.append(_given(other[0], entries))
    if judged is not None:
        rows, labels = judged.disputed()
        named.append(rows * len(entries.names) + labels)
    cells = sorted_set(np.concatenate(named))
    cells = cells[is_in(cells // max(1, len(entries.names)), answered_rows(entries))]
    own = opinion(entries, thresholds, entries, cells)
    second = None if other is None else opinion(*other, entries, cells)
    wrong = _wrong(own, second)
    people = np.full(len(cells), NOT_JUDGED, np.int8)
    if judged is not None:
        people = judged.of(cells // len(entries.names), cells % len(entries.names))
        wrong = np.where(people == NOT_JUDGED, wrong, _disputed(judged, cells, len(entries.names)))
    return Doubts(cells, own, second, people, wrong)


def opinion(theirs: Entries, thresholds: Array, entries: Entries, cells: Array) -> Opinion:
    """Return what a table says of `cells`, which are numbered as those of `entries`."""
    width = len(entries.names)
    rows, labels = places(entries.ids, theirs.ids), places(entries.names, theirs.names)
    row, label = rows[cells // width], labels[cells % width]
    covered = (row >= 0) & (label >= 0)
    covered[covered] = is_in(row[covered], answered_rows(theirs))
    wanted = np.where(covered, row * len(theirs.names) + label, -1)
    order = np.argsort(theirs.cells, kind="stable")
    listed = theirs.cells[order]
    place = np.minimum(np.searchsorted(listed, wanted), max(0, len(listed) - 1))
    found = listed[place] == wanted if len(listed) else np.zeros(len(cells), bool)
    at = order[place] if len(listed) else place
    said = np.where(covered, np.int8(NOT_LISTED), np.int8(NOT_COVERED))
    flags = theirs.flags[at] if len(listed) else np.zeros(len(cells), np.int8)
    decided = np.where(flags & UNDECIDED, UNKNOWN, np.where(flags & PREDICTED, YES, NO))
    said = np.where(found, decided, said).astype(np.int8)
    probabilities = np.where(found, theirs.probabilities[at] if len(listed) else np.nan, np.nan).astype(np.float32)
    arms = np.where(found, theirs.arms[at] if len(listed) else np.uint64(0), np.uint64(0))
    logits = np.array([-_PLAIN, _PLAIN, 0.0, -_PLAIN, np.nan])[said]
    known = ~np.isnan(probabilities)
    limits = logit(thresholds[label[known]])
    logits[known] = np.clip(logit(probabilities[known].astype(np.float64)) - limits, -_SUREST, _SUREST)
    if len(theirs.arm_names) > 1:
        logits += np.where(arms > 0, 2 * np.bitwise_count(arms) / len(theirs.arm_names) - 1, 0.0)
    return Opinion(said, logits, probabilities, arms, found & ((flags & HUMAN) > 0))


def _given(theirs: Entries, entries: Entries) -> Array:
    """Return the cells to which another table gives a label, in the numbers of `entries`."""
    rows, labels = places(theirs.ids, entries.ids), places(theirs.names, entries.names)
    given = (theirs.flags & PREDICTED) > 0
    row, label = rows[theirs.rows[given]], labels[theirs.labels[given]]
    known = (row >= 0) & (label >= 0)
    return np.asarray(row[known] * len(entries.names) + label[known])


def _wrong(own: Opinion, other: Opinion | None) -> Array:
    pooled = own.logits
    if other is not None:
        pooled = np.where(np.isnan(other.logits), pooled, (pooled + other.logits) / 2)
    there = expit(pooled)
    wrong = np.where(own.said == YES, 1 - there, there)
    return np.where(own.said == UNKNOWN, np.maximum(wrong, 0.5), wrong)


def _disputed(judged: JudgedCells, cells: Array, width: int) -> Array:
    """Return the score of each cell among the suspects, 0 where table and people agree."""
    rows, labels = judged.disputed()
    found = np.zeros(len(cells))
    disputed = rows * width + labels
    place = np.searchsorted(cells, disputed)
    inside = place < len(cells)
    inside[inside] = cells[place[inside]] == disputed[inside]
    found[place[inside]] = judged.suspects.scores[inside]
    return found
