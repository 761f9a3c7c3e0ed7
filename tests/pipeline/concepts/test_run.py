"""Runs of `tagllm concepts`: what humans wrote, what an interruption leaves, what cannot be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tagllm_cli.cli.console import Console
from tagllm_cli.errors import UsageError
from tagllm_cli.pipeline.concepts import rounds as rounds_module
from tagllm_cli.pipeline.concepts import write_concepts
from tagllm_cli.records import DecodedImage, Failure, Request, Response
from tests.support.concept_workspace import DEVICE, GOOD, HALF, WINGED, WORDS, ConceptWorkspace, reasons, see
from tests.support.scripted_llm import ScriptedLLM, card


@pytest.fixture
def workspace(tmp_path: Path) -> ConceptWorkspace:
    return ConceptWorkspace(tmp_path / "workspace")


def test_what_humans_wrote_is_never_overwritten(workspace: ConceptWorkspace) -> None:
    """A card by hand, a card that was changed by hand, and a description in the vocabulary."""
    workspace.describe({"cup": "a small vessel that one drinks from"})
    with ScriptedLLM({"mouse": [card("mouse", HALF)]}, WORDS) as server:
        workspace.write(server, rounds=1)
    content = yaml.safe_load(workspace.out.read_text())
    content["cards"][0]["excludes"] = ["toys"]
    content["cards"].append({"name": "bat", "description": "what flies at night"})
    workspace.out.write_text("# our own words\n" + yaml.safe_dump(content))
    scripts = {**GOOD, "cup": [card("cup", "a vessel for drinking")], "cat": [card("cat", "an animal that purrs")]}
    with ScriptedLLM(scripts, WORDS) as server:
        summary = workspace.write(server, seed=1)
        assert [server.drafts(name) for name in ("mouse", "bat", "cup")] == [[], [], []]
        assert "- bat (animal): what flies at night\n" in server.asked("find")[0]
        assert "- cup (kitchenware): a small vessel that one drinks from" in server.asked("find")[0]
    cards = workspace.file()["cards"]
    assert (cards["mouse"]["description"], cards["mouse"]["excludes"]) == (HALF, ["toys"])
    assert cards["bat"] == {"name": "bat", "description": "what flies at night"}
    assert (summary.by_hand, summary.described) == (("mouse", "bat"), ("cup",))
    assert workspace.out.read_text().startswith("# our own words\n")


def test_chosen_labels_are_written_without_a_search(workspace: ConceptWorkspace) -> None:
    with ScriptedLLM(GOOD, WORDS) as server:
        summary = workspace.write(server, labels=("bat",))
        assert (server.asked("find"), server.drafts("mouse")) == ([], [])
    assert summary.cards == ("bat",)


def test_the_same_command_asks_nothing_and_starts_nothing(workspace: ConceptWorkspace) -> None:
    scripts = {**GOOD, "cat": [card("cat", "an animal with wings")], "cup": ["nonsense"]}
    with ScriptedLLM(scripts, WORDS) as server:
        workspace.write(server)
    before, started = workspace.out.read_bytes(), workspace.engine.started
    with ScriptedLLM(scripts, WORDS) as server:
        summary = workspace.write(server)
        assert server.received == []
    assert (workspace.out.read_bytes(), workspace.engine.started) == (before, started)
    assert sum(summary.asked.values()) == 0


def test_other_images_are_another_run(workspace: ConceptWorkspace) -> None:
    """Its rounds are counted on from those that the file has seen; a kept card stays while it does well."""
    with ScriptedLLM({"mouse": [card("mouse", DEVICE)], "bat": GOOD["bat"]}, WORDS) as server:
        workspace.write(server, rounds=1)
    with ScriptedLLM(GOOD, WORDS) as server:
        workspace.write(server, rounds=1, seed=1)
        assert server.drafts("bat") == []
    history = workspace.file()["cards"]["mouse"]["history"]
    assert [(attempt["round"], attempt["kept"]) for attempt in history] == [(1, False), (2, True)]


class Stop(Exception):
    """What ends a run in the middle."""


@pytest.mark.parametrize("after", [1, 20, 60])
def test_an_interrupted_run_goes_on_and_ends_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    monkeypatch.setattr(rounds_module, "_AT_ONCE", 1)  # what is on its way when the run ends must be asked again
    scripts = {**GOOD, "cat": [card("cat", DEVICE), card("cat", "an animal that purrs")]}
    whole, broken = ConceptWorkspace(tmp_path / "whole"), ConceptWorkspace(tmp_path / "broken")
    with ScriptedLLM(scripts, WORDS) as server:
        whole.write(server)
        questions = [info.json["messages"] for info in server.questions]

    def dying(picture: DecodedImage | None, request: Request) -> Response:
        if len(broken.engine.asked) > after:
            raise Stop
        return see(picture, request)

    broken.engine.answer = dying
    with ScriptedLLM(scripts, WORDS) as server:
        with pytest.raises(Stop):
            broken.write(server)
        broken.engine.answer = see
        broken.write(server)
        asked = [info.json["messages"] for info in server.questions]
    assert sorted(map(str, asked)) == sorted(map(str, questions))  # nothing twice
    assert broken.out.read_text() == whole.out.read_text()


def test_the_file_does_not_depend_on_who_was_quicker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = {**GOOD, "cat": [card("cat", WINGED)], "cup": ["nonsense"]}
    texts = []
    for at_once in (1, 16):
        monkeypatch.setattr(rounds_module, "_AT_ONCE", at_once)
        workspace = ConceptWorkspace(tmp_path / str(at_once))
        with ScriptedLLM(scripts, WORDS) as server:
            workspace.write(server)
        texts.append(workspace.out.read_text())
    assert texts[0] == texts[1]


def test_failing_images_are_left_out_and_without_any_nothing_is_decided(workspace: ConceptWorkspace) -> None:
    (workspace.images / workspace.names[3]).write_bytes(b"")
    (workspace.images / workspace.names[4]).unlink()
    with ScriptedLLM(GOOD, WORDS) as server:
        workspace.write(server, examples=60)
    assert "of 58 decisions" in reasons(workspace, "mouse")[0]
    workspace.out.unlink()
    workspace.engine.fault = lambda picture, request: Failure("rejected", "no") if picture else None
    with ScriptedLLM(GOOD, WORDS) as server:
        workspace.write(server, examples=60, seed=5, max_pixels=16)
    assert (
        workspace.file()["unwritten"]["mouse"]["why"]
        == "no answer: no image could be asked about; the first: rejected: no"
    )


def test_one_model_may_play_both_parts(workspace: ConceptWorkspace) -> None:
    with ScriptedLLM(GOOD, WORDS) as server:

        def both(picture: DecodedImage | None, request: Request) -> Response:
            if "Category: " in request.text:
                return see(picture, request)
            return Response(server.say(request.text))

        workspace.engine.answer = both
        _, vlm = workspace.models(server)
        assert vlm is not None
        summary = write_concepts(workspace.settings(), vlm, vlm, Console(quiet=True))
        assert server.received == []
    assert (summary.cards, workspace.engine.started, workspace.engine.closed) == (("mouse", "bat"), 1, 1)
    assert workspace.file()["cards"]["bat"]["author"] == "rules"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ("dragon",)}, "'dragon' is no label of workspace"),
        ({"out": Path("cards.txt")}, "is no YAML file"),
        ({"table": None}, "--truth needs images"),
        ({"review": True}, "--review needs a terminal"),
        ({"images": "nowhere", "table": None}, "there is no folder '.*nowhere'"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_asked(
    workspace: ConceptWorkspace, options: dict[str, Any], message: str
) -> None:
    with ScriptedLLM(GOOD, WORDS) as server:
        with pytest.raises(UsageError, match=message):
            write_concepts(replace(workspace.settings(), **options), *workspace.models(server), Console(quiet=True))
        assert server.received == []
    assert not workspace.settings().evidence.exists()


def test_images_need_a_vlm(workspace: ConceptWorkspace) -> None:
    with ScriptedLLM(GOOD, WORDS) as server, pytest.raises(UsageError, match="no model is named to look"):
        workspace.write(server, sees=False)
