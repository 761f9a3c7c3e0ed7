"""The cells of the ablation: how candidates are proposed, crossed with how they are decided, and the controls.

A cell is one run of our own jobs on one set of scenes. `effort` is only for the estimate of the time that is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MAIN = 1 / 3
"""The ambiguity dial (Dials.other_sense) of the table itself: the demo world's default."""

DOSES = (0.0, MAIN, 2 / 3)
"""The settings of the ambiguity dial at which the gain from cards is measured."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """A row: `--strategy`, and the arms where it is `groups`. `effort` is relative time per picture."""

    name: str
    title: str
    strategy: str
    effort: float
    arms: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Concepts:
    """A column: what a candidate is asked about with. `is_asked` is False where candidates are taken as they are."""

    name: str
    title: str
    is_asked: bool = True

    @property
    def effort(self) -> float:
        """Relative time per picture."""
        return 1.0 if self.is_asked else 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """One cell's place in the design: the dial of its scenes, its row and its column."""

    other_sense: float
    strategy: Strategy
    concepts: Concepts

    @property
    def candidates(self) -> Place:
        """The cell whose table this one's candidates come from."""
        return Place(self.other_sense, self.strategy, NONE)


OPEN = Strategy("open", "open-ended", "open", 1.0)
ALL = Strategy("all", "all at once", "all", 1.0)
BINARY = Strategy("binary", "binary, exhaustive", "binary", 6.0)
RANDOM = Strategy("random", "random groups", "groups", 2.0, ("random@1",))
COOCCURRING = Strategy("cooccurring", "co-occurring groups", "groups", 2.0, ("cooccurring",))
DISJOINT = Strategy("disjoint", "disjoint groups", "groups", 2.0, ("disjoint",))
BOTH = Strategy("both", "both arms", "groups", 4.0, ("cooccurring", "disjoint"))
RANDOM_TWICE = Strategy("random-twice", "random groups, two arms", "groups", 4.0, ("random@1", "random@2"))
STRATEGIES = (OPEN, ALL, BINARY, RANDOM, COOCCURRING, DISJOINT, BOTH)

NONE = Concepts("none", "no disambiguation", is_asked=False)
BARE = Concepts("bare", "bare yes/no")
DESCRIPTION = Concepts("description", "description")
SIMILAR = Concepts("similar", "description + similar")
SHUFFLED = Concepts("shuffled", "shuffled cards")
PLACEBO = Concepts("placebo", "placebo cards")
REPEATED = Concepts("repeated", "cards that repeat the name")
COLUMNS = (NONE, BARE, DESCRIPTION, SIMILAR)
CONTROLS = (SHUFFLED, PLACEBO, REPEATED)


def _table() -> Iterator[Place]:
    for strategy in STRATEGIES:
        for concepts in COLUMNS:
            yield Place(MAIN, strategy, concepts)


def _controls() -> Iterator[Place]:
    for concepts in (BARE, *CONTROLS):
        yield Place(MAIN, BOTH, concepts)
    yield Place(MAIN, RANDOM_TWICE, NONE)


def _doses() -> Iterator[Place]:
    for other_sense in DOSES:
        for concepts in (BARE, SIMILAR, *CONTROLS):
            yield Place(other_sense, BOTH, concepts)


PARTS = {"table": tuple(_table()), "controls": tuple(_controls()), "dose": tuple(_doses())}
"""What `--only` chooses from."""
