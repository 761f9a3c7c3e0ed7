"""Arms: the ways in which a vocabulary is cut into groups, and how labels that are added later find their group.

An arm is written NAME or NAME@SEED. NAME is an arm whose groups the vocabulary's author wrote, or one of `cooccurring`,
`disjoint` and `random`. A seed makes further arms for the ensemble: of `random` another partition (no seed: seed 0),
of every other arm the same groups with the names inside each in another order.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tagllm_cli.errors import UsageError
from tagllm_cli.labeling.groups.partition import (
    MAX_GROUP_CHARS,
    affinity_by_parent,
    cooccurring,
    disjoint,
    place,
    random_partition,
    shuffled,
)
from tagllm_cli.vocabulary.model import Vocabulary

if TYPE_CHECKING:
    from tagllm_cli.labeling.groups.cooccurrence import Cooccurrence

PARENTS = "parents"

_CUTTERS = {"cooccurring": cooccurring, "disjoint": disjoint}
_RANDOM = "random"
_SEEDED = re.compile(r"(.+)@(0|[1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class Group:
    """Labels that one request asks about. The id is permanent and names the arm; names that were removed stay in it."""

    id: str
    names: tuple[str, ...]

    def joined_by(self, added: Sequence[str], live: Collection[str]) -> Group:
        """Return the group with new names. It is asked again anyway: names that are not `live` leave it now."""
        return Group(self.id, (*(name for name in self.names if name in live), *added))


@dataclass(frozen=True)
class Knowledge:
    """How labels are related: as `counted`, else by their parents. The affinity is made once, when it is needed."""

    vocabulary: Vocabulary
    counted: Cooccurrence | None = None

    @property
    def about(self) -> str:
        """Where it comes from, for people."""
        return PARENTS if self.counted is None else self.counted.about

    @cached_property
    def affinity(self) -> npt.NDArray[np.float32]:
        """The affinity [L, L] in [0, 1] in the vocabulary's order: 400 MB for 10,000 labels."""
        return affinity_by_parent(self.vocabulary) if self.counted is None else self.counted.affinity


def base_of(arm: str) -> str:
    """Return the arm's name without its seed."""
    seeded = _SEEDED.fullmatch(arm)
    return seeded[1] if seeded else arm


def cut(arms: Sequence[str], knowledge: Knowledge, size: int) -> dict[str, tuple[Group, ...]]:
    """Cut the vocabulary into groups of at most `size` once per arm; groups written by its author stay as they are.

    Raises UsageError for an arm that does not exist, and for two names of one arm.
    """
    vocabulary = knowledge.vocabulary
    parsed = {arm: _parsed(arm, vocabulary) for arm in arms}
    _check_different(parsed)

    @cache
    def partition(base: str) -> Sequence[Sequence[str]]:
        if base in vocabulary.groups:
            return vocabulary.groups[base]
        return _CUTTERS[base](vocabulary.names, knowledge.affinity, size, MAX_GROUP_CHARS)

    def groups_of(arm: str) -> Sequence[Sequence[str]]:
        base, seed = parsed[arm]
        if base == _RANDOM and base not in vocabulary.groups:
            return random_partition(vocabulary.names, size, seed or 0, MAX_GROUP_CHARS)
        return partition(base) if seed is None else shuffled(partition(base), seed)

    return {
        arm: tuple(Group(f"{arm}:{number}", tuple(names)) for number, names in enumerate(groups_of(arm)))
        for arm in sorted(arms)  # as the evidence gives them back: answers are told by arm in this order
    }


def _parsed(arm: str, vocabulary: Vocabulary) -> tuple[str, int | None]:
    """Return an arm's base and seed; a name that the vocabulary's author gave is taken as it is."""
    base = arm if arm in vocabulary.groups else base_of(arm)
    if base not in vocabulary.groups and base not in (*_CUTTERS, _RANDOM):
        known = ", ".join(dict.fromkeys((*vocabulary.groups, *_CUTTERS, _RANDOM)))
        raise UsageError(
            f"there is no arm named {arm!r}",
            f"Arms of this vocabulary: {known}; each also as NAME@SEED, a whole number such as {_RANDOM}@1.",
        )
    if base == arm:
        return base, 0 if base == _RANDOM and base not in vocabulary.groups else None
    return base, int(arm.removeprefix(f"{base}@"))


def _check_different(parsed: Mapping[str, tuple[str, int | None]]) -> None:
    """Refuse two names of one arm: each of its answers would have two votes."""
    names: dict[tuple[str, int | None], str] = {}
    for arm, meant in parsed.items():
        other = names.setdefault(meant, arm)
        if other != arm:
            raise UsageError(f"{other} and {arm} are one and the same arm", "Leave one of them out of --arms.")


def grow(
    arms: Mapping[str, tuple[Group, ...]], added: Sequence[str], knowledge: Knowledge, size: int
) -> tuple[dict[str, tuple[Group, ...]], list[list[str]]]:
    """Put new labels into groups with room, or new ones, of every arm; no other label moves.

    Return the arms and, for every arm that changes, the ids of the groups that are asked again.
    """
    grown, touched = dict(arms), []
    for arm, groups in arms.items():
        asked = {name for group in groups for name in group.names}
        fresh = [name for name in added if name not in asked]  # others were removed once and are still asked about
        if fresh:
            grown[arm], ids = _grow(arm, groups, fresh, knowledge, size)
            touched.append(ids)
    return grown, touched


def keep(
    pinned: Mapping[str, tuple[Group, ...]], made: Mapping[str, tuple[Group, ...]], knowledge: Knowledge, size: int
) -> dict[str, tuple[Group, ...]]:
    """Return the pinned groups of every arm in `made`: new labels have joined them, those that were removed are out.

    Groups that the vocabulary's author wrote are taken as they were `made`. A group that lost all its labels stays,
    empty, so that no other ever gets its id.
    """
    vocabulary = knowledge.vocabulary
    grown, _ = grow(pinned, vocabulary.names, knowledge, size)
    written, live = vocabulary.groups.keys(), frozenset(vocabulary.names)
    return {
        arm: groups if {arm, base_of(arm)} & written else tuple(group.joined_by((), live) for group in grown[arm])
        for arm, groups in made.items()
    }


def _grow(
    arm: str, groups: Sequence[Group], fresh: Sequence[str], knowledge: Knowledge, size: int
) -> tuple[tuple[Group, ...], list[str]]:
    position = {name: index for index, name in enumerate(knowledge.vocabulary.names)}
    kind, square = base_of(arm), (len(position), len(position))
    # By lot means related to nothing: the smallest group with room takes the label.
    affinity = np.broadcast_to(np.float32(0), square) if kind == _RANDOM else knowledge.affinity
    # In the vocabulary's order, so that arms that differ only in order sum alike and keep the same groups.
    members = [sorted((name for name in group.names if name in position), key=position.__getitem__) for group in groups]
    joining: dict[int, list[str]] = {}
    for name in fresh:
        index = place(members, name, affinity, position, kind, size, MAX_GROUP_CHARS)
        if index is None:
            index = len(members)
            members.append([])
        members[index].append(name)
        joining.setdefault(index, []).append(name)
    grown = list(groups)
    grown += (Group(f"{arm}:{number}", ()) for number in range(len(groups), len(members)))
    for index, names in joining.items():
        grown[index] = grown[index].joined_by(names, position)
    return tuple(grown), [grown[index].id for index in joining]
