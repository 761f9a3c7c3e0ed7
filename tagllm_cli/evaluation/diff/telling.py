"""The flips that tell most: of each cause those whose probability moved furthest, in turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tagllm_cli.evaluation.diff.causes import CAUSES
from tagllm_cli.evaluation.diff.pairs import Pairs
from tagllm_cli.evaluation.diff.side import NO, NOTHING, UNKNOWN, YES
from tagllm_cli.evaluation.entry_arrays import Array

# Where an answer has no probability: what its decision stands for.
_STANDS_FOR = np.zeros(4, np.float32)
_STANDS_FOR[[NOTHING, NO, UNKNOWN, YES]] = 0, 0, 0.5, 1


@dataclass(frozen=True, slots=True)
class Flips:
    """Some flips as parallel arrays; `states` and `probabilities` are [2, flips], `moves` are differences in [0, 1]."""

    images: Array
    labels: Array
    states: Array
    probabilities: Array
    causes: Array
    moves: Array

    @classmethod
    def of(cls, flips: Pairs, probabilities: tuple[Array, Array], causes: Array) -> Flips:
        """Return flips with how far each probability moved."""
        known = [
            np.where(np.isnan(each), _STANDS_FOR[states], each)
            for each, states in zip(probabilities, flips.states, strict=True)
        ]
        moves = np.abs(known[1] - known[0])
        return cls(flips.images, flips.labels, np.stack(flips.states), np.stack(probabilities), causes, moves)

    def taken(self, which: Array) -> Flips:
        """Return some of them; `which` are places or bool."""
        columns = (self.images, self.labels, self.states, self.probabilities, self.causes, self.moves)
        return Flips(*(each[..., which] for each in columns))

    def with_(self, other: Flips) -> Flips:
        """Return these, then the others."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        return Flips(*(np.concatenate(both, axis=-1) for both in pairs))


class Telling:
    """Keeps the `most` flips of each cause that moved furthest; the first ones where several moved as far."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[int, Flips] = {}

    def add(self, flips: Flips) -> None:
        """Look at more flips, in the order of images and labels."""
        for cause in np.unique(flips.causes).tolist():
            found = flips.taken(flips.causes == cause)
            if cause in self._kept:
                found = self._kept[cause].with_(found)
            self._kept[cause] = found.taken(np.argsort(-found.moves, kind="stable")[: self._most])

    def in_turn(self) -> Iterator[tuple[int, Flips]]:
        """Yield the flips one by one, as (place, flips that hold it): each cause's first, then each one's second."""
        for place in range(self._most):
            for cause in range(len(CAUSES)):
                kept = self._kept.get(cause)
                if kept is not None and place < len(kept.moves):
                    yield place, kept
