"""The pinned plan: what a change of vocabulary asks again, and what only `--replan` may change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.labeling.candidates import Candidates
from tagllm_cli.labeling.groups.cooccurrence import Cooccurrence
from tagllm_cli.labeling.plan import DEFAULT_ARMS, DEFAULT_MAX_PIXELS, Plan, PlanOptions
from tagllm_cli.labeling.replan import first_notes, new_plan, revise
from tagllm_cli.labeling.templates import load_templates
from tagllm_cli.records import Image, ImageInfo, Item, Request
from tagllm_cli.vocabulary.model import Label, Vocabulary

SUBJECT = Item(Image("a", "a"), ImageInfo(b"f" * 16, 8, 8))
ANIMALS = ("cat", "dog", "cow", "sheep", "horse")
THINGS = ("cup", "fork", "spoon", "plate", "knife")


def vocabulary(*names: str, **changed: Label) -> Vocabulary:
    parents = {**dict.fromkeys(ANIMALS, "animal"), **dict.fromkeys(THINGS, "thing")}
    return Vocabulary("tiny", tuple(changed.get(name) or Label(name, parents.get(name)) for name in names))


TEN = vocabulary(*ANIMALS, *THINGS)


def plan_options(labels: Vocabulary = TEN, **settings: Any) -> PlanOptions:
    chosen = PlanOptions("candidates", labels, load_templates(), "model", b"m" * 16, group_size=4)
    return replace(chosen, **settings)


def questions(plan: Plan) -> Sequence[Request]:
    return Candidates(plan).requests(SUBJECT)


def asked_again(before: Plan, after: Plan) -> dict[str, int]:
    """Return by arm how many of its groups are asked otherwise than before."""
    return {
        arm: sum(group.names not in {each.names for each in before.arms[arm]} for group in groups)
        for arm, groups in after.arms.items()
    }


def test_every_label_is_in_one_group_of_each_arm() -> None:
    plan = new_plan(plan_options())
    assert tuple(plan.arms) == DEFAULT_ARMS
    for arm, groups in plan.arms.items():
        assert sorted(chain.from_iterable(group.names for group in groups)) == sorted(TEN.names)
        assert [group.id for group in groups] == [f"{arm}:{number}" for number in range(3)]
    assert plan.label_ids == {name: number for number, name in enumerate(TEN.names)}
    assert plan.max_pixels == DEFAULT_MAX_PIXELS


def test_a_plan_survives_json() -> None:
    plan = new_plan(
        plan_options(replace(TEN, groups={"mine": [list(ANIMALS), list(THINGS)]}), arms=("mine", "disjoint"))
    )
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_plan_of_an_older_release_asks_for_groups() -> None:
    plan = new_plan(plan_options())
    older = {key: value for key, value in plan.to_json().items() if key not in ("strategy", "knowledge")}
    assert Plan.from_json(older) == plan
    assert (plan.strategy, plan.grouped_by) == ("groups", "parents")
    assert revise(Plan.from_json(older), plan_options()) == (plan, [])


def test_groups_of_the_vocabulary_file_are_the_arms() -> None:
    written = replace(TEN, groups={"mine": [list(ANIMALS), list(THINGS)]})
    assert {arm: [group.names for group in groups] for arm, groups in new_plan(plan_options(written)).arms.items()} == {
        "mine": [ANIMALS, THINGS]
    }
    assert tuple(new_plan(plan_options(written, arms=("disjoint", "mine"))).arms) == ("disjoint", "mine")
    with pytest.raises(UsageError, match="no arm named 'other'") as raised:
        new_plan(plan_options(written, arms=("other",)))
    assert raised.value.hint.startswith("Arms of this vocabulary: mine, cooccurring, disjoint, random; ")


COUNTED = Cooccurrence(np.eye(10, dtype=np.float32), "labels.parquet, 12 images", ("labels.parquet never shows knife",))


def test_groups_are_made_by_what_was_counted_if_anything_was() -> None:
    # Each animal is seen with one thing, against what the parents say.
    affinity = np.eye(10, dtype=np.float32) + np.eye(10, k=5, dtype=np.float32) + np.eye(10, k=-5, dtype=np.float32)
    counted = replace(COUNTED, affinity=affinity)
    plan = new_plan(plan_options(cooccurrence=counted, group_size=2))
    assert {group.names for group in plan.arms["cooccurring"]} == set(zip(ANIMALS, THINGS, strict=True))
    assert not {group.names for group in plan.arms["disjoint"]} & set(zip(ANIMALS, THINGS, strict=True))
    assert plan.grouped_by == counted.about
    assert first_notes(plan, plan_options(cooccurrence=counted)) == list(counted.notes)
    assert first_notes(plan, plan_options()) == []


def test_groups_of_the_vocabulary_file_come_before_what_was_counted() -> None:
    written = replace(TEN, groups={"mine": [list(ANIMALS), list(THINGS)]})
    chosen = plan_options(written, cooccurrence=COUNTED, arms=("mine", "mine@1", "disjoint"))
    plan = new_plan(chosen)
    assert [group.names for group in plan.arms["mine"]] == [ANIMALS, THINGS]
    assert first_notes(plan, chosen)[1].startswith("the groups of mine, mine@1 are those of the vocabulary's author")


def test_pinned_groups_stay_and_say_so_when_something_else_was_counted() -> None:
    plan = new_plan(plan_options())
    after, notes = revise(plan, plan_options(cooccurrence=COUNTED))
    assert (after, notes) == (
        plan,
        ["groups stay as they were pinned; --replan groups by labels.parquet, 12 images"],
    )
    counted = new_plan(plan_options(cooccurrence=COUNTED))
    assert revise(counted, plan_options(cooccurrence=COUNTED)) == (counted, [])


def test_a_new_label_is_placed_by_what_was_counted() -> None:
    before = new_plan(plan_options(group_size=6))
    affinity = np.eye(11, dtype=np.float32)
    affinity[10, 9] = affinity[9, 10] = 1  # a goat by its parent, yet always seen with a knife
    goat = plan_options(vocabulary(*TEN.names, "goat", goat=Label("goat", "animal")), group_size=6)
    joined = {}
    for counted in (None, replace(COUNTED, affinity=affinity)):
        after, notes = revise(before, replace(goat, cooccurrence=counted))
        assert asked_again(before, after) == {"cooccurring": 1, "disjoint": 1}
        (joined[counted is None],) = (group.names for group in after.arms["cooccurring"] if "goat" in group.names)
    assert "cat" in joined[True]
    assert "knife" in joined[False]
    assert notes[-1] == COUNTED.notes[0]


def test_a_plan_needs_a_model() -> None:
    with pytest.raises(UsageError, match="no model is named"):
        new_plan(plan_options(model=None, model_digest=None))


def test_nothing_changed_changes_nothing() -> None:
    plan = new_plan(plan_options())
    assert revise(plan, plan_options()) == (plan, [])


def test_a_new_label_joins_a_group_with_room_and_one_group_of_each_arm_is_asked_again() -> None:
    before = new_plan(plan_options())
    after, notes = revise(before, plan_options(vocabulary(*ANIMALS, "goat", *THINGS)))
    assert asked_again(before, after) == {"cooccurring": 1, "disjoint": 1}
    assert {arm: len(groups) for arm, groups in after.arms.items()} == {"cooccurring": 3, "disjoint": 3}
    assert len(set(questions(after)) - set(questions(before))) == 2
    assert (after.label_ids["goat"], after.label_ids["cup"]) == (10, 5)
    assert [note.partition(":")[0] for note in notes] == ["goat added", "goat added"]
    assert all(note.endswith(" is asked again") for note in notes)


def test_a_new_label_opens_a_group_where_all_are_full() -> None:
    before = new_plan(plan_options(group_size=5))
    after, _ = revise(before, plan_options(vocabulary(*TEN.names, "goat"), group_size=5))
    assert asked_again(before, after) == {"cooccurring": 1, "disjoint": 1}
    for arm, groups in after.arms.items():
        assert groups[:2] == before.arms[arm]
        assert (groups[2].id, groups[2].names) == (f"{arm}:2", ("goat",))


def test_several_new_labels_touch_few_groups() -> None:
    before = new_plan(plan_options(group_size=5))
    after, _ = revise(before, plan_options(vocabulary(*TEN.names, "goat", "bowl", "duck"), group_size=5))
    assert asked_again(before, after) == {"cooccurring": 1, "disjoint": 1}


def test_a_removed_label_asks_nothing_and_its_id_is_not_given_again() -> None:
    before = new_plan(plan_options())
    fewer, notes = revise(before, plan_options(vocabulary(*(name for name in TEN.names if name != "dog"))))
    assert notes == ["dog removed: filtered without asking"]
    assert questions(fewer) == questions(before)
    more, _ = revise(fewer, plan_options(vocabulary(*fewer.vocabulary.names, "goat")))
    assert (more.label_ids["dog"], more.label_ids["goat"]) == (1, 10)
    back, _ = revise(fewer, plan_options())
    assert (back.label_ids, back.arms, questions(back)) == (before.label_ids, before.arms, questions(before))


def test_a_group_that_is_asked_again_drops_what_was_removed() -> None:
    only = plan_options(vocabulary("cat", "dog", "cow"), group_size=3)
    fewer, _ = revise(new_plan(only), replace(only, vocabulary=vocabulary("cat", "cow")))
    more, _ = revise(fewer, replace(only, vocabulary=vocabulary("cat", "cow", "goat")))
    assert {arm: [group.names for group in groups] for arm, groups in more.arms.items()} == {
        arm: [("cat", "cow", "goat")] for arm in DEFAULT_ARMS
    }


def test_a_group_without_any_label_left_is_not_asked() -> None:
    only = plan_options(vocabulary("cat", "dog"), group_size=1, arms=("disjoint",))
    plan, _ = revise(new_plan(only), replace(only, vocabulary=vocabulary("cat")))
    assert len(questions(plan)) == 1


def test_words_that_no_question_of_the_stage_shows_ask_nothing() -> None:
    before = new_plan(plan_options())
    edited = Label("cat", "pet", ("kitty",), "a small furry pet", ("dog",))
    after, notes = revise(before, plan_options(vocabulary(*reversed(TEN.names), cat=edited)))
    assert notes == []
    assert questions(after) == questions(before)
    assert after.vocabulary.labels[-1] == edited
    assert after.label_ids == before.label_ids


def other_words() -> dict[str, Any]:
    templates = dict(load_templates())
    return {"templates": {**templates, "group": replace(templates["group"], max_tokens=99)}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "other", "model_digest": b"o" * 16}, "the model model; the command asks for other"),
        ({"model_digest": b"o" * 16}, r"the model model \(6d6d6d6d\); the command asks for model \(6f6f6f6f\)"),
        ({"max_pixels": 50_000}, "--max-pixels 1003520; the command asks for 50000"),
        ({"group_size": 8}, "--group-size 4; the command asks for 8"),
        ({"arms": ("disjoint",)}, "--arms cooccurring,disjoint; the command asks for disjoint"),
        ({"strategy": "open", "group_size": None}, "--strategy groups; the command asks for open"),
        ({"own_templates": True, **other_words()}, "the templates .*; the command asks for another wording of group"),
    ],
    ids=["model", "weights", "pixels", "size", "arms", "strategy", "templates"],
)
def test_what_is_pinned_needs_a_replan(change: dict[str, Any], said: str) -> None:
    before = new_plan(plan_options())
    with pytest.raises(UsageError, match=said) as raised:
        revise(before, plan_options(**change))
    assert "--replan" in raised.value.hint
    assert new_plan(plan_options(**change)) != before


@pytest.mark.parametrize(
    "change",
    [
        {"group_size": None},
        {"max_pixels": DEFAULT_MAX_PIXELS},
        {"arms": ("disjoint", "cooccurring")},
        {"strategy": "groups"},
        {"model": None, "model_digest": None},
        {"own_templates": True},
        other_words(),
    ],
    ids=[
        "no size",
        "same pixels",
        "arms in another order",
        "same strategy",
        "no model",
        "same templates",
        "newer built-in templates",
    ],
)
def test_what_asks_for_nothing_else_follows_the_pinned_plan(change: dict[str, Any]) -> None:
    plan = new_plan(plan_options())
    assert revise(plan, plan_options(**change)) == (plan, [])


def test_a_replan_keeps_the_ids_of_labels() -> None:
    first = new_plan(plan_options(vocabulary("cat", "dog")))
    again = new_plan(plan_options(vocabulary("dog", "goat", "cat")), first.label_ids)
    assert again.label_ids == {"cat": 0, "dog": 1, "goat": 2}


def test_the_context_holds_what_decides_an_answer_beside_the_question() -> None:
    plan = new_plan(plan_options())
    others = [replace(plan, max_pixels=1), replace(plan, imaging=2), replace(plan, model_digest=b"o" * 16)]
    assert len({each.context() for each in (plan, *others)}) == 4
    assert replace(plan, model="renamed", group_size=9).context() == plan.context()


def test_ten_thousand_labels_are_compared_quickly() -> None:
    names = [f"label {number}" for number in range(10_000)]
    plan = replace(new_plan(plan_options()), vocabulary=vocabulary(*names), arms={})
    assert revise(plan, plan_options(vocabulary(*names[1:])))[1] == ["label 0 removed: filtered without asking"]
