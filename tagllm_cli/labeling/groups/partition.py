"""Partition a vocabulary into groups for group-wise prompting, and place new labels. Pure and deterministic.

Two ways, after TagLLM (Xie et al., arXiv 2602.20972): co-occurring groups hold labels that share scenes, disjoint
groups hold labels that do not. Both are balanced partitions; the affinity summed over all pairs within groups is made
large or small by exchanging pairs of labels. Affinities are rounded to thousandths and counted in integers, so that the
order of summation, and with it the machine, cannot change a group. A random partition is the control of both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from random import Random

import numpy as np
import numpy.typing as npt

from tagllm_cli.vocabulary.model import Vocabulary

MAX_GROUP_CHARS = 1500

_SCALE = 1000  # integer weight of affinity 1
_FADE = 8  # the affinities of earlier labels fade by an eighth at each step
_WORK = 400_000_000  # pairs looked at while improving; below 2,800 labels that is no limit in practice

_Weights = npt.NDArray[np.int16]
_Indices = npt.NDArray[np.intp]


def affinity_by_parent(vocabulary: Vocabulary) -> npt.NDArray[np.float32]:
    """Return how closely two labels are related, [L, L] in [0, 1], symmetric, 1 on the diagonal.

    It is the share of common ancestors from the root down: 1 under the same parent, 0 without a common ancestor. A
    label that is a parent itself counts as one of its own children.
    """
    above = {label.name: label.parent for label in vocabulary.labels}
    is_parent = set(above.values())
    paths = []
    for name in vocabulary.names:
        path: list[str] = [name] if name in is_parent else []
        parent = above[name]
        while parent is not None and parent not in path:
            path.insert(0, parent)
            parent = above.get(parent)
        paths.append(path)
    depth = np.array([len(path) for path in paths], dtype=np.int32)
    codes = np.full((max(depth, default=0), len(paths)), -1, dtype=np.int32)  # one number for each path from the root
    known: dict[tuple[str, ...], int] = {}
    for index, path in enumerate(paths):
        for level in range(len(path)):
            codes[level, index] = known.setdefault(tuple(path[: level + 1]), len(known))
    affinity = np.empty((len(paths), len(paths)), dtype=np.float32)
    for index in range(len(paths)):
        common = ((codes == codes[:, [index]]) & (codes >= 0)).sum(axis=0)
        affinity[index] = common / np.maximum(np.maximum(depth, depth[index]), 1)
    np.fill_diagonal(affinity, 1)
    return affinity


def cooccurring(
    names: Sequence[str], affinity: npt.NDArray[np.float32], size: int, max_chars: int = MAX_GROUP_CHARS
) -> list[list[str]]:
    """Partition names into groups of at most `size` that keep labels of high affinity together.

    `affinity` is [L, L] in [0, 1], in the order of `names`. Sizes differ by at most one, unless a group's names,
    written as a list, would take more than `max_chars` characters; a single longer name is a group of its own. Names
    are in their given order within a group. Raises ValueError for a size below 1 or an affinity of another shape.
    """
    return _partition(names, affinity, size, max_chars, spread=False)


def disjoint(
    names: Sequence[str], affinity: npt.NDArray[np.float32], size: int, max_chars: int = MAX_GROUP_CHARS
) -> list[list[str]]:
    """Partition names into groups of at most `size` that spread labels of high affinity; else as `cooccurring`."""
    return _partition(names, affinity, size, max_chars, spread=True)


def random_partition(names: Sequence[str], size: int, seed: int, max_chars: int = MAX_GROUP_CHARS) -> list[list[str]]:
    """Partition names at random (seeded) into groups of at most `size`; else as `cooccurring`.

    Groups and the names within them are in shuffled order, the same for a seed on every machine.
    """
    if size < 1:
        raise ValueError(f"size {size} is no group size")
    if not names:
        return []
    order = list(range(len(names)))
    Random(seed).shuffle(order)
    chars = np.array([_chars(name) for name in names])
    groups = _layout(np.array(order), chars, size, max_chars, spread=False)
    return [[names[index] for index in group] for group in groups]


def shuffled(groups: Sequence[Sequence[str]], seed: int) -> list[list[str]]:
    """Return the same groups in the same order, the names inside each shuffled, the same for a seed everywhere."""
    random = Random(seed)
    return [random.sample(group, len(group)) for group in groups]


def place(
    groups: Sequence[Sequence[str]],
    name: str,
    affinity: npt.NDArray[np.float32],
    position: Mapping[str, int],
    kind: str,
    size: int,
    max_chars: int = MAX_GROUP_CHARS,
) -> int | None:
    """Return the index of the group that a new label joins, or None where all are full and a new one must be opened.

    `position` gives each label's row of `affinity`; names without one count as unrelated. `kind` "disjoint" takes the
    group, of those that are not full, that the label is least related to, any other kind the one that it is most
    related to; among equals the smallest, then the first. No label that is placed already moves.
    """
    row = affinity[position[name]]
    best: tuple[float, int, int] | None = None
    for index, group in enumerate(groups):
        if len(group) >= size or (group and sum(map(_chars, (*group, name))) > max_chars):
            continue
        related = float(sum(row[position[each]] for each in group if each in position))
        candidate = (related if kind == "disjoint" else -related, len(group), index)
        best = candidate if best is None else min(best, candidate)
    return None if best is None else best[2]


def _partition(
    names: Sequence[str], affinity: npt.NDArray[np.float32], size: int, max_chars: int, *, spread: bool
) -> list[list[str]]:
    count = len(names)
    if size < 1 or affinity.shape != (count, count):
        raise ValueError(f"size {size} and affinity {affinity.shape} do not fit {count} labels")
    if not count:
        return []
    chars = np.array([_chars(name) for name in names])
    weights = _weights(affinity)
    groups = _layout(_walk(weights), chars, size, max_chars, spread=spread)
    _improve(groups, weights, chars, max_chars, spread=spread)
    return [[names[index] for index in group] for group in sorted(sorted(group.tolist()) for group in groups)]


def _chars(name: str) -> int:
    # As a JSON string with its separator: the longest form in which a name is written.
    return len(json.dumps(name, ensure_ascii=False)) + 2


def _weights(affinity: npt.NDArray[np.float32]) -> _Weights:
    """Return the affinity as symmetric integers with an empty diagonal, row by row: 10,000 labels are 400 MB."""
    weights = np.empty(affinity.shape, dtype=np.int16)
    for index in range(len(affinity)):
        weights[index] = np.rint((affinity[index] + affinity[:, index]) * (_SCALE / 2))
    np.fill_diagonal(weights, 0)
    return weights


def _walk(weights: _Weights) -> _Indices:
    """Return an order in which related labels are neighbors: the next is the one most related to the latest ones."""
    count = len(weights)
    heat = np.zeros(count, dtype=np.int32)
    free = np.ones(count, dtype=np.bool_)
    order = np.empty(count, dtype=np.intp)
    for step in range(count):
        index = int(np.argmax(np.where(free, heat, -1)))  # the first among equals
        order[step], free[index] = index, False
        heat -= heat // _FADE
        heat += weights[index]
    return order


def _layout(
    order: _Indices, chars: npt.NDArray[np.int64], size: int, max_chars: int, *, spread: bool
) -> list[_Indices]:
    """Cut the order into balanced groups, in runs or (`spread`) round-robin, the fewest groups that fit."""
    fewest = max(-(-len(order) // size), -(-int(chars.sum()) // max_chars))
    fewest = min(fewest, len(order))
    for number in range(fewest, min(len(order), fewest + fewest // 4) + 1):
        groups = [order[start::number] for start in range(number)] if spread else np.array_split(order, number)
        if all(chars[group].sum() <= max_chars for group in groups):
            return groups
    # A few long names: the groups that hold them are split, the others keep their size.
    groups = [order[start::fewest] for start in range(fewest)] if spread else np.array_split(order, fewest)
    return [part for group in groups for part in _split(group, chars, max_chars)]


def _split(group: _Indices, chars: npt.NDArray[np.int64], max_chars: int) -> list[_Indices]:
    starts, total = [], 0
    for at, index in enumerate(group):
        total += chars[index]
        if at and total > max_chars:
            starts.append(at)
            total = chars[index]
    return np.split(group, starts)


def _improve(
    groups: list[_Indices], weights: _Weights, chars: npt.NDArray[np.int64], max_chars: int, *, spread: bool
) -> None:
    """Exchange pairs of labels between groups, in place, while that lowers (`spread`) or raises the affinity within."""
    count, sign = len(weights), -1 if spread else 1
    group_of = np.empty(count, dtype=np.intp)
    slot = np.empty(count, dtype=np.intp)
    for number, group in enumerate(groups):
        group_of[group], slot[group] = number, np.arange(len(group))
    load = np.array([chars[group].sum() for group in groups])
    # within[g, i]: what label i has in common with group g, negative where that is to be avoided.
    within = np.stack([weights[group].sum(axis=0, dtype=np.int32) for group in groups]) * np.int32(sign)
    for _ in range(max(2, min(50, _WORK // count**2))):
        exchanges = 0
        for one in range(count):
            own = group_of[one]
            growth = chars - chars[one]
            fits = (group_of != own) & (load[own] + growth <= max_chars) & (load[group_of] - growth <= max_chars)
            gain = np.where(fits, _gain(one, group_of, within, weights, sign), 0)
            other = int(np.argmax(gain))
            if gain[other] <= 0:
                continue
            theirs = group_of[other]
            change = sign * (weights[other].astype(np.int32) - weights[one])
            within[own] += change
            within[theirs] -= change
            load[own] += growth[other]
            load[theirs] -= growth[other]
            groups[own][slot[one]], groups[theirs][slot[other]] = other, one
            group_of[one], group_of[other] = theirs, own
            slot[one], slot[other] = slot[other], slot[one]
            exchanges += 1
        if not exchanges:
            return


def _gain(
    one: int, group_of: _Indices, within: npt.NDArray[np.int32], weights: _Weights, sign: int
) -> npt.NDArray[np.int32]:
    """Return, for every label, what its exchange with label `one` adds to the sum within groups."""
    own = group_of[one]
    leaves = within[own, one] + within[group_of, np.arange(len(group_of))]
    # Either joins the group that the other has just left, so what the two have in common counts in neither.
    joins = within[group_of, one] + within[own] - 2 * sign * weights[one].astype(np.int32)
    gain: npt.NDArray[np.int32] = joins - leaves
    return gain
