"""Which texts are names, which forms are one name, and what names are to the labels that there are."""

from __future__ import annotations

from collections import Counter

import pytest

from tagllm_cli.evaluation.suggest.fold import Known, Name, fold
from tagllm_cli.evaluation.suggest.names import JUNK, read_name
from tagllm_cli.labeling.answers.parse_list import Lexicon
from tagllm_cli.vocabulary.model import Label, Vocabulary

NAMES = {
    "lamp": "lamp",
    " Lamp. ": "lamp",
    "**desk-lamp**": "desk lamp",
    "three lamps": "lamps",
    "a pair of scissors": "scissors",
    "trash can": "trash can",
    "hard hat": "hard hat",
    "front door": "front door",
    "tank top": "tank top",
    "Käfer": "käfer",
    "灯": "灯",
    "orange juice": "orange juice",
    "2 traffic cones": "traffic cones",
    "Lampe (rot).": "lampe",
    "(lamp)": "lamp",
}
NO_NAMES = {
    "none": "nothing",
    "...": "nothing",
    "Yes.": "nothing",
    "@SUM(A1": "phrase",
    "nichts": "nothing",
    "I'm sorry, I can't help with that": "refusal",
    "12": "number",
    "3.5": "number",
    "two": "number",
    "no lamp": "in doubt",
    "maybe a lamp": "in doubt",
    "lamp?": "in doubt",
    "There is a lamp on the table": "sentence",
    "the image shows a lamp": "sentence",
    "a very old lamp that someone left behind": "sentence",
    "x" * 60: "sentence",
    "man on a bench": "phrase",
    "salt and pepper": "phrase",
    "person riding horse": "phrase",
    "in the background": "phrase",
    "lamp: yes": "phrase",
    "<b>lamp</b>": "phrase",
    "red": "adjective",
    "small wooden": "adjective",
}


@pytest.mark.parametrize("text", NAMES)
def test_a_name_is_read_in_its_folded_form(text: str) -> None:
    assert read_name(text).name == NAMES[text]


@pytest.mark.parametrize("text", NO_NAMES)
def test_what_is_no_name_is_said_to_be_what_it_is(text: str) -> None:
    found = read_name(text)
    assert (found.name, found.junk) == ("", NO_NAMES[text])
    assert found.junk in JUNK


VOCABULARY = Vocabulary(
    "tiny", (Label("cup", "kitchen", ("mug",)), Label("wine glass", "kitchen"), Label("keyboard"), Label("boat"))
)


def folded(**counts: int) -> tuple[list[Name], Counter[str]]:
    return fold({name.replace("_", " "): count for name, count in counts.items()}, Lexicon(VOCABULARY))


def test_plurals_spaces_and_adjectives_are_one_name() -> None:
    names, described = folded(lamps=9, lamp=4, red_lamp=2, tea_pot=3, teapot=5, mice=2, mouse=7, orange_juice=6)
    assert [(each.name, each.count, set(each.forms)) for each in names] == [
        ("lamp", 15, {"lamps", "lamp", "red lamp"}),
        ("mouse", 9, {"mice", "mouse"}),
        ("teapot", 8, {"teapot", "tea pot"}),
        ("orange juice", 6, {"orange juice"}),  # no juice was said without its color
    ]
    assert not described


def test_a_label_with_an_adjective_is_nothing_new() -> None:
    names, described = folded(red_cup=4, big_white_mugs=2, wineglasses=3, lamp=1)
    assert [each.name for each in names] == ["lamp"]
    assert described == {"red cup": 4, "big white mugs": 2, "wineglasses": 3}


@pytest.mark.parametrize(
    ("form", "label"),
    [
        ("keybord", "keyboard"),
        ("glass wine", "wine glass"),
        ("goat", None),
        ("lamp", None),
    ],
)
def test_nearly_a_label_is_another_form_of_it(form: str, label: str | None) -> None:
    assert Known(VOCABULARY).same(Name(form, (form,), 1)) == label


def test_a_name_that_ends_in_a_label_is_narrower() -> None:
    known = Known(VOCABULARY)
    assert known.broader(Name("coffee mugs", ("coffee mugs",), 1)) == "cup"
    assert known.broader(Name("large red wine glass", ("large red wine glass",), 1)) == "wine glass"
    assert known.broader(Name("cup holder", ("cup holder",), 1)) is None
