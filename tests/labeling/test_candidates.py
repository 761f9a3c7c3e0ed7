"""What the recorded answers mean: votes and their origin, failures that are not silence, decisions with their doubt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from tagllm_cli.labeling.candidates import Candidates
from tagllm_cli.labeling.disambiguate import Disambiguate, Thresholds
from tagllm_cli.labeling.plan import PlanOptions
from tagllm_cli.labeling.replan import new_plan, revise
from tagllm_cli.labeling.templates import load_templates
from tagllm_cli.records import Decision, Failure, Image, ImageInfo, Item, LabelEntry, Response, Row, Status
from tagllm_cli.vocabulary.cards import Card
from tagllm_cli.vocabulary.model import Label, Vocabulary

IMAGE = Image("a", "a")
SUBJECT = Item(IMAGE, ImageInfo(b"f" * 16, 8, 6))
UNREAD = Item(IMAGE)
BROKEN = Item(IMAGE, ImageInfo(b"f" * 16, failure=Failure("corrupt_file", "noise")))
LOST = Response(failure=Failure("timeout", "no answer in 60 s"))
CUT = Response("cat, dog, cow, do", finish="length")
VOCABULARY = Vocabulary(
    "tiny",
    tuple(map(Label, ("cat", "dog", "cup", "fork"))),
    {"one": [["cat", "dog"], ["cup", "fork"]], "two": [["cat", "cup"], ["dog", "fork"]]},
)
WANTED = PlanOptions("candidates", VOCABULARY, load_templates(), "model", b"m" * 16)
PLAN = new_plan(WANTED)
STAGE = Candidates(PLAN)


def row(responses: Sequence[Response | str | None], stage: Candidates = STAGE, item: Item = SUBJECT) -> Row:
    return stage.row(item, [Response(response) if isinstance(response, str) else response for response in responses])


def found(entries: Sequence[LabelEntry] | None) -> dict[str, tuple[float, str | None]]:
    """Return (score, decision) by label, in the order of the row."""
    assert entries is not None
    return {entry.name: (entry.score, entry.decision) for entry in entries}


def test_each_group_of_each_arm_is_one_question() -> None:
    requests = STAGE.requests(SUBJECT)
    assert [request.text.splitlines()[-1] for request in requests] == [
        "Categories: cat, dog",
        "Categories: cup, fork",
        "Categories: cat, cup",
        "Categories: dog, fork",
    ]
    assert STAGE.requests(UNREAD) == requests


def test_a_label_keeps_who_proposed_it() -> None:
    made = row(["cat", "fork, cup", "CATS.", "none"])
    assert (made.status, made.error, made.unmatched, made.width) == (Status.OK, None, (), 8)
    assert made.labels == (
        LabelEntry("cat", score=1.0, arms=("one", "two"), groups=("one:0", "two:0")),
        LabelEntry("cup", score=0.5, arms=("one",), groups=("one:1",)),
        LabelEntry("fork", score=0.5, arms=("one",), groups=("one:1",)),
    )


def test_nothing_seen_is_an_empty_list() -> None:
    made = row(["none", "none", "None.", "none"])
    assert (made.status, made.labels, made.unmatched) == (Status.OK, (), ())


def test_what_the_vocabulary_does_not_know_is_kept_apart_once() -> None:
    made = row(["cat, unicorn", "unicorn", "griffin", "none"])
    assert (found(made.labels), made.unmatched) == ({"cat": (0.5, None)}, ("unicorn", "griffin"))


def test_two_arms_share_the_question_and_vote_each() -> None:
    shared = replace(VOCABULARY, groups={"one": [["cat", "dog"]], "two": [["cat", "dog"]], "three": [["dog", "cat"]]})
    shared = replace(shared, labels=shared.labels[:2])
    stage = Candidates(new_plan(replace(WANTED, vocabulary=shared)))
    assert len(stage.requests(SUBJECT)) == 2
    made = row(["cat", "none"], stage)
    assert made.labels == (LabelEntry("cat", score=2 / 3, arms=("one", "two"), groups=("one:0", "two:0")),)
    assert found(row(["cat", "cat"], stage).labels) == {"cat": (1.0, None)}


def test_fewer_votes_than_wanted_are_no_candidate() -> None:
    strict = Candidates(PLAN, min_votes=2)
    assert found(row(["cat", "fork", "cat", "none"], strict).labels) == {"cat": (1.0, None)}
    made = row(["cat", "fork", LOST, "none"], strict)
    assert found(made.labels) == {"cat": (0.5, Decision.UNKNOWN), "cup": (0.0, Decision.UNKNOWN)}
    assert made.labels is not None
    assert made.labels[0].groups == ("one:0",)


@pytest.mark.parametrize(("lost", "why"), [(LOST, "timeout: no answer"), (CUT, "truncated: the answer was cut off")])
def test_a_failed_group_leaves_its_labels_unknown(lost: Response, why: str) -> None:
    made = row(["none", "fork", lost, "none"])
    assert made.status is Status.PARTIAL
    assert str(made.error).startswith(f"request_failed: 1 of 4 requests failed, the first: {why}")
    assert found(made.labels) == {"cat": (0, Decision.UNKNOWN), "cup": (0, Decision.UNKNOWN), "fork": (0.5, None)}
    assert found(row(["cat", "none", lost, "none"]).labels) == {"cat": (0.5, None), "cup": (0, Decision.UNKNOWN)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "I'm sorry, I can't help with that.",
        "<think>There is a cat",
        "It is hard to say whether this is a cat or a cup.",
    ],
)
def test_an_unreadable_answer_leaves_its_groups_labels_unknown(text: str) -> None:
    made = row(["none", "fork", text, "none"])
    assert made.status is Status.PARTIAL
    assert made.error == (
        f"unreadable_answer: 1 of 4 answers are in no form that can be read, the first: {' '.join(text.split())!r}"
    )
    assert found(made.labels) == {"cat": (0, Decision.UNKNOWN), "cup": (0, Decision.UNKNOWN), "fork": (0.5, None)}
    assert found(row(["cat", "none", text, "none"]).labels) == {"cat": (0.5, None), "cup": (0, Decision.UNKNOWN)}
    assert made.unmatched == ()
    every = row([text] * 4)
    assert (every.status, every.labels) == (Status.FAILED, None)
    mixed = row([text, LOST, "none", "none"])
    assert str(mixed.error).startswith("request_failed: 2 of 4 requests failed, the first: unreadable_answer: ")


def test_when_all_requests_failed_nothing_can_be_said() -> None:
    made = row([LOST, CUT, LOST, LOST])
    assert (made.status, made.labels, made.unmatched) == (Status.FAILED, None, None)
    assert made.error == "request_failed: all 4 requests failed, the first: timeout: no answer in 60 s"


@pytest.mark.parametrize("responses", [["cat", "none", "none", None], [None] * 4, [LOST, None, None, None]])
def test_what_was_not_asked_yet_is_pending(responses: list[Response | str | None]) -> None:
    for item in (SUBJECT, UNREAD):
        made = row(responses, item=item)
        assert (made.status, made.labels, made.error) == (Status.PENDING, None, None)


def test_an_image_that_cannot_be_opened_has_failed() -> None:
    made = row([None] * 4, item=BROKEN)
    assert (made.status, made.error, made.labels) == (Status.FAILED, "corrupt_file: noise", None)


def test_a_removed_label_is_filtered() -> None:
    without = replace(VOCABULARY, labels=VOCABULARY.labels[1:])
    stage = Candidates(revise(PLAN, replace(WANTED, vocabulary=without))[0])
    assert stage.requests(SUBJECT) == STAGE.requests(SUBJECT)
    made = row(["Cats, dog", "none", "cat, griffin", "dog"], stage)
    assert (found(made.labels), made.unmatched) == ({"dog": (1.0, None)}, ("griffin",))
    assert found(row([LOST, "none", "none", "none"], stage).labels) == {"dog": (0.0, Decision.UNKNOWN)}


def test_candidates_complain_about_a_sample_without_sense() -> None:
    request = STAGE.requests(SUBJECT)[0]
    assert STAGE.complaint([(request, Response("cat, dog"))] * 20) is None
    said = STAGE.complaint([(request, Response("ein Tisch, eine Lampe"))] * 20)
    assert said is not None
    assert "only 0 of the 40 names" in said
    said = STAGE.complaint([(request, CUT)] * 5 + [(request, LOST)] * 50 + [(request, Response("cat"))] * 10)
    assert said is not None
    assert said.startswith("5 of 15 answers were cut off")
    prose = Response("It is hard to say whether this is a cat or a dog.")
    said = STAGE.complaint([(request, prose)] * 5 + [(request, Response("cat"))] * 15)
    assert said is not None
    assert said.startswith("5 of 20 answers are in no form that can be read ('It is hard")
    assert STAGE.complaint([(request, prose)] * 4 + [(request, Response("cat"))] * 16) is None


CARDS = {"cat": Card("cat", "a small furry pet", ("dog",)), "dog": Card("dog", "")}
LABELS_PLAN = new_plan(replace(WANTED, stage="labels"))
PROPOSED = (
    LabelEntry("cup", score=0.5, arms=("two",), groups=("two:0",)),
    LabelEntry("cat", score=1.0, arms=("one", "two"), groups=("one:0", "two:0")),
    LabelEntry("goat", score=1.0, arms=("one",), groups=("one:9",)),
)
CANDIDATES = replace(SUBJECT, proposed=PROPOSED)


def said(yes: float, no: float) -> Response:
    return Response(
        "yes", first_logprobs={"yes": math.log(yes), "No": math.log(no), "maybe": math.log(1.001 - yes - no)}
    )


def decided(
    responses: Sequence[Response | None],
    item: Item = CANDIDATES,
    cards: Mapping[str, Card] = CARDS,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
) -> Row:
    return Disambiguate(LABELS_PLAN, cards, thresholds).row(item, responses)


def test_a_candidate_is_asked_about_alone_with_its_card_if_it_has_one() -> None:
    cat, cup = Disambiguate(LABELS_PLAN, CARDS).requests(CANDIDATES)
    assert cat.text.startswith("Category: cat. Here it means a small furry pet. Not to be confused with dog.")
    assert cup.text.startswith("Category: cup.\n")
    assert (cup.top_logprobs, cup.max_tokens, cup.with_image) == (20, 1, True)
    bare = Disambiguate(LABELS_PLAN, {}).requests(CANDIDATES)
    assert bare[0].text == cup.text.replace("cup", "cat")
    assert bare[1] == cup


def test_an_edited_card_touches_only_its_own_question() -> None:
    edited = {**CARDS, "cat": Card("cat", "a feline")}
    before, after = (Disambiguate(LABELS_PLAN, cards).requests(CANDIDATES) for cards in (CARDS, edited))
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_the_decision_comes_from_the_probabilities() -> None:
    made = decided([said(0.6, 0.2), said(0.2, 0.6)])
    assert (made.status, made.unmatched) == (Status.OK, ())
    assert made.labels is not None
    cat, cup = made.labels
    assert (cat.name, cat.decision, cup.name, cup.decision) == ("cat", Decision.YES, "cup", Decision.NO)
    assert cat.probability == cat.score == pytest.approx(0.75)
    assert cat.mass == pytest.approx(0.8)
    assert (cat.arms, cat.groups) == (("one", "two"), ("one:0", "two:0"))


def test_the_threshold_is_an_open_border() -> None:
    half = [said(0.4, 0.4)] * 2
    assert set(found(decided(half).labels).values()) == {(0.5, Decision.NO)}
    lower = decided(half, thresholds=Thresholds(threshold=0.4))
    assert set(found(lower.labels).values()) == {(0.5, Decision.YES)}


def test_too_little_mass_on_yes_and_no_is_unknown_and_not_no() -> None:
    made = decided([said(0.01, 0.3), said(0.3, 0.01)])
    assert made.labels is not None
    assert [(entry.decision, entry.probability, entry.score) for entry in made.labels] == [
        (Decision.UNKNOWN, None, 1.0),
        (Decision.UNKNOWN, None, 0.5),
    ]
    assert made.labels[0].mass == pytest.approx(0.31)
    lenient = decided([said(0.01, 0.3), said(0.3, 0.01)], thresholds=Thresholds(min_mass=0.2))
    assert lenient.labels is not None
    assert [entry.decision for entry in lenient.labels] == [Decision.NO, Decision.YES]


def test_a_failed_question_leaves_its_label_unknown() -> None:
    made = decided([said(0.9, 0.05), LOST])
    assert made.status is Status.PARTIAL
    assert made.error == "request_failed: 1 of 2 requests failed, the first: timeout: no answer in 60 s"
    assert made.labels is not None
    assert (made.labels[0].decision, made.labels[1].decision) == (Decision.YES, Decision.UNKNOWN)
    assert made.labels[1].probability is None


def test_failed_pending_and_empty_are_three_things() -> None:
    made = decided([LOST, LOST])
    assert (made.status, made.labels) == (Status.FAILED, None)
    made = decided([said(0.9, 0.05), None])
    assert (made.status, made.labels) == (Status.PENDING, None)
    made = decided([], item=SUBJECT)  # its candidates are pending
    assert (made.status, made.labels) == (Status.PENDING, None)
    made = decided([], item=BROKEN)
    assert (made.status, made.error) == (Status.FAILED, "corrupt_file: noise")
    made = decided([], item=replace(SUBJECT, proposed=()))
    assert (made.status, made.labels) == (Status.OK, ())


def test_a_cut_answer_is_whole_where_one_token_is_asked_for() -> None:
    made = decided([replace(said(0.9, 0.05), finish="length")] * 2)
    assert made.status is Status.OK


def test_disambiguation_complains_about_a_sample_without_sense() -> None:
    stage = Disambiguate(LABELS_PLAN, CARDS)
    request = stage.requests(CANDIDATES)[0]
    assert stage.complaint([(request, said(0.6, 0.3))] * 20) is None
    complaint = stage.complaint([(request, Response("Well", first_logprobs={"Well": -0.01}))] * 20)
    assert complaint is not None
    assert "'Well'" in complaint


def test_more_forms_of_yes_and_no_in_a_template_ask_nothing_again() -> None:
    wanted = replace(WANTED, stage="labels")
    old = {name: replace(each, yes=each.yes[:1], no=each.no[:1]) for name, each in wanted.templates.items()}
    pinned = new_plan(replace(wanted, templates=old))
    plan, notes = revise(pinned, wanted)
    item = replace(SUBJECT, proposed=(LabelEntry("cat"), LabelEntry("dog")))
    before, after = Disambiguate(pinned, CARDS).requests(item), Disambiguate(plan, CARDS).requests(item)
    assert (after, plan.context(), notes) == (before, pinned.context(), [])
    assert Disambiguate(new_plan(wanted), CARDS).requests(item) == before
