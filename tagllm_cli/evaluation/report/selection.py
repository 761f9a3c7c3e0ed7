"""Which images a report shows: most by interest, the rest at random, so that it shows also what went well.

An image is interesting for a cell (a pair of image and label): an error of the model, what people said and is
doubtful, a disagreement of tables, a doubt of the model. Of each kind the heaviest cell of each label comes first, then
the second of each label: a frequent label does not fill the gallery, and a rare one is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tagllm_cli.evaluation.entries import PREDICTED, UNDECIDED, Array
from tagllm_cli.evaluation.report.subject import Subject
from tagllm_cli.evaluation.suspects import ANNOTATOR

RANDOM_SHARE = 0.25
MOST_FAILED = 20
KINDS = ("error", "suspect", "disagreement", "doubt")
RANDOM, REST, FAILED = "random", "rest", "failed"


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells with how interesting each is: `rows` and `labels` int64, `weights` float."""

    rows: Array
    labels: Array
    weights: Array


def choose(subject: Subject, count: int, seed: int = 0) -> list[tuple[int, str]]:
    """Return up to `count` rows of the table in its order, each with why it was chosen.

    A reason is one of KINDS, RANDOM or FAILED, or REST where `count` takes in the whole table. A quarter is drawn at
    random among all answered images: an unbiased sample of the table. A few that failed are shown, too.
    """
    generator = np.random.default_rng(seed)
    answered = subject.answered
    kinds = interests(subject)
    failed = np.setdiff1d(np.arange(len(subject.entries.ids)), answered, assume_unique=True)
    some_failed = failed[: min(MOST_FAILED, count // 20)]
    left = count - len(some_failed)
    share = RANDOM_SHARE if kinds else 1.0
    drawn = round(left * share) if left < len(answered) else 0
    chosen = {int(row): RANDOM for row in generator.choice(answered, drawn, replace=False)} if drawn else {}
    queues = {kind: iter(_in_turn(cells).tolist()) for kind, cells in kinds.items()}
    while queues and len(chosen) < left:
        for kind, queue in list(queues.items()):
            row = next((row for row in queue if row not in chosen), None)
            if row is None:
                del queues[kind]
            elif len(chosen) < left:
                chosen[row] = kind
    if missing := left - len(chosen):  # too few are interesting
        others = np.setdiff1d(answered, np.fromiter(chosen, np.int64, len(chosen)), assume_unique=True)
        more = generator.choice(others, min(missing, len(others)), replace=False)
        chosen |= {int(row): REST if missing >= len(others) else RANDOM for row in more}
    chosen |= {int(row): FAILED for row in some_failed}
    return sorted(chosen.items())


def interests(subject: Subject) -> Mapping[str, Cells]:
    """Return the interesting cells of each kind that there are: KINDS."""
    found = dict(
        zip(KINDS, (_errors(subject), _suspects(subject), _disagreements(subject), _doubts(subject)), strict=True)
    )
    return {kind: cells for kind, cells in found.items() if len(cells.rows)}


def _errors(subject: Subject) -> Cells:
    """Return wrong labels by their probability, and missed ones by what it lacks to 1; 1 where one was not proposed."""
    if subject.judged is None:
        return _NONE
    found = subject.judged.suspects
    rows, labels = subject.judged.disputed()
    yes = np.where(np.isnan(found.probabilities), 0.0 + ~found.seen, found.probabilities)
    return Cells(rows, labels, np.where(found.seen, 1 - yes, yes))


def _suspects(subject: Subject) -> Cells:
    """Return the disagreements in which probably the annotator is wrong."""
    if subject.judged is None:
        return _NONE
    found = subject.judged.suspects
    rows, labels = subject.judged.disputed()
    doubtful = found.verdicts == ANNOTATOR
    return Cells(rows[doubtful], labels[doubtful], found.scores[doubtful])


def _doubts(subject: Subject) -> Cells:
    """Return the entries whose score is nearer to the threshold than half way, and the undecided ones."""
    entries = subject.entries
    threshold = subject.thresholds[entries.labels]
    scale = np.maximum(np.where(entries.scores > threshold, 1 - threshold, threshold), 1e-9)
    weights = np.where((entries.flags & UNDECIDED) > 0, 1.0, 1 - np.abs(entries.scores - threshold) / scale)
    near = weights > 0.5
    return Cells(entries.rows[near], entries.labels[near], weights[near])


def _disagreements(subject: Subject) -> Cells:
    """Return the cells to which only one of two tables gives a label; heavier where more tables differ from ours."""
    entries, width = subject.entries, len(subject.entries.names)
    own = entries.cells[(entries.flags & PREDICTED) > 0]
    answered = np.zeros(len(entries.ids), bool)
    answered[subject.answered] = True
    parts = []
    for other in subject.others:
        cells = np.setxor1d(own, other.cells)
        rows, labels = cells // width, cells % width
        parts.append(cells[other.covers[rows] & answered[rows] & other.knows[labels]])
    cells, times = np.unique(np.concatenate(parts or [own[:0]]), return_counts=True)
    return Cells(cells // width, cells % width, times.astype(np.float64))


_NONE = Cells(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def _in_turn(cells: Cells) -> Array:
    """Return the rows of cells, each label's heaviest cell first, then each label's second; int64, each once."""
    order = np.lexsort((cells.rows, -cells.weights, cells.labels))
    labels = cells.labels[order]
    starts = np.searchsorted(labels, labels)  # where the label's cells begin
    rank = np.arange(len(order)) - starts
    in_turn = cells.rows[order[np.lexsort((-cells.weights[order], rank))]]
    _, first = np.unique(in_turn, return_index=True)
    return np.asarray(in_turn[np.sort(first)])


def counted(chosen: Sequence[tuple[int, str]]) -> dict[str, int]:
    """Return how many images were chosen for each reason, in the order of the reasons."""
    reasons = [why for _, why in chosen]
    return {why: reasons.count(why) for why in (*KINDS, RANDOM, REST, FAILED) if why in reasons}
