"""The pure parts of calibration: what an answer says, and what a draft is worth."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagllm_cli.labeling.answers.parse_json import UnusableAnswerError
from tagllm_cli.labeling.answers.parse_list import Lexicon
from tagllm_cli.labeling.templates import load_templates
from tagllm_cli.pipeline.concepts import llm_prompts
from tagllm_cli.pipeline.concepts.llm_prompts import RELATIONS, LabelFacts
from tagllm_cli.pipeline.concepts.rounds import has_new_outcome
from tagllm_cli.pipeline.concepts.validate_draft import MAX_WORDS, check_draft
from tagllm_cli.records import Response
from tagllm_cli.vocabulary.cards import Attempt, Wording
from tagllm_cli.vocabulary.model import Label, Vocabulary

PETS = Vocabulary(
    "pets",
    (
        Label("mouse", "animal", ("mice",)),
        Label("cat", "animal", ("kitten",)),
        Label("salt, pepper", "food"),
        Label("cup"),
        Label("hot air balloon"),
    ),
    about="what lives and stands in our house",
)
LEXICON = Lexicon(PETS)
TEMPLATES = load_templates()
DESCRIPTION = "the small grey animal with round ears"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"label": "Mice", "overlaps": ["kitten", "dragon", "mouse"]}]', {"mouse": ("cat",)}),
        ('Sure!\n```json\n{"answer": [{"label": "cup"}]}\n```', {"cup": ()}),
        ('<think>[{"label": "cat"}]</think>["cup", "dragon", 7]', {"cup": ()}),
        ('[{"label": "cat", "overlaps": "cup"}, {"label": "cat", "overlaps": ["cup"]}]', {"cat": ("cup",)}),
        ("[]", {}),
        ('{"label": "cat", "overlaps": ["cup"]}', {"cat": ("cup",)}),
        ('{"mouse": ["cat"], "Mice": "cup", "dragon": ["cup"]}', {"mouse": ("cat",)}),
        ('{"label": "cat"}\n{"label": "cup", "overlaps": ["cat"]}', {"cat": (), "cup": ("cat",)}),
        ('In the list [1] there are {two}: ["cat (animal)", "\\"salt, pepper\\""]', {"cat": (), "salt, pepper": ()}),
    ],
)
def test_a_search_names_labels_of_the_vocabulary_only(text: str, found: dict[str, tuple[str, ...]]) -> None:
    assert llm_prompts.read_ambiguous(Response(text), LEXICON) == found


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: (
            st.lists(each)
            | st.dictionaries(
                st.sampled_from(["label", "overlaps", "description", "similar", "synonyms", "includes", "x"]), each
            )
        ),
    ),
    st.text(),
)
def test_no_answer_whatever_is_more_than_unusable(value: Any, noise: str) -> None:
    """Any JSON, and any text: a record within the vocabulary, or the one exception with its one line."""
    for text in (json.dumps(value), noise, noise + json.dumps(value) + noise):
        found = attempted(lambda answer: llm_prompts.read_ambiguous(answer, LEXICON), text)
        if not isinstance(found, str):
            assert {name for each in found.items() for name in (each[0], *each[1])} <= set(PETS.names)
        draft = attempted(lambda answer: check_draft(llm_prompts.read_card(answer), "mouse", LEXICON), text)
        if not isinstance(draft, str):
            assert set(draft.wording.similar) <= set(PETS.names) - {"mouse"}
        assert "\n" not in f"{found}{draft}"


def attempted(read: Callable[[Response], Any], text: str) -> Any:
    """What an answer says, or why it is no use."""
    try:
        return read(Response(text))
    except UnusableAnswerError as error:
        return str(error)


def test_a_long_vocabulary_is_cut_into_questions_by_category() -> None:
    labels = tuple(Label(f"label {number}", f"kind {number % 3}") for number in range(120))
    cut = llm_prompts.split_labels(Vocabulary("long", labels))
    assert [len(each) for each in cut] == [50, 50, 20]
    assert {label.name for each in cut for label in each} == {label.name for label in labels}
    assert {label.parent for label in cut[0]} == {"kind 0", "kind 1"}


def test_a_question_shows_names_as_lists_do_and_what_failed_before() -> None:
    known = {"cat": Wording("a pet that purrs", includes=("kittens",))}
    text = llm_prompts.ask_what_is_ambiguous(TEMPLATES["concept_find"], PETS, PETS.labels, known).text
    assert "(what lives and stands in our house)" in text
    assert '- "salt, pepper" (food)\n' in text
    assert "- cat (animal): a pet that purrs, including kittens\n" in text
    earlier = (Attempt(1, "llm", Wording("a pet"), False, "too short"), Attempt(2, "llm", Wording(), False, "no JSON"))
    facts = LabelFacts(PETS.labels[0], ("salt, pepper",), "a device", "It errs.", earlier)
    request = llm_prompts.ask_for_a_card(TEMPLATES["concept_draft"], PETS, facts)
    assert not request.with_image
    for part in ('overlap with: "salt, pepper".', "means: a device", "It errs.", '- "a pet": too short\n- no usable'):
        assert part in request.text


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_comparison_is_one_of_four_words(relation: str) -> None:
    assert llm_prompts.read_relation(Response(f"**{relation.title()}**.")) == relation


@pytest.mark.parametrize("text", ["narrower or broader", "yes", "sameness", "It is not the same.", "It isn’t broader"])
def test_any_other_comparison_is_none(text: str) -> None:
    assert llm_prompts.read_relation(Response(text)) == ""


@pytest.mark.parametrize(
    ("name", "wording", "asked"),
    [
        ("mouse", Wording("a Mouse, of mice the grey one"), "a ..., of ... the grey one"),
        ("mouse", Wording("a mousetrap", synonyms=("field mouse",)), "a mousetrap"),
        ("salt, pepper", Wording("salt, pepper or both", excludes=("cups",)), "... or both, but not cups"),
    ],
)
def test_blind_naming_does_not_give_the_name_away(name: str, wording: Wording, asked: str) -> None:
    text = llm_prompts.ask_round_trip(TEMPLATES["concept_name"], wording, name, ["cat", name]).text
    assert text.startswith(f'Which of these labels means {asked}? ("..." stands for the name itself.)\nLabels: cat, ')


@pytest.mark.parametrize("text", ["<think>The same, or", "I'm sorry, I can't.", " "])
def test_what_is_no_answer_says_nothing(text: str) -> None:
    for read in (llm_prompts.read_relation, llm_prompts.read_meaning, llm_prompts.read_card):
        with pytest.raises(UnusableAnswerError):
            read(Response(text))


def test_a_part_of_an_answer_that_was_cut_off_is_no_answer() -> None:
    with pytest.raises(UnusableAnswerError, match="cut off"):
        llm_prompts.read_ambiguous(Response('[{"label": "cat"}, {"label": "m', finish="length"), LEXICON)
    assert llm_prompts.read_ambiguous(Response('["cat"] That is', finish="length"), LEXICON) == {"cat": ()}


def test_blind_naming_offers_the_label_and_what_it_is_like() -> None:
    labels = tuple(Label(f"label {number}", "near" if number < 4 else "far") for number in range(40))
    vocabulary = Vocabulary("v", labels)
    names = llm_prompts.round_trip_choices(vocabulary, "label 0", ("label 30",))
    assert len(set(names)) == len(names) == llm_prompts.ROUND_TRIP_NAMES
    assert {"label 0", "label 1", "label 2", "label 3", "label 30"} <= set(names)
    assert names == llm_prompts.round_trip_choices(vocabulary, "label 0", ("label 30",))
    first = [llm_prompts.round_trip_choices(vocabulary, label.name, ()).index(label.name) for label in labels]
    assert len(set(first)) > 3  # the answer does not always stand at the same place


def test_a_draft_keeps_what_belongs_to_it() -> None:
    value = {
        "label": "Mouse",
        "description": f" Here it means {DESCRIPTION}. ",
        "similar": ["kitten", "dragon", "mouse", "CAT", 3],
        "synonyms": ["mice", "mouse", "kitten", "house mouse"],
        "includes": ["field mice.", "", "a phrase that goes on for much longer than eight words"],
        "excludes": "devices",
    }
    draft = check_draft(value, "mouse", LEXICON)
    assert draft.wording == Wording(DESCRIPTION, ("cat",), ("mice", "house mouse"), ("field mice",))
    assert draft.note == "not labels, left out of similar: dragon"


@pytest.mark.parametrize("name", ['"salt, pepper"', "Salt, Pepper (food)", "salt, pepper."])
def test_a_draft_may_name_its_label_as_the_question_does(name: str) -> None:
    assert check_draft({"label": name, "description": DESCRIPTION}, "salt, pepper", LEXICON)


@pytest.mark.parametrize("about", ["cat", "dragon", ["mouse"], {"name": "mouse" * 99}, 3])
def test_a_draft_about_something_else_is_none(about: object) -> None:
    with pytest.raises(UnusableAnswerError, match=r"the draft is about .{1,80}, another label"):
        check_draft({"label": about, "description": DESCRIPTION}, "mouse", LEXICON)


def test_signs_count_as_words_where_there_are_no_spaces() -> None:
    assert check_draft({"description": "耳の丸い小さな灰色の動物"}, "mouse", LEXICON)
    with pytest.raises(UnusableAnswerError, match="has 2 words"):
        check_draft({"description": "動物"}, "mouse", LEXICON)


@pytest.mark.parametrize(
    ("description", "why"),
    [
        ("word " * (MAX_WORDS + 1), "41 words"),
        ("two words", "2 words"),
        ("", "no description"),
        (None, "no description"),
        ("Small and grey. It lives in holes", "more than one phrase"),
        ("small and grey\n- with ears", "more than one phrase"),
        ("the {{ name }} that is meant", "marks that are no text"),
        ("I'm sorry, I can't describe it", "a refusal"),
        ("salt, pepper", "2 words"),
        ("Hot-air  balloons", "2 words"),
        ("a hot air balloon", "no more than a name"),
        ("a small \u202egrey animal", "marks that are no text"),
    ],
)
def test_what_is_no_description(description: str | None, why: str) -> None:
    with pytest.raises(UnusableAnswerError, match=why):
        check_draft({"label": "mouse", "description": description}, "mouse", LEXICON)


def test_a_round_is_the_last_when_it_keeps_nothing_and_hears_nothing_new() -> None:
    failed = Attempt(1, "llm", Wording("a pet"), False, "too short")
    kept = Attempt(2, "llm", Wording("a pet that purrs"), True, "good")
    again = Attempt(2, "llm", Wording("a pet"), False, "too short")
    person = Attempt(2, "person", Wording("my pet"), True, "edited")
    assert has_new_outcome([(failed,)], 1)
    assert has_new_outcome([(failed, kept)], 2)
    assert not has_new_outcome([(failed, again), (failed,), (), (person,)], 2)
