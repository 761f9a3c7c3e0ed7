"""Arms: how they are written, what a seed changes, and where a new label goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagllm_cli.errors import UsageError
from tagllm_cli.labeling.groups.arms import Group, GroupingBasis, add_labels, make_groups, update_groups
from tagllm_cli.labeling.groups.cooccurrence import Cooccurrence
from tagllm_cli.labeling.groups.partition import affinity_by_parent
from tagllm_cli.vocabulary.model import Label, Vocabulary

NAMES = tuple(f"label {number}" for number in range(20))
TWENTY = Vocabulary("twenty", tuple(Label(name, f"parent {index % 4}") for index, name in enumerate(NAMES)))
WRITTEN = replace(TWENTY, groups={"mine": [NAMES[:12], NAMES[12:]], "odd@1": [NAMES]})


def made(arm: str, vocabulary: Vocabulary = TWENTY, size: int = 6) -> tuple[Group, ...]:
    return make_groups([arm], GroupingBasis(vocabulary), size)[arm]


def names(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    return [group.names for group in groups]


def members(groups: Sequence[Group]) -> list[frozenset[str]]:
    return [frozenset(group.names) for group in groups]


def test_a_seed_makes_another_random_partition() -> None:
    seven = made("random@7")
    assert [group.id for group in seven] == [f"random@7:{number}" for number in range(4)]
    assert {len(group.names) for group in seven} == {5}
    assert sorted(chain.from_iterable(names(seven))) == sorted(NAMES)
    assert set(members(seven)).isdisjoint(members(made("random@8")))
    assert names(made("random")) == names(made("random@0")) != names(seven)


@pytest.mark.parametrize("arm", ["cooccurring", "disjoint", "mine"])
def test_a_seed_orders_the_names_of_any_other_arm_anew_and_nothing_else(arm: str) -> None:
    plain, two, three = (made(each, WRITTEN) for each in (arm, f"{arm}@2", f"{arm}@3"))
    assert members(plain) == members(two) == members(three)
    assert len({tuple(names(groups)) for groups in (plain, two, three)}) == 3
    assert names(made(f"{arm}@2", WRITTEN)) == names(two)
    assert [group.id for group in two] == [f"{arm}@2:{number}" for number in range(len(plain))]


def test_a_name_that_the_author_gave_is_taken_as_it_is() -> None:
    assert names(made("odd@1", WRITTEN)) == [NAMES]
    assert members(made("odd@1@5", WRITTEN)) == [frozenset(NAMES)]
    random = replace(TWENTY, groups={"random": [NAMES[:3], NAMES[3:]]})
    assert names(made("random", random)) == [NAMES[:3], NAMES[3:]]


@pytest.mark.parametrize(
    "arm",
    [
        "",
        "@",
        "@1",
        "other",
        "other@1",
        "random@",
        "random@-1",
        "random@x",
        "random@01",
        "random@1@2",
        "random@9999999999",
    ],
)
def test_an_arm_that_is_unknown_or_malformed_is_refused_with_the_known_ones(arm: str) -> None:
    with pytest.raises(UsageError, match="there is no arm named") as raised:
        make_groups(["disjoint", arm], GroupingBasis(WRITTEN), 6)
    assert raised.value.exit_code == 2
    assert raised.value.hint == (
        "Arms of this vocabulary: mine, odd@1, cooccurring, disjoint, random; "
        "each also as NAME@SEED, a whole number such as random@1."
    )


def test_two_names_of_one_arm_are_refused() -> None:
    """Each of its answers would have two votes."""
    with pytest.raises(UsageError, match="random and random@0 are one and the same arm"):
        make_groups(["random", "disjoint", "random@0"], GroupingBasis(WRITTEN), 6)
    own = replace(WRITTEN, groups={"random": WRITTEN.groups["mine"]})  # whose seeds are orders, as of every own arm
    assert list(make_groups(["random", "random@0"], GroupingBasis(own), 6)) == ["random", "random@0"]


def test_kept_groups_lose_what_was_removed_and_are_joined_by_what_is_new() -> None:
    pinned = {
        "disjoint": (Group("disjoint:0", ("a", "b")), Group("disjoint:1", ("c",)), Group("disjoint:2", ("d", "e"))),
        "mine": (Group("mine:0", ("a", "b", "c", "d", "e")),),
    }
    now = Vocabulary("now", tuple(map(Label, "abdef")), {"mine": [["a", "b"], ["d", "e", "f"]]})
    anew = make_groups(["disjoint", "mine"], GroupingBasis(now), 2)
    kept = update_groups(pinned, anew, GroupingBasis(now), 2)
    assert [(group.id, group.names) for group in kept["disjoint"]] == [
        ("disjoint:0", ("a", "b")),
        ("disjoint:1", ("f",)),
        ("disjoint:2", ("d", "e")),
    ]
    assert kept["mine"] == anew["mine"]
    fewer = Vocabulary("fewer", tuple(map(Label, "abde")))
    assert update_groups(pinned, anew, GroupingBasis(fewer), 2)["disjoint"][1] == Group("disjoint:1", ())


def test_the_affinity_is_made_once_and_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Vocabulary] = []

    def counted(vocabulary: Vocabulary) -> npt.NDArray[np.float32]:
        calls.append(vocabulary)
        return affinity_by_parent(vocabulary)

    monkeypatch.setattr("tagllm_cli.labeling.groups.arms.affinity_by_parent", counted)
    make_groups(["mine", "mine@1", "random", "random@3"], GroupingBasis(WRITTEN), 6)
    assert calls == []
    every = ["cooccurring", "cooccurring@1", "disjoint", "disjoint@1", "random"]
    before = make_groups(every, GroupingBasis(TWENTY), 6)
    assert len(calls) == 1
    more = replace(TWENTY, labels=(*TWENTY.labels, Label("x"), Label("y"), Label("z")))
    add_labels({"random": before["random"]}, ["x"], GroupingBasis(more), 6)
    assert len(calls) == 1
    _, touched = add_labels(before, ["x", "y", "z"], GroupingBasis(more), 6)
    assert (len(calls), len(touched)) == (2, 5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.integers(2, 16), st.integers(1, 4))
def test_labels_that_are_added_move_no_other_and_keep_the_arms_of_one_base_alike(
    seed: int, size: int, known: int, added: int
) -> None:
    random = np.random.default_rng(seed)
    half = np.triu(random.random((known + added, known + added), dtype=np.float32))
    affinity = np.maximum(half, half.T)
    labels = tuple(Label(name) for name in NAMES[: known + added])
    before = make_groups(
        ["cooccurring", "cooccurring@1", "disjoint", "disjoint@1", "random"],
        GroupingBasis(Vocabulary("few", labels[:known]), Cooccurrence(affinity[:known, :known], "chance")),
        size,
    )
    basis = GroupingBasis(Vocabulary("more", labels), Cooccurrence(affinity, "chance"))
    fresh = [label.name for label in labels[known:]]
    after, touched = add_labels(before, fresh, basis, size)
    for arm, groups in after.items():
        assert sorted(chain.from_iterable(names(groups))) == sorted(label.name for label in labels)
        assert max(len(group.names) for group in groups) <= size
        for old, new in zip(before[arm], groups, strict=False):
            assert (new.id, new.names[: len(old.names)]) == (old.id, old.names)
    assert members(after["cooccurring"]) == members(after["cooccurring@1"])
    assert members(after["disjoint"]) == members(after["disjoint@1"])
    assert all(1 <= len(ids) <= added for ids in touched)
    one, touched = add_labels(before, fresh[:1], basis, size)
    assert [len(ids) for ids in touched] == [1] * len(one)


def test_a_new_label_joins_the_smallest_group_of_a_random_arm() -> None:
    labels = Vocabulary("tiny", tuple(Label(name, "same") for name in "abcde"))
    uneven = {
        arm: (Group(f"{arm}:0", ("a", "b", "c")), Group(f"{arm}:1", ("d",))) for arm in ("random@4", "cooccurring")
    }
    after, touched = add_labels(uneven, ["e"], GroupingBasis(labels), 5)
    assert touched == [["random@4:1"], ["cooccurring:0"]]
    assert names(after["random@4"]) == [("a", "b", "c"), ("d", "e")]


def test_rounding_does_not_part_arms_that_differ_in_order_only() -> None:
    labels = Vocabulary("tiny", tuple(map(Label, "abcdefx")))
    affinity = np.eye(7, dtype=np.float32)
    affinity[6, :6] = affinity[:6, 6] = (0.1, 0.6, 0.7) * 2  # 0.1 + 0.6 + 0.7 is more than 0.7 + 0.6 + 0.1
    before = {
        "cooccurring": (Group("cooccurring:0", ("a", "b", "c")), Group("cooccurring:1", ("d", "e", "f"))),
        "cooccurring@1": (Group("cooccurring@1:0", ("c", "b", "a")), Group("cooccurring@1:1", ("d", "e", "f"))),
    }
    after, _ = add_labels(before, ["x"], GroupingBasis(labels, Cooccurrence(affinity, "chance")), 4)
    assert members(after["cooccurring"]) == members(after["cooccurring@1"])
