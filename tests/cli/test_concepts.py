"""`tagllm concepts` and `vocab scenes` as they are typed: what comes out, and what the next command makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tagllm_cli.cli import option_groups as settings
from tagllm_cli.records import DecodedImage, Request, Response
from tagllm_cli.store.table import open_table
from tests.support.command_line import one_object, tagllm
from tests.support.concept_workspace import GOOD, RODENT, WORDS, ConceptWorkspace, labels_in, see
from tests.support.faulty_proxy import FaultyProxy
from tests.support.scripted_llm import HANGS, REFUSES, ScriptedLLM, card
from tests.support.stub_server import stub_server


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConceptWorkspace:
    monkeypatch.delenv("TAGLLM_LLM_ENDPOINT", raising=False)
    return ConceptWorkspace(tmp_path / "workspace")


@pytest.fixture
def eyes() -> Iterator[FaultyProxy]:
    """The model that sees, served."""
    with stub_server("rules", see) as server:
        yield server


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a user's patience: a user waits two minutes for an answer, three times."""
    monkeypatch.setattr(settings, "LLM_PATIENCE", {"timeout_s": 1.0, "retries": 1})


def typed(workspace: ConceptWorkspace, *more: str, llm: FaultyProxy | None = None) -> list[str]:
    """The command line for this desk's vocabulary and card file."""
    named = ["--llm-endpoint", llm.url] if llm else []
    return ["concepts", str(workspace.vocabulary), "--out", str(workspace.out), *named, *more]


def info(workspace: ConceptWorkspace, eyes: FaultyProxy) -> list[str]:
    """The options for pictures."""
    return ["--table", str(workspace.table), "--truth", str(workspace.truth), "--endpoint", eyes.url]


def test_without_any_model_there_are_two_lines(workspace: ConceptWorkspace) -> None:
    result = tagllm(typed(workspace))
    assert (result.exit_code, result.stdout) == (2, "")
    what, todo = result.stderr.splitlines()
    assert what == "error: no model is named to write the cards"
    assert "--llm-endpoint" in todo
    assert not workspace.out.exists()


def test_an_llm_alone_writes_cards_by_their_text(workspace: ConceptWorkspace) -> None:
    with ScriptedLLM(GOOD, WORDS) as server:
        result = tagllm(typed(workspace, llm=server))
    assert result.exit_code == 0
    first, second, third, last = result.stdout.splitlines()
    assert first == f"{workspace.out}: 2 cards"
    assert second == "no card: none of the ambiguous labels"
    assert "to the llm" in third
    assert "to the model" not in third
    assert last.startswith("next: tagllm disambiguate TABLE --concepts ")
    assert "round 1: mouse: a card: judged by its text" in result.stderr
    assert workspace.file()["cards"]["mouse"]["author"] == "scripted-llm"


def test_json_is_one_object(workspace: ConceptWorkspace, eyes: FaultyProxy) -> None:
    with ScriptedLLM({**GOOD, "cat": ["nonsense"]}, WORDS) as server:
        result = tagllm(typed(workspace, *info(workspace, eyes), "--json", "--quiet", llm=server))
    value = one_object(result.stdout)
    assert (value["command"], value["cards"], value["error"]) == ("concepts", ["mouse", "bat"], None)
    assert value["unwritten"]["cat"].startswith("the answer is no JSON: 'nonsense'")
    assert value["asked"].keys() == {"llm", "model"}
    assert result.stderr == ""


def test_the_multimodal_model_writes_where_no_llm_is_named(workspace: ConceptWorkspace) -> None:
    with ScriptedLLM(GOOD, WORDS) as scribe:

        def both(picture: DecodedImage | None, request: Request) -> Response:
            return see(picture, request) if "Category: " in request.text else Response(scribe.say(request.text))

        with stub_server("both", both) as server:
            result = tagllm(typed(workspace, *info(workspace, server), "--json"))
        assert scribe.questions == []
    value = one_object(result.stdout)
    assert (value["cards"], value["asked"].keys()) == (["mouse", "bat"], {"llm"})


