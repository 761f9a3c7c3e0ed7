"""Groups: every label exactly once per arm, balanced, together or apart, and no moves when a label is added."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagllm_cli.labeling.groups.cooccurrence import Cooccurrence
from tagllm_cli.labeling.groups.partition import (
    affinity_by_parent,
    cooccurring,
    disjoint,
    place,
    random_partition,
    shuffled,
)
from tagllm_cli.labeling.plan import PlanOptions
from tagllm_cli.labeling.replan import new_plan, revise
from tagllm_cli.labeling.templates import load_templates
from tagllm_cli.vocabulary.load import load_vocabulary
from tagllm_cli.vocabulary.model import Label, Vocabulary

TEMPLATES = load_templates()
Partition = Callable[..., list[list[str]]]
ARMS = pytest.mark.parametrize("partition", [cooccurring, disjoint])


def at_random(names: Sequence[str], affinity: np.ndarray, size: int, max_chars: int = 1500) -> list[list[str]]:
    return random_partition(names, size, 5, max_chars)


PARTITIONS = pytest.mark.parametrize("partition", [cooccurring, disjoint, at_random])
FEW = settings(max_examples=60, deadline=None)
PARENTS = st.lists(st.sampled_from([None, "a", "b", "c", "d"]), min_size=1, max_size=60)


def vocabulary_of(parents: Sequence[str | None]) -> Vocabulary:
    return Vocabulary("test", tuple(Label(f"label {number}", parent) for number, parent in enumerate(parents)))


def random_affinity(seed: int, count: int) -> np.ndarray:
    values = np.random.default_rng(seed).random((count, count)) ** 4
    return ((values + values.T) / 2).astype(np.float32)


def names_of(count: int) -> list[str]:
    return [f"label {number}" for number in range(count)]


def inner(groups: list[list[str]], affinity: np.ndarray) -> float:
    """Sum the affinity over all pairs within groups."""
    rows = [[int(name.split()[1]) for name in group] for group in groups]
    return sum(float(np.triu(affinity[np.ix_(row, row)], 1).sum()) for row in rows)


def expected_at_random(groups: list[list[str]], affinity: np.ndarray) -> float:
    """The mean of `inner` over all partitions into groups of these sizes."""
    count = len(affinity)
    pairs = sum(len(group) * (len(group) - 1) / 2 for group in groups)
    return float(np.triu(affinity, 1).sum()) * pairs / max(1, count * (count - 1) / 2)


@PARTITIONS
@given(parents=PARENTS, size=st.integers(1, 20))
@FEW
def test_every_label_is_in_one_balanced_group(partition: Partition, parents: list[str | None], size: int) -> None:
    vocabulary = vocabulary_of(parents)
    groups = partition(vocabulary.names, affinity_by_parent(vocabulary), size)
    assert sorted(name for group in groups for name in group) == sorted(vocabulary.names)
    sizes = {len(group) for group in groups}
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert len(groups) == -(-len(parents) // size)


@PARTITIONS
@given(lengths=st.lists(st.integers(1, 200) | st.just(5), min_size=1, max_size=60), size=st.integers(1, 20))
@FEW
def test_long_names_make_smaller_groups(partition: Partition, lengths: list[int], size: int) -> None:
    names = [f"{number}{'x' * length}" for number, length in enumerate(lengths)]
    groups = partition(names, random_affinity(0, len(names)), size, 150)
    assert sorted(name for group in groups for name in group) == sorted(names)
    assert all(len(group) == 1 or sum(len(json.dumps(name)) + 2 for name in group) <= 150 for group in groups)
    assert max(map(len, groups)) <= size


@given(seed=st.integers(0, 999), count=st.integers(1, 40), size=st.integers(1, 12))
@FEW
def test_arms_gather_and_spread_better_than_chance(seed: int, count: int, size: int) -> None:
    affinity = random_affinity(seed, count)
    together, apart = (partition(names_of(count), affinity, size) for partition in (cooccurring, disjoint))
    rounding = 0.001 * count * size
    assert inner(together, affinity) >= expected_at_random(together, affinity) - rounding
    assert inner(apart, affinity) <= expected_at_random(apart, affinity) + rounding


SHARED = st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]) | st.floats(0, 1, width=32)


@given(data=st.data(), count=st.integers(2, 16), size=st.integers(1, 8))
@FEW
def test_disjoint_groups_hold_no_more_than_random_ones_do_on_average(
    data: st.DataObject, count: int, size: int
) -> None:
    affinity = np.eye(count, dtype=np.float32)
    above = np.triu_indices(count, 1)
    affinity[above] = data.draw(st.lists(SHARED, min_size=len(above[0]), max_size=len(above[0])))
    affinity = np.maximum(affinity, affinity.T)
    apart = disjoint(names_of(count), affinity, size)
    randoms = [random_partition(names_of(count), size, seed) for seed in range(40)]
    assert sorted(map(len, randoms[0])) == sorted(map(len, apart))
    rounding = 0.001 * count * size
    assert inner(apart, affinity) <= np.mean([inner(each, affinity) for each in randoms]) + rounding


@pytest.mark.parametrize("affinity", [random_affinity(4, 80), affinity_by_parent(load_vocabulary("coco"))])
def test_disjoint_groups_hold_less_than_any_of_many_random_ones(affinity: np.ndarray) -> None:
    randoms = [inner(random_partition(names_of(80), 12, seed), affinity) for seed in range(100)]
    assert inner(disjoint(names_of(80), affinity, 12), affinity) < min(randoms)
    assert inner(cooccurring(names_of(80), affinity, 12), affinity) > max(randoms)
    expected = expected_at_random(random_partition(names_of(80), 12, 0), affinity)
    assert np.mean(randoms) == pytest.approx(expected, abs=4 * np.std(randoms) / np.sqrt(len(randoms)))


def test_a_random_partition_is_made_by_its_seed() -> None:
    names = names_of(50)
    randoms = [random_partition(names, 8, seed) for seed in range(20)]
    assert randoms == [random_partition(list(names), 8, seed) for seed in range(20)]
    assert len({tuple(map(tuple, each)) for each in randoms}) == 20
    # The same on every machine: such groups are what a recorded answer is about.
    assert random_partition(names_of(5), 2, 7) == [["label 4", "label 0"], ["label 3", "label 1"], ["label 2"]]


@given(sizes=st.lists(st.integers(0, 12), max_size=8), seed=st.integers(0, 999))
@FEW
def test_shuffling_changes_the_order_within_groups_and_nothing_else(sizes: list[int], seed: int) -> None:
    groups = [[f"{number}.{each}" for each in range(size)] for number, size in enumerate(sizes)]
    other = shuffled(groups, seed)
    assert [sorted(group) for group in other] == [sorted(group) for group in groups]
    assert shuffled(groups, seed) == other


def test_another_seed_is_another_order() -> None:
    groups = [names_of(12), names_of(9)]
    orders = {tuple(map(tuple, shuffled(groups, seed))) for seed in range(20)}
    assert len(orders) == 20
    assert groups == [names_of(12), names_of(9)]


@given(parents=PARENTS, size=st.integers(1, 20))
@FEW
def test_disjoint_groups_share_out_every_category(parents: list[str | None], size: int) -> None:
    vocabulary = vocabulary_of(parents)
    affinity = affinity_by_parent(vocabulary)
    groups = disjoint(vocabulary.names, affinity, size)
    assert inner(groups, affinity) <= expected_at_random(groups, affinity) + 1e-3
    if len(groups) >= max(parents.count(parent) for parent in "abcd"):
        assert inner(groups, affinity) == 0


@ARMS
def test_groups_are_the_same_every_time(partition: Partition) -> None:
    affinity = random_affinity(3, 50)
    groups = partition(names_of(50), affinity, 8)
    # An affinity that differs by less than its rounding, as another machine's sums do.
    nearby = np.clip(np.rint(affinity * 1000) / 1000 + np.float32(2e-4), 0, 1)
    assert partition(names_of(50), affinity.copy(), 8) == groups
    assert partition(names_of(50), nearby, 8) == partition(names_of(50), np.rint(affinity * 1000) / 1000, 8)


def test_cooccurring_groups_find_planted_scenes() -> None:
    scenes = [f"scene {number % 9}" for number in range(72)]
    affinity = affinity_by_parent(vocabulary_of(scenes)) * np.float32(0.5)
    noise = random_affinity(1, 72) * np.float32(0.2)
    groups = cooccurring(names_of(72), affinity + noise, 8)
    assert all(len({scenes[int(name.split()[1])] for name in group}) == 1 for group in groups)


@PARTITIONS
def test_one_label_and_no_label(partition: Partition) -> None:
    assert partition(["cat"], np.ones((1, 1), dtype=np.float32), 8) == [["cat"]]
    assert partition([], np.ones((0, 0), dtype=np.float32), 8) == []


@ARMS
def test_wrong_arguments_are_refused(partition: Partition) -> None:
    with pytest.raises(ValueError, match="size 0"):
        partition(["cat"], np.ones((1, 1), dtype=np.float32), 0)
    with pytest.raises(ValueError, match=r"affinity \(2, 2\) do not fit 1 labels"):
        partition(["cat"], np.ones((2, 2), dtype=np.float32), 8)


def test_thousands_of_labels_are_cut_in_seconds() -> None:
    vocabulary = vocabulary_of([f"parent {number % 40}" for number in range(1500)])
    affinity = affinity_by_parent(vocabulary)
    for partition in (cooccurring, disjoint):
        groups = partition(vocabulary.names, affinity, 12)
        assert len({name for group in groups for name in group}) == 1500
        assert len(groups) == 125


def test_affinity_is_the_share_of_common_ancestors() -> None:
    labels = [
        *(Label("dog", "pet"), Label("cat", "pet"), Label("pet", "animal"), Label("cow", "animal")),
        *(Label("car", "vehicle"), Label("thing"), Label("other")),
    ]
    affinity = affinity_by_parent(Vocabulary("test", tuple(labels)))
    assert affinity.dtype == np.float32
    assert affinity[0].tolist() == [1, 1, 1, 0.5, 0, 0, 0]  # dog: a pet like cat and pet itself, an animal like cow
    assert affinity[5].tolist() == [0, 0, 0, 0, 0, 1, 0]
    np.testing.assert_array_equal(affinity, affinity.T)


def test_a_category_that_bears_a_labels_name_is_no_loop() -> None:
    person = Label("person", "person")
    assert affinity_by_parent(Vocabulary("test", (person, Label("cat", "animal")))).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("kind", ["cooccurring", "disjoint"])
@given(parents=PARENTS, added=st.integers(1, 15), size=st.integers(1, 12), seed=st.integers(0, 99))
@FEW
def test_added_labels_move_nobody(kind: str, parents: list[str | None], added: int, size: int, seed: int) -> None:
    random = Random(seed)
    after = vocabulary_of([*parents, *random.choices(["a", "b", "z", None], k=added)])
    before = Vocabulary("test", after.labels[: len(parents)])
    position = {name: index for index, name in enumerate(after.names)}
    affinity = affinity_by_parent(after)
    partition = disjoint if kind == "disjoint" else cooccurring
    groups = partition(before.names, affinity_by_parent(before), size)
    for name in after.names[len(parents) :]:
        index = place(groups, name, affinity, position, kind, size)
        if index is None:
            assert all(len(group) == size for group in groups)
            groups.append([name])
        else:
            assert len(groups[index]) < size
            groups[index].append(name)
    assert sorted(name for group in groups for name in group) == sorted(after.names)
    assert len(groups) == -(-len(after.names) // size)


@given(count=st.integers(1, 50), size=st.integers(1, 12), seed=st.integers(0, 99), counted=st.booleans())
@FEW
def test_a_label_added_asks_one_group_of_each_arm_again(count: int, size: int, seed: int, counted: bool) -> None:
    def plan_options(labels: int) -> PlanOptions:
        vocabulary = vocabulary_of([f"parent {number % 4}" for number in range(labels)])
        knowledge = Cooccurrence(random_affinity(seed, labels), "random") if counted else None
        made = PlanOptions(
            "candidates", vocabulary, TEMPLATES, "model", b"0" * 16, group_size=size, cooccurrence=knowledge
        )
        return replace(made, arms=("cooccurring", "disjoint", "random@3", "disjoint@2"))

    before = new_plan(plan_options(count))
    after, _ = revise(before, plan_options(count + 1))
    added = f"label {count}"
    for arm, groups in after.arms.items():
        was = {group.id: group.names for group in before.arms[arm]}
        changed = [group for group in groups if was.get(group.id) != group.names]
        assert [set(group.names) - set(was.get(group.id, ())) for group in changed] == [{added}]
        assert was.keys() - {group.id for group in groups} == set()
        assert sorted(name for group in groups for name in group.names) == sorted(names_of(count + 1))


def test_a_new_label_joins_its_like_or_avoids_them() -> None:
    vocabulary = load_vocabulary("coco")
    position = {name: index for index, name in enumerate(vocabulary.names)}
    affinity = affinity_by_parent(vocabulary)
    groups = [["dog", "cat", "gone"], ["car", "bus"], ["apple", "cow"]]
    assert place(groups, "horse", affinity, position, "cooccurring", 4) == 0
    assert place(groups, "horse", affinity, position, "cooccurring", 3) == 2
    assert place(groups, "horse", affinity, position, "disjoint", 4) == 1
    assert place(groups, "horse", affinity, position, "disjoint", 2) is None
    assert place(groups, "horse", affinity, position, "disjoint", 9, max_chars=20) is None
    assert place([], "horse", affinity, position, "disjoint", 9) is None
    assert place([["car", "bus"], []], "horse", affinity, position, "cooccurring", 9, max_chars=3) == 1
