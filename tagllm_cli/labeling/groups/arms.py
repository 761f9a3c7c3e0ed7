"""Arms: the ways in which a vocabulary is partitioned into groups, and where labels that are added later go.

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

_PARTITIONS = {"cooccurring": cooccurring, "disjoint": disjoint}
_RANDOM = "random"
_SEEDED = re.compile(r"(.+)@(0|[1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class Group:
    """Labels that one request asks about. The id is permanent and names the arm; names that were removed stay in it."""

    id: str
    names: tuple[str, ...]

    def with_labels(self, added: Sequence[str], live: Collection[str]) -> Group:
        """Return the group with new names, and without those that are not `live`: it is asked again anyway."""
        return Group(self.id, (*(name for name in self.names if name in live), *added))


@dataclass(frozen=True)
class GroupingBasis:
    """What groups are made by: co-occurrence where it is known, else the labels' parents; computed when needed."""

    vocabulary: Vocabulary
    cooccurrence: Cooccurrence | None = None

    @property
    def about(self) -> str:
        """Where it comes from, for messages and the plan."""
        return PARENTS if self.cooccurrence is None else self.cooccurrence.about

    @cached_property
    def affinity(self) -> npt.NDArray[np.float32]:
        """The affinity [L, L] in [0, 1] in the vocabulary's order: 400 MB for 10,000 labels."""
        return affinity_by_parent(self.vocabulary) if self.cooccurrence is None else self.cooccurrence.affinity


def base_of(arm: str) -> str:
    """Return the arm's name without its seed."""
    seeded = _SEEDED.fullmatch(arm)
    return seeded[1] if seeded else arm


def make_groups(arms: Sequence[str], basis: GroupingBasis, size: int) -> dict[str, tuple[Group, ...]]:
    """Partition the vocabulary into groups of at most `size`, once per arm; its author's groups stay as they are.

    Raises UsageError for an arm that does not exist, and for two names of one arm.
    """
    vocabulary = basis.vocabulary
    parsed = {arm: _parsed(arm, vocabulary) for arm in arms}
    _check_different(parsed)

    @cache
    def partition(base: str) -> Sequence[Sequence[str]]:
        if base in vocabulary.groups:
            return vocabulary.groups[base]
        return _PARTITIONS[base](vocabulary.names, basis.affinity, size, MAX_GROUP_CHARS)

    def groups_of(arm: str) -> Sequence[Sequence[str]]:
        base, seed = parsed[arm]
        if base == _RANDOM and base not in vocabulary.groups:
            return random_partition(vocabulary.names, size, seed or 0, MAX_GROUP_CHARS)
        return partition(base) if seed is None else shuffled(partition(base), seed)

    return {
        arm: tuple(Group(f"{arm}:{number}", tuple(names)) for number, names in enumerate(groups_of(arm)))
        for arm in sorted(arms)  # the order in which the evidence lists them, and rows name them
    }


def _parsed(arm: str, vocabulary: Vocabulary) -> tuple[str, int | None]:
    """Return an arm's base and seed; a name that the vocabulary's author gave is taken as it is."""
    base = arm if arm in vocabulary.groups else base_of(arm)
    if base not in vocabulary.groups and base not in (*_PARTITIONS, _RANDOM):
        known = ", ".join(dict.fromkeys((*vocabulary.groups, *_PARTITIONS, _RANDOM)))
        raise UsageError(
            f"there is no arm named {arm!r}",
            f"Arms of this vocabulary: {known}; each also as NAME@SEED, a whole number such as {_RANDOM}@1.",
        )
    if base == arm:
        return base, 0 if base == _RANDOM and base not in vocabulary.groups else None
    return base, int(arm.removeprefix(f"{base}@"))


def _check_different(parsed: Mapping[str, tuple[str, int | None]]) -> None:
    """Refuse two names of one arm, whose answers would count twice."""
    names: dict[tuple[str, int | None], str] = {}
    for arm, meant in parsed.items():
        other = names.setdefault(meant, arm)
        if other != arm:
            raise UsageError(f"{other} and {arm} are one and the same arm", "Leave one of them out of --arms.")


def add_labels(
    arms: Mapping[str, tuple[Group, ...]], added: Sequence[str], basis: GroupingBasis, size: int
) -> tuple[dict[str, tuple[Group, ...]], list[list[str]]]:
    """Add new labels to groups of every arm that are not full, or to new ones; no other label moves.

    Returns the arms and, for every arm that changes, the ids of the groups that are asked again.
    """
    updated, touched = dict(arms), []
    for arm, groups in arms.items():
        asked = {name for group in groups for name in group.names}
        fresh = [name for name in added if name not in asked]  # labels that were removed once are still in their group
        if fresh:
            updated[arm], ids = _add_to_arm(arm, groups, fresh, basis, size)
            touched.append(ids)
    return updated, touched


def update_groups(
    pinned: Mapping[str, tuple[Group, ...]], made: Mapping[str, tuple[Group, ...]], basis: GroupingBasis, size: int
) -> dict[str, tuple[Group, ...]]:
    """Return the pinned groups of every arm in `made`, with new labels added and removed ones taken out.

    Groups that the vocabulary's author wrote are taken as they were `made`. A group that lost all its labels stays,
    empty, so that no other group gets its id.
    """
    vocabulary = basis.vocabulary
    updated, _ = add_labels(pinned, vocabulary.names, basis, size)
    written, live = vocabulary.groups.keys(), frozenset(vocabulary.names)
    return {
        arm: groups if {arm, base_of(arm)} & written else tuple(group.with_labels((), live) for group in updated[arm])
        for arm, groups in made.items()
    }


def _add_to_arm(
    arm: str, groups: Sequence[Group], fresh: Sequence[str], basis: GroupingBasis, size: int
) -> tuple[tuple[Group, ...], list[str]]:
    position = {name: index for index, name in enumerate(basis.vocabulary.names)}
    kind, square = base_of(arm), (len(position), len(position))
    # Of a random arm nothing is related: the smallest group that is not full takes the label.
    affinity = np.broadcast_to(np.float32(0), square) if kind == _RANDOM else basis.affinity
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
    updated = list(groups)
    updated += (Group(f"{arm}:{number}", ()) for number in range(len(groups), len(members)))
    for index, names in joining.items():
        updated[index] = updated[index].with_labels(names, position)
    return tuple(updated), [updated[index].id for index in joining]
