"""`--replan`: what the command gives is taken, what it does not give stays as it is pinned, and people are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.labeling.plan import DEFAULT_MAX_PIXELS, Plan
from tagllm_cli.labeling.replan import new_plan, renew
from tagllm_cli.vocabulary.model import Vocabulary
from tests.labeling.test_plan import ANIMALS, COUNTED, TEN, THINGS, plan_options, questions, vocabulary


def replanned(pinned: Plan, labels: Vocabulary = TEN, **settings: Any) -> tuple[Plan, list[str]]:
    """Renew a plan by a command that gives the model, and nothing else but `settings`."""
    return renew(pinned, plan_options(labels, **{"group_size": None, **settings}))


USUAL = new_plan(plan_options(group_size=None))
OWN = replace(TEN, groups={"mine": [list(ANIMALS), list(THINGS)]})


@pytest.mark.parametrize(
    ("first", "notes"),
    [
        ({"strategy": "binary"}, ["--replan keeps --strategy binary"]),
        (
            {"strategy": "open", "max_pixels": 50_000},
            ["--replan keeps --strategy open", "--replan keeps --max-pixels 50000"],
        ),
        ({"arms": ("random@3", "disjoint")}, ["--replan keeps --arms disjoint,random@3"]),
        ({"group_size": 4}, ["--replan keeps --group-size 4"]),
        ({}, []),
    ],
    ids=["binary", "open", "arms", "size", "usual"],
)
def test_a_replan_keeps_what_the_command_does_not_give(first: dict[str, Any], notes: list[str]) -> None:
    pinned = new_plan(plan_options(**{"group_size": None, **first}))
    after, said = replanned(pinned, model="other", model_digest=b"o" * 16)
    assert after == replace(pinned, model="other", model_digest=b"o" * 16)
    assert sorted(said) == sorted(notes)


def test_a_replan_takes_what_the_command_gives() -> None:
    pinned = new_plan(plan_options(arms=("random@3",), max_pixels=50_000))
    given: dict[str, Any] = {"arms": ("disjoint",), "group_size": 3, "max_pixels": DEFAULT_MAX_PIXELS}
    after, notes = replanned(pinned, **given)
    assert (after, notes) == (new_plan(plan_options(**given)), [])


def test_another_strategy_takes_no_arms_or_size_along() -> None:
    pinned = new_plan(plan_options(arms=("random@3",)))
    every, notes = replanned(pinned, strategy="binary")
    assert (every, notes) == (new_plan(plan_options(strategy="binary", group_size=None)), [])
    assert replanned(every, strategy="groups") == (USUAL, [])
    with pytest.raises(UsageError, match="--arms is about groups, and --strategy binary has none") as raised:
        replanned(every, arms=("disjoint",))
    assert "--strategy groups" in raised.value.hint


def test_a_replan_takes_arms_that_nobody_chose_from_the_vocabulary() -> None:
    """Groups that its author writes now, or writes otherwise; but arms that were chosen stay."""
    mine, notes = replanned(USUAL, OWN)
    assert (list(mine.arms), notes) == (["mine"], [])
    yours = replace(TEN, groups={"yours": OWN.groups["mine"]})
    assert list(replanned(mine, yours)[0].arms) == ["yours"]
    assert list(replanned(new_plan(plan_options(arms=("disjoint",))), OWN)[0].arms) == ["disjoint"]
    with pytest.raises(UsageError, match="no arm named 'mine'"):
        replanned(new_plan(plan_options(OWN, arms=("mine", "disjoint"))), yours)


def test_a_replan_keeps_the_groups_that_a_file_made_unless_there_is_another() -> None:
    affinity = np.eye(10, dtype=np.float32) + np.eye(10, k=5, dtype=np.float32) + np.eye(10, k=-5, dtype=np.float32)
    counted = replace(COUNTED, affinity=affinity)
    pinned = new_plan(plan_options(cooccurrence=counted, group_size=2))
    kept, notes = replanned(pinned, vocabulary(*TEN.names[1:], "goat"))
    assert notes == [
        "--replan keeps --group-size 2",
        "--replan keeps the groups made by labels.parquet, 12 images; give --cooccurrence to make others",
    ]
    assert (kept.grouped_by, len(questions(kept))) == (pinned.grouped_by, len(questions(pinned)))
    for arm, groups in kept.arms.items():
        names = sorted(name for group in groups for name in group.names)
        assert names == sorted([*TEN.names[1:], "goat"])
        moved = [
            (old.names, new.names) for old, new in zip(pinned.arms[arm], groups, strict=True) if old.names != new.names
        ]
        ((old, new),) = moved
        assert (set(old) - set(new), set(new) - set(old)) == ({"cat"}, {"goat"})

    other, notes = replanned(pinned, cooccurrence=replace(COUNTED, about="scenes.yaml, 3 scenes"))
    assert (other.grouped_by, notes[1:]) == ("scenes.yaml, 3 scenes", list(COUNTED.notes))
    parents, notes = replanned(pinned, arms=("cooccurring",))
    assert (parents.grouped_by, parents.arms) == (
        "parents",
        new_plan(plan_options(group_size=2, arms=("cooccurring",))).arms,
    )
    assert notes[-1].startswith("groups are made by parents now, no longer by labels.parquet, 12 images: ")


def test_a_replan_of_a_label_table_keeps_its_pixels() -> None:
    pinned = new_plan(plan_options(stage="labels", max_pixels=50_000, group_size=None))
    after, notes = replanned(pinned, stage="labels", model="other", model_digest=b"o" * 16)
    assert after == replace(pinned, model="other", model_digest=b"o" * 16)
    assert notes == ["--replan keeps --max-pixels 50000"]
