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
from tests.support.concept_workspace import DEVICE, GOOD, HALF, RODENT, WINGED, WORDS, ConceptWorkspace, reasons
from tests.support.scripted_llm import HANGS, REFUSES, ScriptedLLM, card

IMPATIENT = {"timeout_s": 1.0, "retries": 1}


@pytest.fixture
def workspace(tmp_path: Path) -> ConceptWorkspace:
    return ConceptWorkspace(tmp_path / "workspace")


def test_good_cards_are_kept_and_can_be_used(workspace: ConceptWorkspace) -> None:
    with ScriptedLLM(GOOD, WORDS) as server:
        summary = workspace.write(server)
        assert server.asked("find")[0].startswith("These are labels of an image dataset")
    assert (summary.cards, summary.unwritten, summary.error) == (("mouse", "bat"), {}, None)
    vocabulary = load_vocabulary(str(workspace.vocabulary))
    assert load_cards(workspace.out, vocabulary) == {
        "mouse": Card("mouse", RODENT, ("cat",)),
        "bat": Card("bat", WINGED),
    }
    [attempt] = workspace.file()["cards"]["mouse"]["history"]
    assert (attempt["author"], attempt["round"], attempt["kept"]) == ("scripted-llm", 1, True)
    assert attempt["why"].startswith("corrects ")
    assert " breaks 0 of 36 decisions" in attempt["why"]
    assert attempt["reading"] == "what mouse looks like to me"
    assert all(": yes -> no, the truth says no" in each for each in attempt["disputed"])


def test_the_llm_is_told_what_there_is_to_know(workspace: ConceptWorkspace) -> None:
    with ScriptedLLM(GOOD, WORDS) as server:
        workspace.write(server)
        [question] = server.drafts("mouse")
    for part in ("category: animal", "bat, cat", "what mouse looks like to me", "people say that"):
        assert part in question


@pytest.mark.parametrize("pictures", [True, False])
def test_a_draft_about_another_label_does_not_survive(workspace: ConceptWorkspace, pictures: bool) -> None:
    without: dict[str, Any] = {} if pictures else {"sees": False, "table": None, "truth": None}
    with ScriptedLLM({**GOOD, "bat": [card("bat", "an animal that purrs on a sofa")]}, WORDS) as server:
        workspace.write(server, **without)
    assert list(workspace.file()["cards"]) == ["mouse"]
    assert set(reasons(workspace, "bat")) == {"round-trip check: the description reads like cat"}


@pytest.mark.parametrize(
    ("description", "why"),
    [
        (DEVICE, "corrects 0 and breaks"),
        ("a rodent or whatever else there is", "corrects 0 and breaks"),
        ("an unheard-of rodent", "corrects 11 and breaks"),
        ("a nibbler of any kind at all", "not needed: it changes no decision on 36 images"),
    ],
)
def test_a_draft_that_does_not_help_on_images_does_not_survive(
    workspace: ConceptWorkspace, description: str, why: str
) -> None:
    words = {**WORDS, "mouse": ("rodent", "nibbler")}
    with ScriptedLLM({"mouse": [card("mouse", description)]}, words) as server:
        workspace.write(server, rounds=1)
    assert workspace.file()["cards"] == {}
    [reason] = reasons(workspace, "mouse")
    assert why in reason


@pytest.mark.parametrize(
    ("description", "why"),
    [
        (RODENT, None),
        ("a rodent or whatever else there is", "images where the label was never proposed"),
        ("an unheard-of rodent", "says no to all 24 proposed images"),
    ],
)
def test_without_ground_truth_a_card_must_leave_alone_what_it_is_not_about(
    workspace: ConceptWorkspace, description: str, why: str | None
) -> None:
    with ScriptedLLM({"mouse": [card("mouse", description)]}, WORDS) as server:
        workspace.write(server, truth=None)
    assert bool(workspace.file()["cards"]) is (why is None)
    assert why is None or why in reasons(workspace, "mouse")[0]


def test_images_of_a_folder_are_enough(workspace: ConceptWorkspace) -> None:
    with ScriptedLLM(GOOD, WORDS) as server:
        workspace.write(server, table=None, truth=None, images=str(workspace.images))
    assert list(workspace.file()["cards"]) == ["mouse", "bat"]
    assert " where it was proposed, and none elsewhere" in reasons(workspace, "mouse")[0]


def test_a_folder_with_ground_truth_is_enough(workspace: ConceptWorkspace) -> None:
    bad = {**GOOD, "bat": [card("bat", "an unheard-of animal with wings")]}
    with ScriptedLLM(bad, WORDS) as server:
        workspace.write(server, table=None, images=str(workspace.images), rounds=1)
    assert list(workspace.file()["cards"]) == ["mouse"]
    assert reasons(workspace, "bat")[0].startswith("corrects ")


def test_a_failed_draft_is_revised_with_the_reason(workspace: ConceptWorkspace) -> None:
    with ScriptedLLM({"mouse": [card("mouse", DEVICE), card("mouse", RODENT)]}, WORDS) as server:
        workspace.write(server)
        first, second = server.drafts("mouse")
    assert "Earlier drafts" not in first
    assert f'"{DEVICE}": corrects 0 and breaks' in second
    history = workspace.file()["cards"]["mouse"]["history"]
    assert [(attempt["round"], attempt["kept"]) for attempt in history] == [(1, False), (2, True)]


