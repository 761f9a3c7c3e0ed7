"""The verdict of a validation: when a card is kept."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagllm_cli.pipeline.concepts.validation import Trial, judge


def trials(*groups: tuple[int, bool | None, bool | None, bool | None, bool | None]) -> list[Trial]:
    """That many images each of (bare, card, present, proposed)."""
    return [
        Trial(f"{number}-{place}.png", bare, card, proposed, present)
        for number, (count, bare, card, present, proposed) in enumerate(groups)
        for place in range(count)
    ]


RIGHT = (20, True, True, True, True)
CORRECTED = (6, True, False, False, True)
BROKEN = (True, False, True, True)


@pytest.mark.parametrize(
    ("broken", "kept"),
    [(0, True), (2, True), (3, False), (6, False), (9, False)],  # 22 right yes: 2 are a tenth at most, 3 of 23 are not
)
def test_with_truth_a_card_must_correct_more_than_it_breaks(broken: int, kept: bool) -> None:
    verdict = judge(trials(RIGHT, CORRECTED, (broken, *BROKEN)))
    assert (verdict.kept, verdict.gain, verdict.errors) == (kept, 6 - broken, broken)
    assert verdict.why.startswith(f"corrects 6 and breaks {broken} of {26 + broken} decisions")


def test_a_rare_label_is_not_bought_with_no_to_everything() -> None:
    """A net gain of 29, and every right yes is lost."""
    verdict = judge(trials((1, *BROKEN), (30, True, False, False, True)))
    assert (verdict.kept, verdict.gain) == (False, 29)
    assert "1 of 1 that were rightly yes" in verdict.why


def test_nor_with_wrong_yeses_elsewhere() -> None:
    verdict = judge(trials(RIGHT, CORRECTED, (8, False, False, False, False), (2, False, True, False, False)))
    assert "2 of 10 that were rightly no" in verdict.why


def test_neither_yes_nor_no_is_never_right() -> None:
    """A card that the model does not know what to say to is no way to get rid of wrong yeses."""
    verdict = judge(trials(RIGHT, (6, True, None, False, True)))
    assert (verdict.kept, verdict.gain, verdict.errors) == (False, 0, 6)
    assert verdict.why == "corrects 0 and breaks 0 of 26 decisions"
    verdict = judge(trials(RIGHT, CORRECTED, (3, True, None, True, True)))
    assert "3 of 23 that were rightly yes" in verdict.why
    assert judge(trials(RIGHT, (3, None, False, False, True))).kept
    without_truth = judge(trials((20, True, True, None, True), (3, True, None, None, True)))
    assert without_truth.why == "leaves the model without a yes or no on 3 of 23 images"


@pytest.mark.parametrize("proposed", [True, None])
@pytest.mark.parametrize(
    ("groups", "kept"),
    [
        ([(10, True, True), (5, True, False)], True),
        ([(15, True, False)], False),
        ([(15, True, True)], False),
        ([], True),
    ],
)
def test_without_truth_some_may_turn_but_not_all(
    groups: Sequence[tuple[int, bool, bool]], kept: bool, proposed: bool | None
) -> None:
    elsewhere = (8, False, False, None, None if proposed is None else False)
    assert judge(trials(*((*group, None, proposed) for group in groups), elsewhere)).kept is kept


def test_without_truth_no_stays_no_where_nothing_was_proposed() -> None:
    turned = (5, True, False, None, True), (9, True, True, None, True)
    assert judge(trials(*turned, (1, True, True, None, False))).kept
    verdict = judge(trials(*turned, (3, False, False, None, False), (1, False, True, None, False)))
    assert (verdict.kept, verdict.gain) == (False, None)
    assert verdict.why == "says yes to 1 of 4 images where the label was never proposed"


@pytest.mark.parametrize("answer", [True, False])
def test_without_truth_one_answer_to_all_is_refused(answer: bool) -> None:
    verdict = judge(trials((6, True, answer, None, True), (6, False, answer, None, True)))
    assert verdict.why == f"says {'yes' if answer else 'no'} to all 12 proposed images"


def test_without_truth_a_card_that_turns_everything_is_refused() -> None:
    verdict = judge(trials((6, True, False, None, True), (6, False, True, None, True)))
    assert verdict.why == "reverses the decision on all 12 proposed images"


def test_without_pictures_the_text_decides() -> None:
    assert judge([]).kept


MAYBE = st.none() | st.booleans()
TRIAL = st.builds(Trial, st.just("x"), MAYBE, MAYBE, MAYBE, st.booleans())


@given(st.lists(TRIAL, min_size=1, max_size=60))
def test_what_is_kept_has_fewer_errors_on_its_pictures(found: list[Trial]) -> None:
    verdict = judge(found)
    bare = sum(trial.bare != trial.present for trial in found)
    card = sum(trial.card != trial.present for trial in found)
    assert (verdict.gain, verdict.errors) == (bare - card, card)
    assert not verdict.kept or card < bare