def test_a_card_by_hand_stays_as_it_was_written(workspace: ConceptWorkspace, eyes: FaultyProxy) -> None:
    ours = "# What we mean.\ncards:\n- name: mouse\n  description: anything that squeaks\n"
    workspace.out.write_text(ours)
    with ScriptedLLM(GOOD, WORDS) as server:
        result = tagllm(typed(workspace, *info(workspace, eyes), "--json", llm=server))
        assert server.drafts("mouse") == []
    value = one_object(result.stdout)
    assert (value["cards"], value["by_hand"]) == (["mouse", "bat"], ["mouse"])
    assert workspace.out.read_text().startswith(ours)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            "cards: [{name: dragon, description: what breathes fire}]",
            "entry 1 of `cards` ('dragon'): 'dragon' is no label",
        ),
        ("cards: [{name: mouse, colour: grey}]", "entry 1 of `cards` ('mouse'): unknown key 'colour'"),
        ("card: []", "unknown key 'card' (did you mean 'cards'?)"),
        ("proposed: [{name: mouse, description: a rodent}]", "`cards` is missing"),
        ("cards: [", "line 2: did not find expected node content"),
    ],
)
def test_a_card_file_that_is_none_is_one_clear_line(workspace: ConceptWorkspace, text: str, what: str) -> None:
    workspace.out.write_text(text)
    with ScriptedLLM(GOOD, WORDS) as server:
        result = tagllm(typed(workspace, llm=server))
        assert server.questions == []
    decided = tagllm(f"disambiguate {workspace.table} --concepts {workspace.out} --out {workspace.root}/labels.parquet")
    for each in (result, decided):
        assert (each.exit_code, each.stdout) == (2, "")
        message, _ = each.stderr.splitlines()
        assert message.startswith("error: ")
        assert what in message
    assert workspace.out.read_text() == text


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--labels", "dragon"], "'dragon' is no label of workspace"),
        (["--labels", ","], "--labels names nothing"),
        (["--truth", "truth.csv"], "--truth needs images"),
        (["--images", "."], "no model is named to look at the images"),
        (["--review"], "--review needs a terminal"),
        (["--out", "cards.json"], "cards.json is no YAML file"),
        (["--rounds", "0"], "--rounds"),
    ],
)
def test_what_cannot_be_used_is_two_lines_and_nothing_is_asked(
    workspace: ConceptWorkspace, monkeypatch: pytest.MonkeyPatch, more: Sequence[str], what: str
) -> None:
    monkeypatch.chdir(workspace.root)
    before = sorted(workspace.root.iterdir())
    with ScriptedLLM(GOOD, WORDS) as server:
        result = tagllm(typed(workspace, *more, llm=server))
        assert server.questions == []
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 2)
    assert what in result.stderr
    assert sorted(workspace.root.iterdir()) == before


@pytest.mark.parametrize(("lines", "what"), [("999.png,mouse", "share no image"), ("000.png,dragon", "share no label")])
def test_people_who_speak_of_something_else_are_no_help(
    workspace: ConceptWorkspace, eyes: FaultyProxy, lines: str, what: str
) -> None:
    workspace.truth.write_text(f"image,label\n{lines}\n")
    with ScriptedLLM(GOOD, WORDS) as server:
        result = tagllm(typed(workspace, *info(workspace, eyes), llm=server))
    assert (result.exit_code, what in result.stderr, workspace.out.exists()) == (2, True, False)


def test_an_llm_that_is_not_there_is_named(workspace: ConceptWorkspace, hurry: None) -> None:
    with ScriptedLLM(GOOD, WORDS) as server:
        pass
    result = tagllm(typed(workspace, "--json", llm=server))
    assert result.exit_code == 2
    assert one_object(result.stdout)["error"]["kind"] == "EndpointError"
    assert f"error: no endpoint answers: {server.url}" in result.stderr
    assert not workspace.out.exists()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (HANGS, "no answer: endpoint_failed: "),
        ("squeak", "the answer is no JSON: 'squeak'"),
        (REFUSES, "the LLM refuses"),
        ("<think>It may be {", "the answer is a thought that never ended"),
        (card("bat", "an animal with wings"), "the draft is about 'bat', another label"),
    ],
)
def test_one_label_that_comes_to_nothing_leaves_the_others(
    workspace: ConceptWorkspace, eyes: FaultyProxy, hurry: None, answer: str, why: str
) -> None:
    with ScriptedLLM({**GOOD, "mouse": [answer]}, WORDS) as server:
        result = tagllm(typed(workspace, *info(workspace, eyes), "--json", llm=server))
    value = one_object(result.stdout)
    assert (result.exit_code, value["cards"]) == (0, ["bat"])
    assert value["unwritten"]["mouse"].startswith(why)
    assert workspace.file()["unwritten"]["mouse"]["why"] == value["unwritten"]["mouse"]


