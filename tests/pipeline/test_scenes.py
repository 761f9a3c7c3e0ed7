"""Scenes from an LLM: good answers, and nonsense, refusals and failures that leave the others standing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagllm_cli.engines.http.engine import EndpointEngine, EndpointSettings
from tagllm_cli.errors import EndpointError, UsageError
from tagllm_cli.labeling.answers.parse_json import UnusableAnswerError, read_json
from tagllm_cli.labeling.groups.cooccurrence import Scene, load_cooccurrence, load_scenes
from tagllm_cli.pipeline.scenes import scenes_file, write_scenes
from tagllm_cli.records import DecodedImage, Failure, Request, Response
from tagllm_cli.vocabulary.load import load_vocabulary
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.support.rule_engine import RuleEngine
from tests.support.stub_server import stub_server

KITCHEN = '[{"scene": "kitchen", "labels": ["cup", "Forks"]}, {"scene": "farm", "labels": ["cow", "sheep", "dog"]}]'


def say(*answers: str | Response) -> RuleEngine:
    """An engine that gives these answers one after the other."""
    responses = iter(answers)

    def answer(picture: DecodedImage | None, request: Request) -> Response:
        assert picture is None
        assert not request.with_image
        response = next(responses)
        return response if isinstance(response, Response) else Response(response)

    return RuleEngine(answer=answer)


def labels_at(path: Path, *names: str) -> str:
    path.write_text("\n".join(names), encoding="utf-8")
    return str(path)


@pytest.fixture
def few(tmp_path: Path) -> str:
    return labels_at(tmp_path / "few.txt", "cup", "fork", "cow", "sheep", "dog", "star")


@pytest.fixture
def many(tmp_path: Path) -> str:
    """Three questions' worth of labels, in the order in which they are dealt out: 0, 3, 6, ... first."""
    return labels_at(tmp_path / "many.txt", *(f"label {number}" for number in range(201)))


def scene_of(name: str, *labels: str) -> str:
    return json.dumps([{"scene": name, "labels": labels}])


def test_what_the_model_says_becomes_a_file(few: str, tmp_path: Path) -> None:
    engine, out = say(KITCHEN), tmp_path / "scenes.yaml"
    report = scenes_file(few, out, lambda: engine, None, "some model")
    assert load_scenes(out) == (Scene("kitchen", ("cup", "fork")), Scene("farm", ("cow", "sheep", "dog")))
    assert out.read_text().startswith("# Labels that are often seen together.")
    assert "\nauthor: some model\n" in out.read_text()
    assert report.notes == ("in no scene: star",)
    assert report.to_json() == {
        "vocabulary": few,
        "out": str(out),
        "scenes": 2,
        "placed": 5,
        "labels": 6,
        "notes": ["in no scene: star"],
    }
    assert report.lines()[0] == f"{out}: 2 scenes with 5 of 6 labels of {few}"
    assert report.lines()[1] == f"next: tagllm candidates SOURCE --vocab {few} --cooccurrence {out} --out TABLE"
    assert (engine.started, engine.closed, len(engine.asked)) == (1, 1, 1)
    assert "cup, fork, cow, sheep, dog, star" in engine.asked[0][1]
    found = load_cooccurrence(out, load_vocabulary(few))
    assert found.affinity[0].tolist() == [1, 1, 0, 0, 0, 0]


def test_long_vocabularies_are_asked_in_parts_and_scenes_of_one_name_are_one(many: str, tmp_path: Path) -> None:
    engine = say(
        scene_of("Street", "label 0", "label 3"), scene_of("street", "label 1"), scene_of("sea", "label 2", "label 0")
    )
    report = scenes_file(many, tmp_path / "s.yaml", lambda: engine, None)
    texts = [text for _, text in engine.asked]
    listed = [text.partition("dataset: ")[2].partition("\n")[0].split(", ") for text in texts]
    assert listed == [[f"label {number}" for number in range(start, 201, 3)] for start in range(3)]
    assert [("Scenes found so far, to be used again where they fit: Street" in text) for text in texts] == [0, 1, 1]
    assert load_scenes(tmp_path / "s.yaml") == (
        Scene("Street", ("label 0", "label 1", "label 3")),
        Scene("sea", ("label 0", "label 2")),
    )
    assert report.notes == ("in no scene: label 4, label 5, label 6, label 7, label 8 and 192 more",)


UNUSABLE: dict[str, Response] = {
    "the answer is no JSON: \"I'm sorry, I can't help with that.\"": Response("I'm sorry, I can't help with that."),
    "empty_answer: the answer is empty (finish reason stop)": Response("  "),
    "the answer was cut off": Response('[{"scene": "street", "labels": ["label 1"', finish="length"),
    "endpoint_failed: ReadTimeout": Response(failure=Failure("endpoint_failed", "ReadTimeout")),
    "the answer names no scene": Response('{"street": ["label 1"]}'),
    f"the answer is no JSON: {'x' * 80 + '...'!r}": Response("x" * 500),
}


