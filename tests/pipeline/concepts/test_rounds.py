"""Cards by calibration, against a local server with scripted answers: what is kept, what is not, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import EndpointError, TooManyFailedError
from tagllm_cli.records import Failure
from tagllm_cli.vocabulary.cards import Card, load_cards
from tagllm_cli.vocabulary.load import load_vocabulary
from tests.support.concept_workspace import DEVICE, GOOD, HALF, RODENT, WINGED, WORDS, ConceptDesk, reasons
from tests.support.scripted_llm import HANGS, REFUSES, ScriptedLLM, card

IMPATIENT = {"timeout_s": 1.0, "retries": 1}


@pytest.fixture
def desk(tmp_path: Path) -> ConceptDesk:
    return ConceptDesk(tmp_path / "desk")


def test_good_cards_are_kept_and_can_be_used(desk: ConceptDesk) -> None:
    with ScriptedLLM(GOOD, WORDS) as server:
        summary = desk.write(server)
        assert server.asked("find")[0].startswith("These are labels of an image dataset")
    assert (summary.cards, summary.unwritten, summary.error) == (("mouse", "bat"), {}, None)
    vocabulary = load_vocabulary(str(desk.vocabulary))
    assert load_cards(desk.out, vocabulary) == {"mouse": Card("mouse", RODENT, ("cat",)), "bat": Card("bat", WINGED)}
    [attempt] = desk.file()["cards"]["mouse"]["history"]
    assert (attempt["author"], attempt["round"], attempt["kept"]) == ("scribe", 1, True)
    assert attempt["why"].startswith("corrects ")
    assert " breaks 0 of 36 decisions" in attempt["why"]
    assert attempt["reading"] == "what mouse looks like to me"
    assert all(": yes -> no, people say no" in each for each in attempt["disputed"])


def test_the_llm_is_told_what_there_is_to_know(desk: ConceptDesk) -> None:
    with ScriptedLLM(GOOD, WORDS) as server:
        desk.write(server)
        [question] = server.drafts("mouse")
    for part in ("category: animal", "bat, cat", "what mouse looks like to me", "people say that"):
        assert part in question


@pytest.mark.parametrize("pictures", [True, False])
def test_a_draft_about_another_label_does_not_survive(desk: ConceptDesk, pictures: bool) -> None:
    without: dict[str, Any] = {} if pictures else {"sees": False, "table": None, "truth": None}
    with ScriptedLLM({**GOOD, "bat": [card("bat", "an animal that purrs on a sofa")]}, WORDS) as server:
        desk.write(server, **without)
    assert list(desk.file()["cards"]) == ["mouse"]
    assert set(reasons(desk, "bat")) == {"blind naming: the description reads like cat"}


@pytest.mark.parametrize(
    ("description", "why"),
    [
        (DEVICE, "corrects 0 and breaks"),
        ("a rodent or whatever else there is", "corrects 0 and breaks"),
        ("an unheard-of rodent", "corrects 11 and breaks"),
        ("a nibbler of any kind at all", "not needed: it changes no decision on 36 pictures"),
    ],
)
def test_a_draft_that_does_not_help_on_pictures_does_not_survive(desk: ConceptDesk, description: str, why: str) -> None:
    words = {**WORDS, "mouse": ("rodent", "nibbler")}
    with ScriptedLLM({"mouse": [card("mouse", description)]}, words) as server:
        desk.write(server, rounds=1)
    assert desk.file()["cards"] == {}
    [reason] = reasons(desk, "mouse")
    assert why in reason


@pytest.mark.parametrize(
    ("description", "why"),
    [
        (RODENT, None),
        ("a rodent or whatever else there is", "pictures where the label was never proposed"),
        ("an unheard-of rodent", "says no to all 24 proposed pictures"),
    ],
)
def test_without_peoples_labels_a_card_must_leave_alone_what_it_is_not_about(
    desk: ConceptDesk, description: str, why: str | None
) -> None:
    with ScriptedLLM({"mouse": [card("mouse", description)]}, WORDS) as server:
        desk.write(server, truth=None)
    assert bool(desk.file()["cards"]) is (why is None)
    assert why is None or why in reasons(desk, "mouse")[0]


def test_pictures_of_a_folder_will_do(desk: ConceptDesk) -> None:
    with ScriptedLLM(GOOD, WORDS) as server:
        desk.write(server, table=None, truth=None, images=desk.images)
    assert list(desk.file()["cards"]) == ["mouse", "bat"]
    assert " where it was proposed, and none elsewhere" in reasons(desk, "mouse")[0]


def test_a_folder_with_peoples_labels_will_do(desk: ConceptDesk) -> None:
    bad = {**GOOD, "bat": [card("bat", "an unheard-of animal with wings")]}
    with ScriptedLLM(bad, WORDS) as server:
        desk.write(server, table=None, images=desk.images, rounds=1)
    assert list(desk.file()["cards"]) == ["mouse"]
    assert reasons(desk, "bat")[0].startswith("corrects ")


def test_a_failed_draft_is_revised_with_the_reason(desk: ConceptDesk) -> None:
    with ScriptedLLM({"mouse": [card("mouse", DEVICE), card("mouse", RODENT)]}, WORDS) as server:
        desk.write(server)
        first, second = server.drafts("mouse")
    assert "Earlier drafts" not in first
    assert f'"{DEVICE}": corrects 0 and breaks' in second
    history = desk.file()["cards"]["mouse"]["history"]
    assert [(attempt["round"], attempt["kept"]) for attempt in history] == [(1, False), (2, True)]


def test_contradictory_drafts_end_in_the_best_of_them(desk: ConceptDesk) -> None:
    """A kept card gives way only to one that does better on the same pictures."""
    script = [card("mouse", text) for text in (HALF, DEVICE, RODENT, HALF)]
    with ScriptedLLM({"mouse": script}, WORDS) as server:
        summary = desk.write(server, rounds=6)
        assert len(server.drafts("mouse")) == 3  # nothing is wrong with the last one
    assert desk.file()["cards"]["mouse"]["description"] == RODENT
    history = desk.file()["cards"]["mouse"]["history"]
    assert [attempt["kept"] for attempt in history] == [True, False, True]
    assert summary.rounds == 4


def test_a_card_that_flips_comes_to_rest(desk: ConceptDesk) -> None:
    script = [card("mouse", HALF), *[card("mouse", DEVICE), card("mouse", HALF)] * 10]
    with ScriptedLLM({"mouse": script}, WORDS) as server:
        summary = desk.write(server, rounds=20)
    assert desk.file()["cards"]["mouse"]["description"] == HALF
    assert summary.rounds < 6
    assert "no better than the card that is there" in reasons(desk, "mouse")[2]


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (["the mouse is a nice animal"], "the answer is no JSON"),
        ([REFUSES], "the LLM refuses"),
        (['{"label": "mouse", "description": "I\'m sorry, I cannot say"}'], "the description is a refusal"),
        ([card("cat", RODENT)], "the draft is about 'cat', another label"),
        ([card("mouse", "mouse")], "the description has 1 words"),
        ([card("mouse", "rodent " * 41)], "the description has 41 words"),
        ([card("mouse", "A small rodent. It has round ears")], "more than one phrase"),
        ([card("mouse", WINGED)], "another label has the same description"),
        (['{"label": "mouse", "description": ["a rodent"]}'], "the draft has no description"),
        (["[1, 2, 3]"], "the answer is no JSON object"),
        (['{"label": "mouse", "descr'], "the answer is no JSON"),
        ([HANGS], "no answer: endpoint_failed"),
        ([" "], "the answer is empty"),
    ],
)
def test_a_useless_answer_leaves_the_label_unwritten_and_the_others_go_on(
    desk: ConceptDesk, answers: Sequence[str], why: str
) -> None:
    twins = why.startswith("another label")
    bat = card("bat", WINGED if twins else "an animal with wings")
    with ScriptedLLM({"mouse": answers, "bat": [bat]}, WORDS) as server:
        patient = IMPATIENT if HANGS in answers else None
        summary = desk.write(server, patient=patient, rounds=1, sees=False, table=None, truth=None)
    assert why in desk.file()["unwritten"]["mouse"]["why"]
    assert list(desk.file()["cards"]) == ([] if twins else ["bat"])
    assert summary.error is None


def test_a_question_without_an_answer_is_asked_again(desk: ConceptDesk) -> None:
    hanging = {**GOOD, "mouse": [HANGS]}
    with ScriptedLLM(hanging, WORDS) as server:
        desk.write(server, patient=IMPATIENT)
    assert "history" not in desk.file()["unwritten"]["mouse"]
    with ScriptedLLM(GOOD, WORDS) as server:
        desk.write(server)
        assert (len(server.drafts("mouse")), len(server.drafts("bat"))) == (1, 0)
    assert list(desk.file()["cards"]) == ["mouse", "bat"]
    assert desk.file()["unwritten"] == {}


def test_if_no_question_is_answered_that_is_an_error(desk: ConceptDesk) -> None:
    with ScriptedLLM({"mouse": [HANGS], "bat": [HANGS]}, WORDS) as server:
        summary = desk.write(server, patient=IMPATIENT)
    assert isinstance(summary.error, TooManyFailedError)
    assert summary.to_json()["error"]["kind"] == "TooManyFailedError"


def test_an_llm_that_is_not_there_ends_the_run(desk: ConceptDesk) -> None:
    with ScriptedLLM(GOOD, WORDS) as server:
        server.down()
        with pytest.raises(EndpointError, match="no endpoint answers"):
            desk.write(server)
    assert not desk.out.exists()
    assert not desk.settings().evidence.exists()


@pytest.mark.parametrize("find", ["no idea", '{"labels": "mouse"}', REFUSES, "[]", '[{"label": "dragon"}, 3]'])
def test_a_search_that_finds_nothing_leaves_what_pictures_show(desk: ConceptDesk, find: str) -> None:
    with ScriptedLLM(GOOD, WORDS, find=find) as server:
        summary = desk.write(server)
        assert summary.cards == ("mouse", "bat")  # people's labels show that the model confuses them
    desk.out.unlink()
    with ScriptedLLM(GOOD, WORDS, find=find) as server:
        assert desk.write(server, truth=None).cards == ()
    assert desk.file() == {"cards": {}, "proposed": {}, "unwritten": {}}


def test_a_name_that_the_model_understands_needs_no_card(desk: ConceptDesk) -> None:
    """Unless pictures show that it is confused all the same."""
    scripts = {**GOOD, "cup": [card("cup", "a small vessel for drinking from")]}
    with ScriptedLLM(scripts, WORDS, relation="It is the Same.") as server:
        desk.write(server)
        assert len(server.drafts("cup")) == 1
    assert list(desk.file()["cards"]) == ["mouse", "bat"]
    assert desk.file()["unwritten"]["cup"]["why"].startswith("no card needed")


@pytest.mark.parametrize("silent", ["compare", "name"])
def test_a_check_that_the_llm_refuses(desk: ConceptDesk, silent: str) -> None:
    """A comparison can be done without; a description that nobody named stands for nothing."""
    with ScriptedLLM(GOOD, WORDS, refuses=silent) as server:
        desk.write(server, rounds=1)
    assert list(desk.file()["cards"]) == ([] if silent == "name" else ["mouse", "bat"])
    assert reasons(desk, "mouse")[0].startswith("blind naming failed: " if silent == "name" else "corrects")


def test_a_model_that_only_looks_at_pictures_has_no_reading(desk: ConceptDesk) -> None:
    desk.engine.fault = lambda picture, request: None if picture else Failure("rejected", "there is no picture")
    with ScriptedLLM(GOOD, WORDS) as server:
        summary = desk.write(server)
        assert server.asked("compare") == []
    assert summary.cards == ("mouse", "bat")


def test_the_summary_says_what_there_is_and_what_comes_next(desk: ConceptDesk) -> None:
    with ScriptedLLM({**GOOD, "bat": ["nonsense"]}, WORDS) as server:
        first, second, third, last = desk.write(server, rounds=1).lines()
    assert first == f"{desk.out}: 1 card"
    assert second == "no card: bat (the file says why)"
    assert third.startswith("1 round, questions: 5 to the llm, 74 to the model, ")
    assert last == f"next: tagllm disambiguate TABLE --concepts {desk.out} --out LABELS"
