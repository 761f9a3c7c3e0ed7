"""Concept cards, from a vocabulary's own descriptions and from a card file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagllm_cli.errors import VocabularyError
from tagllm_cli.vocabulary.cards import Attempt, Card, Entry, Wording, cards_of, load_card_file, load_cards
from tagllm_cli.vocabulary.model import Label, Vocabulary

PETS = Vocabulary("pets", (Label("cat", description="an animal\nthat purrs. ", similar=("dog",)), Label("dog")))


def written(folder: Path, text: str) -> Path:
    path = folder / "cards.yaml"
    path.write_text(text)
    return path


def test_a_vocabulary_makes_cards_of_its_descriptions() -> None:
    assert cards_of(PETS) == {"cat": Card("cat", "an animal that purrs", ("dog",))}


def test_a_card_file_says_more(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "cards:\n"
        "  - {name: dog, description: an animal that barks., similar: [cat], synonyms: [hound],\n"
        "     includes: [puppies, wolves], excludes: [toy dogs]}\n"
        "  - {name: cat, description: a pet, similar: }\n",
    )
    description = "an animal that barks, also called hound, including puppies, wolves, but not toy dogs"
    assert load_cards(path, PETS) == {"dog": Card("dog", description, ("cat",)), "cat": Card("cat", "a pet")}


def test_only_cards_are_used_and_what_waits_or_failed_is_read_too(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "cards:\n"
        "- {name: dog, description: x y z, author: llm, history: [{round: 1, author: llm, description: x y z,\n"
        "   similar: [cow], kept: true, why: good, date: 2026-11-20, reading: r, relation: same, disputed: [1.png]}]}\n"
        "proposed: [{name: cat, description: a pet, author: llm}]\n"
        "unwritten: [{name: dog, why: no answer, round: 2}]\n",
    )
    assert load_cards(path, PETS) == {"dog": Card("dog", "x y z")}
    found = load_card_file(path, PETS)
    wording = Wording("x y z", ("cow",))  # a label that was removed since may stand in a history
    attempt = Attempt(1, "llm", wording, True, "good", "2026-11-20", "r", "same", ("1.png",))
    assert found.cards["dog"] == Entry("dog", Wording("x y z"), "llm", (attempt,))
    assert found.proposed["cat"].wording.description == "a pet"
    assert (found.unwritten["dog"].why, found.unwritten["dog"].round) == ("no answer", 2)


def test_a_file_without_cards_makes_every_question_bare(tmp_path: Path) -> None:
    assert load_cards(written(tmp_path, "cards: []"), PETS) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "cards.yaml: it is not a mapping"),
        ("{cards: [], more: 1}", "unknown key 'more' (known: cards, proposed, unwritten)"),
        ("{card: []}", "`cards` is missing; unknown key 'card' (did you mean 'cards'?)"),
        ("{proposed: []}", "`cards` is missing"),
        ("{cards: }", "`cards` is missing"),
        ("{cards: [], proposed: x}", "`proposed` is not a list"),
        ("{cards: [], proposed: [{name: cat}]}", "entry 1 of `proposed` ('cat'): 'cat' has no description"),
        ("{cards: [], unwritten: [{name: cow}]}", "entry 1 of `unwritten` ('cow'): 'cow' is no label"),
        ("{cards: [], unwritten: [{name: cat, description: x}]}", "('cat'): unknown key 'description' (known: name, "),
        ("{cards: [], unwritten: [{name: cat, round: last}]}", "('cat'): `round` is not a whole number"),
        ("{cards: [], unwritten: [{name: cat, round: -1}]}", "('cat'): `round` is too small"),
        ("{cards: [{name: cat, description: x, author: [me]}]}", "('cat'): `author` is not text"),
        ("{cards: [{name: cat, description: x, history: y}]}", "('cat'): `history` is not a list"),
        (
            "{cards: [{name: cat, description: x, history: [{kept: perhaps}]}]}",
            "entry 1 of `cards` ('cat'), entry 1 of `history`: `kept` is neither true nor false",
        ),
        ("{cards: [{name: cat, description: x, history: [{round: 1}]}]}", "entry 1 of `history`: `kept` is missing"),
        ("{cards: [{name: cat, description: x, history: [{kept: true, mood: y}]}]}", "unknown key 'mood' (known: "),
        ("{cards: [cat]}", "entry 1 of `cards`: it is not a mapping"),
        ("{cards: [{description: x}]}", "entry 1 of `cards`: `name` is missing"),
        ("{cards: [{name: '', description: x}]}", "entry 1 of `cards`: it has no name"),
        ("{cards: [{name: cow, description: x}]}", "'cow' is no label"),
        ("{cards: [{name: cats, description: x}]}", "'cats' is no label (did you mean 'cat'?)"),
        ("{cards: [{name: [cat], description: x}]}", "`name` is not text"),
        ("{cards: [{name: cat}]}", "'cat' has no description"),
        ("{cards: [{name: cat, description: ' . '}]}", "'cat' has no description"),
        ("{cards: [{name: cat, description: x, colour: y}]}", "unknown key 'colour' (known: "),
        ("{cards: [{name: cat, description: x, exclude: [y]}]}", "unknown key 'exclude' (did you mean 'excludes'?)"),
        (
            "{cards: [{name: cat, description: x, similar: [cow]}]}",
            "'cat' is called similar to 'cow', which is no label",
        ),
        ("{cards: [{name: cat, description: x, similar: [cat]}]}", "'cat' is called similar to itself"),
        ("{cards: [{name: cat, description: x, includes: y}]}", "('cat'): `includes` is not a list"),
        ("{cards: [{name: cat, description: x, includes: ['.']}]}", "entry 1 of `includes`: it is empty"),
        ("{cards: [{name: cat, description: x}, {name: cat, description: y}]}", "`cards` has two entries for 'cat'"),
        ("&a {cards: [*a]}", "cards.yaml, line 1: the anchor &a contains itself"),
        ("cards: [", "cards.yaml, line 2: "),
    ],
)
def test_a_wrong_card_file_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(VocabularyError) as caught:
        load_cards(written(tmp_path, text), PETS)
    assert message in caught.value.message
    assert "cards.yaml" in caught.value.message
    assert "\n" not in caught.value.message