def test_an_llm_that_answers_nothing_at_all_fails_the_run(workspace: ConceptWorkspace, hurry: None) -> None:
    with FaultyProxy(answer=lambda question: {"choices": []}, models=("scribe",)) as server:
        result = tagllm(typed(workspace, "--json", llm=server))
    assert (result.exit_code, one_object(result.stdout)["error"]["kind"]) == (3, "TooManyFailedError")
    assert "no question about 5 labels was answered" in result.stderr


def test_the_same_command_asks_nothing(workspace: ConceptWorkspace, eyes: FaultyProxy) -> None:
    with ScriptedLLM({**GOOD, "cat": [card("cat", "an animal with wings")]}, WORDS) as server:
        line = typed(workspace, *info(workspace, eyes), llm=server)
        assert tagllm(line).exit_code == 0
        before, questions = workspace.out.read_bytes(), (len(server.questions), len(eyes.questions))
        result = tagllm([*line, "--json"])
        assert (len(server.questions), len(eyes.questions)) == questions
    assert one_object(result.stdout)["asked"] == {"llm": 0, "model": 0}
    assert workspace.out.read_bytes() == before


def test_disambiguate_asks_with_the_cards_that_were_written(workspace: ConceptWorkspace, eyes: FaultyProxy) -> None:
    """The model takes a mouse for a device until a card says that the animal is meant."""
    workspace.describe({"cup": "a small vessel that one drinks from"})
    with ScriptedLLM(GOOD, WORDS) as server:
        assert tagllm(typed(workspace, *info(workspace, eyes), llm=server)).exit_code == 0
    asked = len(eyes.questions)
    for cards, is_right in (("none", False), (str(workspace.out), True)):
        out = workspace.root / f"labels-{is_right}.parquet"
        words = ["disambiguate", str(workspace.table), "--concepts", cards, "--out", str(out), "--endpoint", eyes.url]
        assert tagllm([*words, "--no-preflight"]).exit_code == 0
        rows = list(open_table(out).rows())
        said = [[entry.name for entry in row.labels or () if entry.decision == "yes"] for row in rows]
        assert (said == [labels_in(number) for number in range(len(rows))]) is is_right
    texts = [question.json["messages"][-1]["content"][-1]["text"] for question in eyes.questions[asked:]]
    assert any(f"Here it means {RODENT}" in text for text in texts)


def test_scenes_from_an_llm_are_what_candidates_groups_by(
    workspace: ConceptWorkspace, eyes: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.root)
    answer = [{"scene": "desk", "labels": ["Mouse", "keyboard", "cup"]}, {"scene": "cave", "labels": ["bat", "cat"]}]
    said = f"Here they are:\n```json\n{json.dumps(answer)}\n```"
    with stub_server("scribe", lambda picture, request: Response(said)) as server:
        result = tagllm(["vocab", "scenes", "vocabulary.yaml", "--llm-endpoint", server.url, "--out", "scenes.yaml"])
        again = tagllm(["vocab", "scenes", "vocabulary.yaml", "--llm-endpoint", server.url, "--out", "scenes.yaml"])
        assert len(server.questions) == 1
    assert result.exit_code == 0
    assert result.stdout.startswith("scenes.yaml: 2 scenes with 5 of 5 labels of vocabulary.yaml\nnext: tagllm cand")
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)
    scenes = yaml.safe_load(Path("scenes.yaml").read_text())
    assert (scenes["author"], [scene["name"] for scene in scenes["scenes"]]) == ("scribe", ["desk", "cave"])
    with stub_server("rules") as model:
        options = ["--arms", "cooccurring", "--group-size", "3", "--cooccurrence", "scenes.yaml", "--no-preflight"]
        line = ["candidates", "images", "--vocab", "vocabulary.yaml", "--out", "c.parquet", "--endpoint", model.url]
        assert tagllm([*line, *options, "--limit", "1"]).exit_code == 0
        groups = [_listed(question.json) for question in model.questions]
    assert sorted(map(sorted, groups)) == [["bat", "cat"], ["cup", "keyboard", "mouse"]]


def _listed(question: Any) -> list[str]:
    """The names of a group's question."""
    text = str(question["messages"][-1]["content"][-1]["text"])
    return text.partition("Categories: ")[2].split(", ")
