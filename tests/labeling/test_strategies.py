"""The baselines of group-wise asking: what each strategy pins, asks and reads."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.metrics import evaluate_rows
from tagllm_cli.evaluation.truth import Truth
from tagllm_cli.labeling.binary import Binary
from tagllm_cli.labeling.candidates import Candidates
from tagllm_cli.labeling.disambiguate import Disambiguate, Thresholds
from tagllm_cli.labeling.groups.cooccurrence import Cooccurrence
from tagllm_cli.labeling.plan import Plan, PlanOptions
from tagllm_cli.labeling.replan import new_plan, revise
from tagllm_cli.labeling.templates import load_templates
from tagllm_cli.records import Decision, Failure, Image, ImageInfo, Item, LabelEntry, Response, Row, Status
from tagllm_cli.vocabulary.model import Label, Vocabulary

SUBJECT = Item(Image("a", "a"), ImageInfo(b"f" * 16, 8, 6))
UNREAD = Item(SUBJECT.image)
BROKEN = Item(SUBJECT.image, ImageInfo(b"f" * 16, failure=Failure("corrupt_file", "noise")))
LOST = Response(failure=Failure("timeout", "no answer in 60 s"))
CUT = Response("cat, dog, cow, do", finish="length")
COUNTED = Cooccurrence(np.eye(4, dtype=np.float32), "labels.parquet, 12 images")


def vocabulary(*names: str) -> Vocabulary:
    return Vocabulary("tiny", tuple(map(Label, names)))


FOUR = vocabulary("cat", "dog", "cup", "fork")
WANTED = PlanOptions("candidates", FOUR, load_templates(), "model", b"m" * 16)


def asked(strategy: str | None, labels: Vocabulary = FOUR) -> PlanOptions:
    return replace(WANTED, strategy=strategy, vocabulary=labels)


ALL, OPEN = (Candidates(new_plan(asked(strategy))) for strategy in ("all", "open"))
EVERY = Binary(new_plan(asked("binary")))


def said(yes: float, no: float) -> Response:
    return Response(
        "yes", first_logprobs={"yes": math.log(yes), "No": math.log(no), "maybe": math.log(1.001 - yes - no)}
    )


def found(row: Row) -> dict[str, tuple[float, str | None]]:
    """Return (score, decision) by label, in the order of the row."""
    assert row.labels is not None
    return {entry.name: (entry.score, entry.decision) for entry in row.labels}


def row(stage: Candidates, text: str) -> Row:
    return stage.row(SUBJECT, [Response(text)])


@pytest.mark.parametrize(
    ("strategy", "template", "groups"), [("all", "all", [FOUR.names]), ("open", "open", [()]), ("binary", "verify", [])]
)
def test_a_strategy_without_groups_has_one_arm_of_its_name(
    strategy: str, template: str, groups: Sequence[tuple[str, ...]]
) -> None:
    plan = new_plan(asked(strategy))
    assert (plan.strategy, list(plan.templates), list(plan.arms)) == (strategy, [template], [strategy])
    assert [group.names for group in plan.arms[strategy]] == groups
    assert all(group.id == f"{strategy}:0" for group in plan.arms[strategy])
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    for again in (asked(strategy), asked(None)):  # named, or left as it is pinned
        assert revise(plan, again) == (plan, [])
    with pytest.raises(UsageError, match=f"--strategy {strategy}; the command asks for groups") as raised:
        revise(plan, asked("groups"))
    assert "--replan" in raised.value.hint


@pytest.mark.parametrize("strategy", ["all", "open", "binary"])
@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("--arms", {"arms": ("disjoint",)}),
        ("--group-size", {"group_size": 3}),
        ("--cooccurrence", {"cooccurrence": COUNTED}),
    ],
    ids=["arms", "size", "cooccurrence"],
)
def test_what_is_about_groups_is_refused_where_there_are_none(
    strategy: str, option: str, given: dict[str, Any]
) -> None:
    message = f"{option} is about groups, and --strategy {strategy} has none"
    with pytest.raises(UsageError, match=message):
        new_plan(replace(asked(strategy), **given))
    with pytest.raises(UsageError, match=message):
        revise(new_plan(asked(strategy)), replace(asked(None), **given))


def test_a_strategy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="no strategy 'both'") as raised:
        new_plan(asked("both"))
    assert raised.value.hint == "Strategies: groups, open, all, binary."


@pytest.mark.parametrize(
    ("strategy", "requests", "notes"),
    [
        ("all", 1, ["goat, duck added: all:0 is asked again"]),
        ("open", 0, ["goat, duck added: found in the recorded answers, nothing is asked again"]),
        ("binary", 2, ["goat, duck added: one question each"]),
    ],
)
def test_new_and_removed_labels_where_there_are_no_groups(strategy: str, requests: int, notes: list[str]) -> None:
    def questions(plan: Plan) -> set[Any]:
        return set((Binary(plan) if strategy == "binary" else Candidates(plan)).requests(SUBJECT))

    before = new_plan(asked(strategy))
    fewer, why = revise(before, asked(strategy, vocabulary("dog", "cup", "fork")))
    assert why == ["cat removed: filtered without asking"]
    assert questions(fewer) <= questions(before)
    assert questions(revise(fewer, asked(strategy))[0]) == questions(before)
    after, why = revise(fewer, asked(strategy, vocabulary("dog", "cup", "fork", "goat", "duck")))
    assert (len(questions(after) - questions(before)), why) == (requests, notes)
    assert all("cat" not in group.names for groups in after.arms.values() for group in groups)


def test_the_whole_vocabulary_is_one_question() -> None:
    (request,) = ALL.requests(SUBJECT)
    assert request.system.endswith("\nCategories: cat, dog, cup, fork")  # before the image: computed once for all
    assert request.max_tokens == 512  # a longer list than any group's
    made = row(ALL, "forks, cat, griffin")
    assert made.labels == (
        LabelEntry("cat", score=1.0, arms=("all",), groups=("all:0",)),
        LabelEntry("fork", score=1.0, arms=("all",), groups=("all:0",)),
    )
    assert made.unmatched == ("griffin",)
    assert (ALL.row(SUBJECT, [CUT]).status, ALL.row(SUBJECT, [None]).status) == (Status.FAILED, Status.PENDING)


def test_an_open_question_names_no_label_and_its_answer_is_never_guessed_into_one() -> None:
    (request,) = OPEN.requests(SUBJECT)
    assert not any(name in request.text for name in FOUR.names)
    made = row(OPEN, "two cats, a coffee cup, table, doggy")
    assert found(made) == {"cat": (1.0, None), "cup": (0.0, Decision.UNKNOWN)}
    assert made.unmatched == ("a coffee cup", "table", "doggy")
    assert made.labels is not None
    assert (made.labels[0].arms, made.labels[0].groups) == (("open",), ("open:0",))
    assert OPEN.row(SUBJECT, [LOST]).status is Status.FAILED
    assert row(OPEN, "none").labels == ()


def test_names_outside_the_vocabulary_are_a_complaint_only_where_it_was_in_the_question() -> None:
    strange = Response("Tisch, Lampe")
    for stage, complains in ((ALL, True), (OPEN, False)):
        complaint = stage.complaint([(stage.requests(SUBJECT)[0], strange)] * 20)
        assert (complaint is not None) is complains
    refusals = OPEN.complaint([(OPEN.requests(SUBJECT)[0], Response("I'm sorry, I cannot"))] * 20)
    assert refusals is not None
    assert "refusals" in refusals


def test_binary_asks_what_disambiguation_asks_without_cards() -> None:
    every = tuple(LabelEntry(name) for name in FOUR.names)
    plan = new_plan(replace(WANTED, stage="labels"))
    bare = Disambiguate(plan, {}).requests(replace(SUBJECT, proposed=every))
    assert list(EVERY.requests(SUBJECT)) == list(bare)
    assert EVERY.requests(UNREAD) is EVERY.requests(SUBJECT)
    context = new_plan(asked("binary")).context()
    assert [each.digest(context) for each in EVERY.requests(SUBJECT)] == [each.digest(plan.context()) for each in bare]


def test_binary_lists_every_label_with_its_probability() -> None:
    made = EVERY.row(SUBJECT, [said(0.6, 0.2), said(0.2, 0.6), said(0.01, 0.3), LOST])
    assert (made.status, made.unmatched) == (Status.PARTIAL, ())
    assert made.error == "request_failed: 1 of 4 requests failed, the first: timeout: no answer in 60 s"
    assert made.labels is not None
    cat, dog, cup, fork = made.labels
    assert (cat.name, cat.decision, cat.arms, cat.groups) == ("cat", None, ("binary",), ())
    assert cat.probability == cat.score == pytest.approx(0.75)
    assert cat.mass == pytest.approx(0.8)
    assert (dog.decision, dog.arms) == (Decision.NO, ())
    assert dog.probability == dog.score == pytest.approx(0.25)
    assert (cup.decision, cup.probability, cup.score) == (Decision.UNKNOWN, None, 0.0)
    assert cup.mass == pytest.approx(0.31)
    assert fork == LabelEntry("fork", Decision.UNKNOWN)
    strict = Binary(new_plan(asked("binary")), Thresholds(threshold=0.8))
    assert found(strict.row(SUBJECT, [said(0.6, 0.2)] * 4))["cat"][1] is Decision.NO


def test_binary_tells_failed_from_pending() -> None:
    assert EVERY.row(SUBJECT, [LOST] * 4).status is Status.FAILED
    assert EVERY.row(SUBJECT, [said(0.6, 0.2)] * 3 + [None]).status is Status.PENDING
    assert EVERY.row(BROKEN, [None] * 4).error == "corrupt_file: noise"
    complaint = EVERY.complaint([(EVERY.requests(SUBJECT)[0], Response("Well", first_logprobs={"Well": -0.01}))] * 20)
    assert complaint is not None
    assert "'Well'" in complaint


def test_evaluation_counts_what_binary_proposes_and_ranks_by_all_that_it_says() -> None:
    cats = {"a": said(0.6, 0.2), "b": said(0.4, 0.5), "c": said(0.1, 0.8), "d": LOST}
    rows = [
        EVERY.row(replace(SUBJECT, image=Image(id_, id_)), [response, *[said(0.01, 0.9)] * 3])
        for id_, response in cats.items()
    ]
    truth = Truth({**dict.fromkeys("acd", frozenset()), "b": frozenset(["cat"])}, FOUR.names, exhaustive=True)
    result = evaluate_rows(rows, FOUR, truth, stage="candidates")
    assert (result.mean_predicted, result.or_, result.unknown) == (0.25, 0.0, 1)
    # b comes second, after a and before c and d: what it said no to has its probability all the same.
    assert result.labels[0].ap == pytest.approx(1 / 2)
