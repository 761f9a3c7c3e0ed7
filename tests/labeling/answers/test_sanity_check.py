"""Sanity check: answers that make no sense are told from answers that do, with advice."""

from __future__ import annotations

import pytest

from tagllm_cli.labeling.answers.sanity_check import (
    ENOUGH_ANSWERS,
    ListAnswers,
    complain_about_lists,
    complain_about_yes_no,
)

GOOD = ["cat, dog", "none", "cup"] * 10


def lists(texts: list[str], truncated: int = 0, mapped: int = 30, unmatched: int = 0) -> str | None:
    return complain_about_lists(ListAnswers(texts, truncated, mapped, unmatched))


def yes_no(masses: list[float], texts: list[str] | None = None, token: str = "yes") -> str | None:
    return complain_about_yes_no([{token: -0.1, "rare": -5.0}] * len(masses), masses, texts or ["yes"] * len(masses))


def test_sound_answers_pass() -> None:
    assert lists(GOOD) is None
    assert lists(["none"] * 30, mapped=0) is None
    assert yes_no([0.98] * 30) is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("I'm sorry, but I can't help with that.", "refusals"),
        ("As an AI, I cannot see images", "refusals"),
        ("<think>The picture shows", "reasoning"),
        ("Okay, so I need to look", "reasoning"),
        ("Got it, let's look at the image", "reasoning"),
        ("So, let's analyze the picture", "reasoning"),
        ("The user wants me to list", "reasoning"),
        ("Alright, let me see", "reasoning"),
    ],
)
def test_a_fifth_of_odd_answers_is_too_many(text: str, word: str) -> None:
    assert lists([text] * 6 + GOOD[:24]) is None
    for found in (lists([text] * 7 + GOOD[:23]), yes_no([0.9] * 30, [text] * 7 + ["yes"] * 23)):
        assert found is not None
        assert found.startswith(f"7 of 30 answers {'are' if word == 'refusals' else 'start with'} {word}")
        assert "; " in found  # advice


def test_answers_that_were_cut_off() -> None:
    assert lists(GOOD, truncated=6) is None
    found = lists(GOOD, truncated=7)
    assert found is not None
    assert found.startswith("7 of 30 answers were cut off; raise max_tokens")


def test_names_that_are_not_in_the_vocabulary() -> None:
    assert lists(GOOD, mapped=30, unmatched=70) is None
    found = lists([*GOOD, "Eine Katze sitzt auf dem Tisch"], mapped=29, unmatched=71)
    assert found is not None
    assert found.startswith("only 29 of the 100 names in the answers are in the vocabulary (an answer: 'Eine Katze")
    assert lists(GOOD, mapped=0, unmatched=ENOUGH_ANSWERS - 1) is None


def test_names_outside_the_vocabulary_are_no_wonder_where_the_question_gave_none() -> None:
    assert complain_about_lists(ListAnswers(GOOD, 0, 0, 100, names_given=False)) is None
    found = complain_about_lists(ListAnswers(GOOD, 7, 0, 100, names_given=False))
    assert found is not None
    assert found.startswith("7 of 30 answers were cut off")


def test_probability_that_falls_elsewhere() -> None:
    assert yes_no([0.1] * 14 + [0.9] * 16) is None
    found = yes_no([0.1] * 16 + [0.9] * 14, token="Ja")
    assert found is not None
    assert found.startswith("half of the answers put less than 10% of their probability on yes and no")
    assert "most likely first tokens: 'Ja'" in found
    assert "add the model's own words" in found


@pytest.mark.parametrize("token", ["Got", " So", "<think>", "Okay"])
def test_probability_that_falls_on_the_beginning_of_reasoning(token: str) -> None:
    found = yes_no([0.1] * 30, token=token)
    assert found is not None
    assert found.endswith("take the Instruct variant of the model, or switch reasoning off (--chat-template-kwargs)")


def test_an_engine_without_log_probabilities_is_named_as_such() -> None:
    found = complain_about_yes_no([{}] * 30, [0.0] * 30, ["yes"] * 30)
    assert found is not None
    assert "no log-probabilities at all" in found


def test_a_small_sample_proves_nothing() -> None:
    few = ENOUGH_ANSWERS - 1
    assert lists(["I'm sorry"] * few, truncated=few, mapped=0, unmatched=50) is None
    assert yes_no([0.0] * few) is None