@pytest.mark.parametrize("reason", UNUSABLE)
@pytest.mark.parametrize("bad", [0, 1])
def test_a_question_that_comes_to_nothing_leaves_the_others(many: str, tmp_path: Path, bad: int, reason: str) -> None:
    answers: list[str | Response] = [scene_of("sea", "label 0", "label 1"), scene_of("sea", "label 2")]
    answers.insert(bad, UNUSABLE[reason])
    report = scenes_file(many, tmp_path / "s.yaml", lambda: say(*answers), None)
    assert report.notes[0] == f"question {bad + 1} of 3 failed: {reason}"
    assert load_scenes(tmp_path / "s.yaml") == (Scene("sea", ("label 0", "label 1", "label 2")),)


@pytest.mark.parametrize(
    "answer",
    [
        f"<think>[not this]</think> Sure!\n```json\n{KITCHEN}\n```\nI hope this helps.",
        f'{{"scenes": {KITCHEN}}}',
        KITCHEN.replace('"scene": "farm"', '"scene": " farm\\n"').replace('"dog"', '"dog", 7, null'),
        KITCHEN[:-1] + ', "nonsense", {"scene": "x"}, {"scene": 3, "labels": ["cup"]}, {"scene": "y", "labels": []}]',
    ],
)
def test_answers_in_other_forms_are_read_and_nonsense_within_is_left_out(few: str, tmp_path: Path, answer: str) -> None:
    scenes_file(few, tmp_path / "s.yaml", lambda: say(answer), None)
    assert load_scenes(tmp_path / "s.yaml") == (
        Scene("kitchen", ("cup", "fork")),
        Scene("farm", ("cow", "sheep", "dog")),
    )


def test_answers_about_other_labels_are_named_and_left_out(few: str, tmp_path: Path) -> None:
    answer = json.dumps([{"scene": "zoo", "labels": ["lion", "cow"]}, {"scene": "space", "labels": ["rocket"]}])
    report = scenes_file(few, tmp_path / "s.yaml", lambda: say(answer), None)
    assert load_scenes(tmp_path / "s.yaml") == (Scene("zoo", ("cow",)),)
    assert report.notes[0] == "out-of-vocabulary names were left out: lion, rocket"


@pytest.mark.parametrize("answer", ["No.", scene_of("space", "rocket"), "[]", "[[[[" * 10_000])
def test_no_scene_at_all_writes_nothing(few: str, tmp_path: Path, answer: str) -> None:
    engine = say(answer)
    with pytest.raises(UsageError, match="no scene was found: ") as caught:
        scenes_file(few, tmp_path / "s.yaml", lambda: engine, None)
    assert "\n" not in caught.value.message
    assert engine.closed == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.txt"]


def nobody() -> RuleEngine:
    raise AssertionError("nothing is to be asked")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda out: out.write_text("scenes: []"), "exists already"),
        (lambda out: out.parent.rmdir(), "there is no folder"),
    ],
)
def test_what_cannot_be_written_is_not_asked_for(
    few: str, tmp_path: Path, prepare: Callable[[Path], object], message: str
) -> None:
    out = tmp_path / "folder" / "s.yaml"
    out.parent.mkdir()
    prepare(out)
    with pytest.raises(UsageError, match=message):
        scenes_file(few, out, nobody, None)


def test_another_file_name_is_refused(few: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"scenes\.json is no name for a file of scenes"):
        scenes_file(few, tmp_path / "scenes.json", nobody, None)


def test_an_endpoint_is_asked_and_one_that_is_not_there_is_named(few: str, tmp_path: Path) -> None:
    with stub_server("some-llm", lambda picture, request: Response(KITCHEN)) as server:
        settings = EndpointSettings((server.url,))
        report = scenes_file(few, tmp_path / "s.yaml", lambda: EndpointEngine(settings), None)
    assert report.scenes == 2
    gone = EndpointSettings((server.url,), backoff_s=0.001)
    with pytest.raises(EndpointError, match="no endpoint answers"):
        scenes_file(few, tmp_path / "t.yaml", lambda: EndpointEngine(gone), None)


# YAML folds the control characters that end a line; `tagllm vocab check` warns of such names.
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).filter(
    lambda text: text.strip() != ""
)


@given(scenes=st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=4)), max_size=5), author=TEXT)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, scenes: list[tuple[str, list[str]]], author: str
) -> None:
    path = tmp_path_factory.mktemp("scenes") / "s.yaml"
    given_scenes = tuple(Scene(name, tuple(labels)) for name, labels in scenes)
    write_scenes(path, Vocabulary("null", (Label("cat"),)), given_scenes, author)
    assert load_scenes(path) == given_scenes
    assert [each.name for each in path.parent.iterdir()] == ["s.yaml"]


@pytest.mark.parametrize("text", ["12", "true", '"kitchen"', "NaN"])
def test_json_that_is_neither_list_nor_object_is_no_answer(text: str) -> None:
    with pytest.raises(UnusableAnswerError):
        read_json(Response(text))
