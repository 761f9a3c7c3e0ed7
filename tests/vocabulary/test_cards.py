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
        ("[]", "holds no cards"),
        ("{cards: [], more: 1}", "holds no cards"),
        ("{proposed: []}", "holds no cards"),
        ("{cards: [], proposed: x}", "proposed card 1: it is not a mapping"),
        ("{cards: [], proposed: [{name: cat}]}", "proposed card 1: 'cat' has no description"),
        ("{cards: [], unwritten: [{name: cow}]}", "unwritten label 1: 'cow' is no label"),
        ("{cards: [], unwritten: [{name: cat, description: x}]}", "unwritten label 1: unknown key 'description'"),
        ("{cards: [], unwritten: [{name: cat, round: last}]}", "`round` of 'cat' is not a number"),
        ("{cards: [{name: cat, description: x, author: [me]}]}", "`author` of 'cat' is not a text"),
        ("{cards: [{name: cat, description: x, history: y}]}", "`history` of 'cat' is not a list of mappings"),
        ("{cards: [{name: cat, description: x, history: [{kept: perhaps}]}]}", "`kept` in the history of 'cat' is"),
        ("{cards: [{name: cat, description: x, history: [{kept: true, mood: y}]}]}", "card 1: unknown key 'mood'"),
        ("{cards: [cat]}", "card 1: it is not a mapping"),
        ("{cards: [{description: x}]}", "card 1: it has no name"),
        ("{cards: [{name: cow, description: x}]}", "card 1: 'cow' is no label"),
        ("{cards: [{name: [cat], description: x}]}", "card 1: ['cat'] is no label"),
        ("{cards: [{name: cat}]}", "card 1: 'cat' has no description"),
        ("{cards: [{name: cat, description: ' . '}]}", "card 1: 'cat' has no description"),
        ("{cards: [{name: cat, description: x, colour: y}]}", "card 1: unknown key 'colour' (known: name, "),
        (
            "{cards: [{name: cat, description: x, similar: [cow]}]}",
            "'cat' is called similar to 'cow', which is no label",
        ),
        ("{cards: [{name: cat, description: x, similar: [cat]}]}", "'cat' is called similar to itself"),
        ("{cards: [{name: cat, description: x, includes: y}]}", "`includes` of 'cat' is not a list of texts"),
        ("{cards: [{name: cat, description: x}, {name: cat, description: y}]}", "card 2: 'cat' has a card already"),
        ("cards: [", "cards.yaml, line 2: "),
    ],
)
def test_a_wrong_card_file_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(VocabularyError) as caught:
        load_cards(written(tmp_path, text), PETS)
    assert message in caught.value.message
    assert "cards.yaml" in caught.value.message
    assert "\n" not in caught.value.message
