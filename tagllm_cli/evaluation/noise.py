"""Who is wrong: the pairs of image and label where model and people disagree, by confident learning.

Source: Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels (JAIR 70, 2021, arXiv
1911.00068), with each label as a binary problem of its own. The threshold of a class (present, absent) is the mean
probability of that class over the pairs that people put into it; a pair is probably a mistake of people where the other
class reaches its threshold, and of the model where it is less probable than not. Three things differ from the paper:

- The probability is not the model's own, but how often people agree with an answer like it: bins of equal count over
  all labels, an offset for each label (in logits, prior: standard normal), each bin of a label shrunk to that curve. It
  is estimated on the images of the other folds, so that no pair speaks for itself.
- A label that was never proposed was not asked about: it has no probability. What is known is which share `miss` of a
  label that people see is never proposed, the complement of candidate recall (of the other folds, shrunk to that of all
  labels). The score is e / (e + miss): the rarer the candidates miss a label, the more probably people are wrong. No
  data without further questions tell how often people see what is not there; e = 0.2 is a choice.
- Where the other side has a label instead that means nearly the same (`related_labels`), both can be defended.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tagllm_cli.evaluation.entries import HUMAN, NOT_JUDGED, PREDICTED, PRESENT, UNDECIDED, Array, Comparison, is_in
from tagllm_cli.evaluation.related_labels import related_labels
from tagllm_cli.evaluation.suspects import ANNOTATOR, BOTH, MODEL, SHOWN, Suspects
from tagllm_cli.vocabulary.model import Vocabulary

_BINS = 20
_FOLDS = 5
_PRIOR = 10.0  # pairs that the figure of all labels counts as, against those of one label
_STEPS = 8  # of Newton's method
_EVEN = 0.5
_EVEN_MISS = 0.2  # the share missed of a label at which people and candidates are wrong as probably


def find_suspects(comparison: Comparison, vocabulary: Vocabulary, shown: int = SHOWN) -> Suspects:
    """Return the disagreements of a comparison, ranked by how doubtful it is what people say.

    Where an entry has no probability (candidates), its score counts. Undecided labels and those that a person decided
    are no disagreements. Time and memory grow with the labels listed and present, not with images times labels.
    """
    entries, judgments, size = comparison.entries, comparison.judgments, len(comparison.entries.names)
    said = judgments.of(entries.cells)
    judged = (said != NOT_JUDGED) & ((entries.flags & HUMAN) == 0)
    kept = np.flatnonzero(judged & ((entries.flags & UNDECIDED) == 0))
    cells, present = entries.cells[kept], said[kept] == PRESENT
    yes, probabilities = (entries.flags[kept] & PREDICTED) > 0, entries.probabilities[kept]
    answers = np.where(np.isnan(probabilities), entries.scores[kept], probabilities)
    agreement = _agreement(cells, answers, present, size)
    there = judgments.cells[judgments.values == PRESENT]
    missed = ~is_in(there, np.sort(entries.cells))

    chosen, unlisted = np.flatnonzero(yes != present), there[missed]
    found = np.concatenate([cells[chosen], unlisted])
    seen = np.concatenate([present[chosen], np.ones(len(unlisted), bool)])
    wrong = np.where(present, 1 - agreement, agreement)[chosen]
    scores = np.concatenate([wrong, _EVEN_MISS / (_EVEN_MISS + _cross_fitted(there, missed, size)[missed])])
    # The class that people did not choose must reach its threshold.
    of_present = _mean(cells % size, agreement, present, size)
    of_absent = _mean(cells % size, 1 - agreement, ~present, size)
    limits = np.where(seen, of_absent[found % size], of_present[found % size])
    verdicts = np.where(scores >= limits, ANNOTATOR, BOTH).astype(np.int8)
    verdicts[len(chosen) :] = BOTH
    verdicts[_defended(found, seen, related_labels(vocabulary, entries.names), size)] = BOTH
    verdicts[scores < _EVEN] = MODEL
    own = np.concatenate([probabilities[chosen], np.full(len(unlisted), np.nan, np.float32)])
    # Of equal scores, the surer answer first.
    order = np.lexsort((found, -np.nan_to_num(np.abs(own - _EVEN)), -scores))
    return Suspects(
        *(entries.ids, entries.names, found[order] // size, found[order] % size, seen[order]),
        *(order < len(chosen), own[order], verdicts[order], scores[order]),
        undecided=int(np.count_nonzero(judged)) - len(kept),
        present=len(there),
        shown=shown,
    )


def _agreement(cells: Array, answers: Array, present: Array, size: int) -> Array:
    """Return how often people agree with an answer of this strength about this label, float64 [cells] in (0, 1).

    `cells` are row times `size` labels plus label; `answers` lie in [0, 1].
    """
    edges = np.unique(np.quantile(answers, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(answers) else np.empty(0)
    width = len(edges) + 1
    place = _folded(cells, size) * width + np.searchsorted(edges, answers, side="right")
    count, hits = (_of_other_folds(each, size, width) for each in (place, place[present]))
    common = (hits.sum(axis=1) + 1) / (count.sum(axis=1) + 2)
    curve = np.log(common / (1 - common))[:, None, :]
    offset = np.zeros((_FOLDS, size, 1))
    for _ in range(_STEPS):
        expected = 1 / (1 + np.exp(-(curve + offset)))
        slope = (hits - count * expected).sum(axis=2, keepdims=True) - offset
        bend = (count * expected * (1 - expected)).sum(axis=2, keepdims=True) + 1
        offset += np.clip(slope / bend, -1, 1)
    expected = 1 / (1 + np.exp(-(curve + offset)))
    return np.asarray(((hits + _PRIOR * expected) / (count + _PRIOR)).ravel()[place])


def _cross_fitted(cells: Array, which: Array, size: int) -> Array:
    """Return for each cell the share of `which` among the cells of its label in the other folds, shrunk, in (0, 1)."""
    place = _folded(cells, size)
    count, hits = (_of_other_folds(each, size, 1) for each in (place, place[which]))
    common = (hits.sum(axis=1, keepdims=True) + 1) / (count.sum(axis=1, keepdims=True) + 2)
    return np.asarray(((hits + _PRIOR * common) / (count + _PRIOR)).ravel()[place])


def _folded(cells: Array, size: int) -> Array:
    """Return fold times labels plus label: rows are dealt to folds in turn."""
    return np.asarray(cells // size % _FOLDS * size + cells % size)


def _of_other_folds(place: Array, size: int, width: int) -> Array:
    """Return what each fold's complement counts in each place, int64 [folds, labels, width]."""
    count = np.bincount(place, minlength=_FOLDS * size * width).reshape(_FOLDS, size, width)
    return np.asarray(count.sum(axis=0) - count)


def _mean(labels: Array, values: Array, which: Array, size: int) -> Array:
    """Return the mean of `values` over `which` for each label, float64 [labels], shrunk to that of all labels."""
    common = values[which].mean() if which.any() else 1.0
    total = np.bincount(labels[which], values[which], minlength=size)
    return np.asarray((total + _PRIOR * common) / (np.bincount(labels[which], minlength=size) + _PRIOR))


def _defended(cells: Array, seen: Array, related: Sequence[tuple[int, int]], size: int) -> Array:
    """Return for which disagreements the side that lacks the label has a related one instead, bool [cells].

    `seen` where it is people who have the label. What a side has instead is a disagreement, too.
    """
    found, labels = np.zeros(len(cells), bool), cells % size
    ordered = [np.sort(cells[seen == each]) for each in (False, True)]
    for one, other in [*related, *(pair[::-1] for pair in related)]:
        which = np.flatnonzero(labels == one)
        instead = cells[which] - one + other
        found[which] |= np.where(seen[which], is_in(instead, ordered[0]), is_in(instead, ordered[1]))
    return found
