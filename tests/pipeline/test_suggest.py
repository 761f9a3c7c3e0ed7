"""Suggested names sorted by an LLM: good answers, nonsense and failures; what is written is a vocabulary at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.engines.http.engine import EndpointEngine, EndpointSettings
from tagllm_cli.errors import EndpointError, UsageError
from tagllm_cli.evaluation.suggest.suggest import Suggestions, SuggestOptions
from tagllm_cli.pipeline.suggest import NAMES_PER_QUESTION, suggest_vocabulary
from tagllm_cli.records import DecodedImage, Failure, Request, Response
from tagllm_cli.vocabulary.load import check_vocabulary, load_vocabulary
from tests.evaluation.suggest.test_suggest import LABELS, table
from tests.support.rule_engine import RuleEngine

SEEN = [(["cup"], ["lamp", "bench", "mug"]), (["cup"], ["lamp", "bench", "coffee cup"]), (["sofa"], ["Lamps", "mugs"])]
OPTIONS = SuggestOptions(min_images=1)


def say(*answers: str | Response) -> RuleEngine:
    """An engine that gives these answers one after the other."""
    responses = iter(answers)

    def answer(picture: DecodedImage | None, request: Request) -> Response:
        assert picture is None
        assert not request.with_image
        response = next(responses)
        return response if isinstance(response, Response) else Response(response)

    return RuleEngine(answer=answer)


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    return table(tmp_path / "a.parquet", SEEN)


def found_by(seen: Path, *answers: str | Response, out: Path | None = None) -> Suggestions:
    return suggest_vocabulary([seen], out, OPTIONS, lambda: say(*answers))


def sorted_by(found: Suggestions) -> dict[str, str]:
    return {each.name: each.parent for each in found.labels}


def entry(name: Any, parent: Any = None, same_as: Any = None) -> dict[str, Any]:
    return {"name": name, "parent": parent, "same_as": same_as}


ANSWER = [entry("lamp", "Furniture"), entry("Bench", "furniture"), entry("mug", "kitchen", "cups")]


def test_names_go_into_categories_and_other_words_become_synonyms(seen: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.yaml"
    found = found_by(seen, f"Here:\n```json\n{json.dumps(ANSWER)}\n```", out=out)
    assert sorted_by(found) == {"lamp": "furniture", "bench": "furniture", "coffee cup": "kitchen"}
    assert [(each.name, each.same_as) for each in found.synonyms] == [("mug", "cup")]
    vocabulary = load_vocabulary(str(out))
    assert check_vocabulary(str(out)) == []
    assert vocabulary.names == (*(label.name for label in LABELS), "lamp", "bench", "coffee cup")
    assert {label.name: label.parent for label in vocabulary.labels}["lamp"] == "furniture"
    assert vocabulary.labels[0].synonyms == ("mug",)
    text = out.read_text(encoding="utf-8")
    assert "# lamp: 3 images, 100.00%, as 0.jpg, 1.jpg, 2.jpg; also written lamps" in text
    assert "narrower than cup" in text
    assert "# Never seen in 3 images: fork, keyboard" in text


def test_the_question_names_labels_categories_and_names(seen: Path) -> None:
    engine = say(json.dumps(ANSWER))
    suggest_vocabulary([seen], None, OPTIONS, lambda: engine)
    ((_, text),) = engine.asked
    assert "labels of an image dataset: cup, fork, sofa, keyboard\n" in text
    assert "Their categories: kitchen, furniture\n" in text
    assert "These names are to be added: lamp, bench, mug, coffee cup\n" in text
    assert (engine.started, engine.closed) == (1, 1)


def test_categories_and_labels_that_do_not_exist_are_left_out(seen: Path) -> None:
    odd = [entry("lamp", "lighting", "light"), entry("unicorn", "kitchen"), entry(7, 8, 9), "text"]
    found = found_by(seen, json.dumps({"names": odd}))
    assert sorted_by(found) == {"lamp": "", "bench": "", "mug": "", "coffee cup": "kitchen"}
    assert found.notes == ["the model named what is neither a category nor a label: lighting, light"]


@pytest.mark.parametrize(
    "answer", ["I'm sorry, I can't help with that.", "[]", '"lamp"', Response(failure=Failure("timeout", "late"))]
)
def test_an_answer_that_is_of_no_use_leaves_the_names_as_they_are(seen: Path, answer: str | Response) -> None:
    found = found_by(seen, answer)
    assert sorted_by(found) == {"lamp": "", "bench": "", "mug": "", "coffee cup": "kitchen"}
    (note,) = found.notes
    assert note.startswith("question 1 of 1 about categories failed: ")


def test_many_names_are_asked_about_in_parts(tmp_path: Path) -> None:
    names = [f"thing{chr(97 + n // 26)}{chr(97 + n % 26)}b" for n in range(NAMES_PER_QUESTION + 5)]
    path = table(tmp_path / "a.parquet", [([], names[:40]), ([], names[40:])])
    answers = [json.dumps([entry(name, "kitchen") for name in names]) for _ in range(2)]
    found = suggest_vocabulary([path], None, OPTIONS, lambda: say(*answers))
    assert set(sorted_by(found).values()) == {"kitchen"}


def nobody() -> RuleEngine:
    raise AssertionError("nothing is to be asked")


def test_nothing_is_asked_where_nothing_is_new_or_the_file_exists(seen: Path, tmp_path: Path) -> None:
    plain = table(tmp_path / "b.parquet", [(["cup"], [])])
    assert suggest_vocabulary([plain], tmp_path / "same.yaml", OPTIONS, nobody).labels == []
    assert load_vocabulary(str(tmp_path / "same.yaml")).labels == LABELS
    refused: Sequence[tuple[Path, str]] = [
        (tmp_path / "same.yaml", "exists already"),
        (tmp_path / "new.txt", "no name for a vocabulary"),
        (tmp_path / "no/new.yaml", "there is no folder"),
    ]
    for out, message in refused:
        with pytest.raises(UsageError, match=message):
            suggest_vocabulary([seen], out, OPTIONS, nobody)


def test_an_llm_that_cannot_be_reached_is_named_and_nothing_is_written(seen: Path, tmp_path: Path) -> None:
    gone = EndpointSettings(("http://127.0.0.1:9",), backoff_s=0.001)
    with pytest.raises(EndpointError):
        suggest_vocabulary([seen], tmp_path / "new.yaml", OPTIONS, lambda: EndpointEngine(gone))
    assert not (tmp_path / "new.yaml").exists()
