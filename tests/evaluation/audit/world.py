"""A table whose truth is known: skewed labels, scenes in which labels occur together, misses, doubts, probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tagllm_cli.evaluation.audit.population import Population, population
from tagllm_cli.evaluation.entries import PREDICTED, UNDECIDED, Entries
from tagllm_cli.records import Status
from tagllm_cli.vocabulary.model import Label, Vocabulary

SCENES = 4


@dataclass(frozen=True)
class World:
    """Entries of a table, and what is there: `true` [images, labels] bool."""

    entries: Entries
    vocabulary: Vocabulary
    true: Any

    @property
    def population(self) -> Population:
        """All pairs."""
        return population(self.entries, self.vocabulary)

    @property
    def said(self) -> Any:
        """What is predicted, bool [images, labels]."""
        said = np.zeros(self.true.shape, bool)
        chosen = (self.entries.flags & PREDICTED) > 0
        said[self.entries.rows[chosen], self.entries.labels[chosen]] = True
        return said

    @property
    def figures(self) -> dict[str, float]:
        """The true precision, recall, F1 and prevalence."""
        hits, said, present = (float(each.sum()) for each in (self.said & self.true, self.said, self.true))
        return {
            "precision": hits / said,
            "recall": hits / present,
            "f1": 2 * hits / (said + present),
            "prevalence": present / self.true.size,
        }


def world(
    seed: int, images: int = 20_000, labels: int = 20, *, often: float = 0.3, rarely: float = 0.002,
    missed: float = 0.15, doubt: float = 1.5,
) -> World:  # fmt: skip
    """Return a table: the commonest label is in a share `often` of the images, the rarest in `rarely` of them.

    About a share `missed` of what is there is never proposed; the greater `doubt`, the more false answers.
    """
    random = np.random.default_rng(seed)
    share = np.geomspace(often, rarely, labels)
    affinity = random.choice([0.3, 1, 3], size=(SCENES, labels))[random.integers(0, SCENES, images)]
    true = random.random((images, labels)) < np.minimum(0.9, share * affinity)
    answer = np.where(true, random.normal(2.2, 1.6, true.shape), random.normal(doubt - 2.5, 1.5, true.shape))
    score = (1 / (1 + np.exp(-answer))) ** random.uniform(0.7, 1.4, labels)
    found = random.random(true.shape) > missed * random.choice([0.3, 1, 2], labels)
    proposed = np.where(true, found, random.random(true.shape) < np.minimum(0.5, share * affinity / 4 + 0.002))
    rows, columns = np.nonzero(proposed)
    scores = score[rows, columns].astype(np.float32)
    undecided = random.random(len(rows)) < 0.01
    flags = np.where(undecided, UNDECIDED, np.where(scores > 0.5, PREDICTED, 0)).astype(np.int8)
    names = tuple(f"label {number}" for number in range(labels))
    entries = Entries(
        ids=[f"{number:06}.jpg" for number in range(images)],
        statuses=[Status.OK] * images,
        widths=np.full(images, 4, np.int32),
        heights=np.full(images, 4, np.int32),
        names=names,
        arm_names=(),
        rows=rows.astype(np.int64),
        labels=columns.astype(np.int64),
        scores=scores,
        probabilities=scores,
        flags=flags,
        arms=np.zeros(len(rows), np.uint64),
    )
    return World(entries, Vocabulary("world", tuple(map(Label, names))), true)