def test_contradictory_drafts_end_in_the_best_of_them(workspace: ConceptWorkspace) -> None:
    """A kept card gives way only to one that does better on the same images."""
    script = [card("mouse", text) for text in (HALF, DEVICE, RODENT, HALF)]
    with ScriptedLLM({"mouse": script}, WORDS) as server:
        summary = workspace.write(server, rounds=6)
        assert len(server.drafts("mouse")) == 3  # nothing is wrong with the last one
    assert workspace.file()["cards"]["mouse"]["description"] == RODENT
    history = workspace.file()["cards"]["mouse"]["history"]
    assert [attempt["kept"] for attempt in history] == [True, False, True]
    assert summary.rounds == 4


def test_a_card_that_flips_comes_to_rest(workspace: ConceptWorkspace) -> None:
    script = [card("mouse", HALF), *[card("mouse", DEVICE), card("mouse", HALF)] * 10]
    with ScriptedLLM({"mouse": script}, WORDS) as server:
        summary = workspace.write(server, rounds=20)
    assert workspace.file()["cards"]["mouse"]["description"] == HALF
    assert summary.rounds < 6
    assert "no better than the present card" in reasons(workspace, "mouse")[2]


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
    workspace: ConceptWorkspace, answers: Sequence[str], why: str
) -> None:
    twins = why.startswith("another label")
    bat = card("bat", WINGED if twins else "an animal with wings")
    with ScriptedLLM({"mouse": answers, "bat": [bat]}, WORDS) as server:
        patient = IMPATIENT if HANGS in answers else None
        summary = workspace.write(server, patient=patient, rounds=1, sees=False, table=None, truth=None)
    assert why in workspace.file()["unwritten"]["mouse"]["why"]
    assert list(workspace.file()["cards"]) == ([] if twins else ["bat"])
    assert summary.error is None


def test_a_question_without_an_answer_is_asked_again(workspace: ConceptWorkspace) -> None:
    hanging = {**GOOD, "mouse": [HANGS]}
    with ScriptedLLM(hanging, WORDS) as server:
        workspace.write(server, patient=IMPATIENT)
    assert "history" not in workspace.file()["unwritten"]["mouse"]
    with ScriptedLLM(GOOD, WORDS) as server:
        workspace.write(server)
        assert (len(server.drafts("mouse")), len(server.drafts("bat"))) == (1, 0)
    assert list(workspace.file()["cards"]) == ["mouse", "bat"]
    assert workspace.file()["unwritten"] == {}


def test_if_no_question_is_answered_that_is_an_error(workspace: ConceptWorkspace) -> None:
    with ScriptedLLM({"mouse": [HANGS], "bat": [HANGS]}, WORDS) as server:
        summary = workspace.write(server, patient=IMPATIENT)
    assert isinstance(summary.error, TooManyFailedError)
    assert summary.to_json()["error"]["kind"] == "TooManyFailedError"


def test_an_llm_that_is_not_there_ends_the_run(workspace: ConceptWorkspace) -> None:
    with ScriptedLLM(GOOD, WORDS) as server:
        server.down()
        with pytest.raises(EndpointError, match="no endpoint answers"):
            workspace.write(server)
    assert not workspace.out.exists()
    assert not workspace.settings().evidence.exists()


@pytest.mark.parametrize("find", ["no idea", '{"labels": "mouse"}', REFUSES, "[]", '[{"label": "dragon"}, 3]'])
def test_a_search_that_finds_nothing_leaves_what_images_show(workspace: ConceptWorkspace, find: str) -> None:
    with ScriptedLLM(GOOD, WORDS, find=find) as server:
        summary = workspace.write(server)
        assert summary.cards == ("mouse", "bat")  # people's labels show that the model confuses them
    workspace.out.unlink()
    with ScriptedLLM(GOOD, WORDS, find=find) as server:
        assert workspace.write(server, truth=None).cards == ()
    assert workspace.file() == {"cards": {}, "proposed": {}, "unwritten": {}}


def test_a_name_that_the_model_understands_needs_no_card(workspace: ConceptWorkspace) -> None:
    """Unless images show that it is confused all the same."""
    scripts = {**GOOD, "cup": [card("cup", "a small vessel for drinking from")]}
    with ScriptedLLM(scripts, WORDS, relation="It is the Same.") as server:
        workspace.write(server)
        assert len(server.drafts("cup")) == 1
    assert list(workspace.file()["cards"]) == ["mouse", "bat"]
    assert workspace.file()["unwritten"]["cup"]["why"].startswith("no card needed")


@pytest.mark.parametrize("silent", ["compare", "name"])
def test_a_check_that_the_llm_refuses(workspace: ConceptWorkspace, silent: str) -> None:
    """A comparison can be done without; a description that nobody named stands for nothing."""
    with ScriptedLLM(GOOD, WORDS, refuses=silent) as server:
        workspace.write(server, rounds=1)
    assert list(workspace.file()["cards"]) == ([] if silent == "name" else ["mouse", "bat"])
    assert reasons(workspace, "mouse")[0].startswith("round-trip check failed: " if silent == "name" else "corrects")


def test_a_model_that_only_answers_about_images_has_no_reading(workspace: ConceptWorkspace) -> None:
    workspace.engine.fault = lambda picture, request: None if picture else Failure("rejected", "there is no picture")
    with ScriptedLLM(GOOD, WORDS) as server:
        summary = workspace.write(server)
        assert server.asked("compare") == []
    assert summary.cards == ("mouse", "bat")


def test_the_summary_says_what_there_is_and_what_comes_next(workspace: ConceptWorkspace) -> None:
    with ScriptedLLM({**GOOD, "bat": ["nonsense"]}, WORDS) as server:
        first, second, third, last = workspace.write(server, rounds=1).lines()
    assert first == f"{workspace.out}: 1 card"
    assert second == "no card: bat (the file says why)"
    assert third.startswith("1 round, requests: 5 to the llm, 74 to the model, ")
    assert last == f"next: tagllm disambiguate TABLE --concepts {workspace.out} --out LABELS"
