"""Each cause of a flip is found in a real pair of tables that differ by it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.engines.factory import ModelOptions
from tagllm_cli.evaluation.diff.causes import CAUSES, MEANINGS
from tagllm_cli.evaluation.diff.diff import diff_tables
from tagllm_cli.labeling.thresholds import Thresholds
from tagllm_cli.records import Decision, DecodedImage, Failure, Request, Response, Row
from tests.evaluation.diff.worlds import IMAGES, causes, flips, labeled, rewritten
from tests.support import workspace
from tests.support.command_line import tagllm
from tests.support.decisions import write_sheet
from tests.support.rule_engine import answer
from tests.support.workspace import LABELS, MODEL, Workspace

REPO = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Both tables of 24 images as they are before anything changes."""
    return labeled(tmp_path_factory.mktemp("before") / "a")


def test_every_cause_has_a_meaning():
    assert list(MEANINGS) == list(CAUSES)


def test_the_same_run_elsewhere_differs_in_nothing(before: Workspace, tmp_path: Path):
    again = labeled(tmp_path / "b")
    assert flips(before.out, again.out) == flips(before.labels_out, again.labels_out) == []


def test_an_image_that_came_and_one_that_went(before: Workspace, tmp_path: Path):
    def change(made: Workspace) -> None:
        (made.images / "003.png").unlink()
        made.paint(500, "new.png")

    after = labeled(tmp_path / "b", change)
    found = flips(before.out, after.out)
    assert {(each.image, each.cause) for each in found} == {("003.png", "image removed"), ("new.png", "image added")}
    summary = diff_tables(before.out, after.out)
    assert (summary.images["added"], summary.images["removed"], summary.images["both"]) == (1, 1, IMAGES - 1)
    assert summary.shares["labels"] == 0
    assert summary.shares["images"] == 2 / (IMAGES + 1)


def test_a_renamed_image_is_the_same_image(before: Workspace, tmp_path: Path):
    def change(made: Workspace) -> None:
        (made.images / "003.png").rename(made.images / "other name.png")
        shutil.copy(made.images / copied, made.images / "a copy.png")

    rows = before.rows(before.labels_out)
    copied = next(name for name, row in rows.items() if any(each.decision == "yes" for each in row.labels or ()))
    after = labeled(tmp_path / "b", change)
    summary = diff_tables(before.labels_out, after.labels_out)
    assert (summary.images["renamed"], summary.images["added"], summary.images["removed"]) == (1, 1, 0)
    assert {each.cause.value for each in flips(before.labels_out, after.labels_out)} == {"image added"}
    assert "1 under another name" in summary.lines()[0]


def test_other_bytes(before: Workspace, tmp_path: Path):
    after = labeled(tmp_path / "b", lambda made: [made.paint(900 + n, f"{n:03d}.png") for n in range(4)])
    assert set(causes(before.out, after.out)) == {"image bytes"}
    summary = diff_tables(before.labels_out, after.labels_out)
    assert summary.images["other_bytes"] == 4
    assert set(summary.causes) == {"image bytes"}


def test_a_person(before: Workspace, tmp_path: Path):
    after = labeled(tmp_path / "b")

    def turned(row: Row) -> Row:
        labels = tuple(
            replace(each, decision=Decision.NO if each.decision is Decision.YES else Decision.YES, source="human")
            if number == 0
            else each
            for number, each in enumerate(row.labels or ())
        )
        return replace(row, labels=labels)

    rewritten(after.labels_out, turned)
    found = flips(before.labels_out, after.labels_out)
    assert found
    assert {each.cause.value for each in found} == {"people"}
    assert causes(after.labels_out, before.labels_out) == causes(before.labels_out, after.labels_out)


def test_what_people_said_and_import_took_over(before: Workspace, tmp_path: Path):
    def broken(made: Workspace) -> None:
        (made.images / "005.png").write_bytes(b"no image")

    one, two = labeled(tmp_path / "a", broken), labeled(tmp_path / "b", broken)
    rows = two.rows(two.labels_out)
    said = [
        (name, each.name)
        for name, row in rows.items()
        for each in row.labels or ()
        if each.decision is Decision.YES and not each.name.startswith("c")
    ]
    sheet = write_sheet(tmp_path / "said.csv", [*((*pair, "no") for pair in said), ("005.png", "cat", "yes")])
    done = tagllm(["import", str(two.labels_out), str(sheet)])
    assert done.exit_code == 0, done.output
    found = flips(one.labels_out, two.labels_out)
    # The other labels of an image that failed are listed as unknown since a person decided one of them: no flips.
    assert {(each.image, each.label) for each in found} == {*said, ("005.png", "cat")}
    assert {each.cause for each in found} == {"people"}


def test_a_request_that_failed_and_an_image_that_was_never_read(before: Workspace, tmp_path: Path):
    def change(made: Workspace) -> None:
        made.candidates()
        made.engine.fault = lambda picture, request: Failure("timeout", "late") if "cat" in request.text else None

    after = labeled(tmp_path / "b", change)
    found = flips(before.labels_out, after.labels_out)
    assert {(each.label, each.cause.value) for each in found} == {("cat", "failure")}
    assert {each.states[1] for each in found} <= {"unknown", "nothing"}
    broken = labeled(tmp_path / "c", lambda made: (made.images / "005.png").write_bytes(b"no image"))
    gone = [each for each in flips(before.out, broken.out) if each.image == "005.png"]
    assert gone
    assert {each.cause.value for each in gone} == {"failure"}


def test_a_label_that_is_new_and_one_that_is_gone(before: Workspace, tmp_path: Path):
    after = labeled(tmp_path / "b", lambda made: made.write_vocabulary([*LABELS[1:], "lamp"]))
    found = flips(before.out, after.out)
    assert {(each.label, each.cause.value) for each in found if each.cause.value == "vocabulary"} == {
        ("cat", "vocabulary"),
        ("lamp", "vocabulary"),
    }
    value = diff_tables(before.out, after.out).to_json()
    assert value["vocabulary"] == {"added": ["lamp"], "removed": ["cat"]}


def test_a_threshold(before: Workspace, tmp_path: Path):
    def change(made: Workspace) -> None:
        made.candidates()
        made.disambiguate({"thresholds": Thresholds(0.2, per_label={"dog": 0.9})})

    after = labeled(tmp_path / "b", change)
    found = flips(before.labels_out, after.labels_out)
    assert {each.cause.value for each in found} == {"thresholds"}
    assert {each.kind for each in found if each.label != "dog"} == {"added"}
    told = [each.what for each in diff_tables(before.labels_out, after.labels_out).comparison.settings.told]
    assert told == ["threshold", "images"]


def test_the_least_mass(before: Workspace, tmp_path: Path):
    def change(made: Workspace) -> None:
        made.candidates()
        made.disambiguate({"thresholds": Thresholds(min_mass=0.99)})  # the rule gives 0.98

    after = labeled(tmp_path / "b", change)
    for one, two in ((before, after), (after, before)):
        assert set(causes(one.labels_out, two.labels_out)) == {"thresholds"}
    assert set(diff_tables(before.labels_out, after.labels_out).kinds) >= {"undecided"}


def test_votes_decide_candidates_and_what_the_next_stage_is_asked(tmp_path: Path):
    def partly(picture: DecodedImage | None, request: Request) -> Response:
        """Answer each list question as the rule does, but for the label that stands first: arms disagree about it."""
        said = answer(picture, request)
        first = request.text.partition("Categories: ")[2].partition(", ")[0]
        kept = [name for name in said.text.split(", ") if name != first]
        return said if said.first_logprobs else replace(said, text=", ".join(kept) or "none")

    def asked(votes: int) -> Callable[[Workspace], None]:
        def change(made: Workspace) -> None:
            made.engine.answer = partly
            made.candidates({"arms": ("cooccurring", "random@3"), "min_votes": votes})

        return change

    loose, strict = labeled(tmp_path / "a", asked(1)), labeled(tmp_path / "b", asked(2))
    assert set(causes(loose.out, strict.out)) == {"thresholds"}
    assert set(causes(strict.out, loose.out)) == {"thresholds"}
    assert set(causes(loose.labels_out, strict.labels_out)) == {"candidates"}
    told = diff_tables(loose.out, strict.out).comparison.settings.told
    assert ("votes, at least", "1", "2") in [(each.what, each.first, each.second) for each in told]


def test_another_model(before: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workspace, "MODEL", ModelOptions(replay=Path("nothing"), model_id="others"))
    after = labeled(tmp_path / "b", _other_answers)
    found = causes(before.labels_out, after.labels_out)
    assert set(found) <= {"model", "candidates"}
    assert found["model"]
    assert set(causes(before.out, after.out)) == {"model"}
    assert diff_tables(before.out, after.out).comparison.settings.told[0].to_json() == {
        "setting": "model",
        "a": "rules",
        "b": "others",
    }


def test_another_size(before: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workspace, "MODEL", replace(MODEL, max_pixels=16))
    after = labeled(tmp_path / "b")
    assert set(causes(before.out, after.out)) == {"pixels"}


def test_a_concept_card(before: Workspace, tmp_path: Path):
    cards = tmp_path / "cards.yaml"
    cards.write_text(json.dumps({"cards": [{"name": "cat", "description": "a small animal that purrs"}]}))

    def change(made: Workspace) -> None:
        made.candidates()
        made.disambiguate({"concepts": str(cards)})

    after = labeled(tmp_path / "b", change)
    assert {(each.label, each.cause.value) for each in flips(before.labels_out, after.labels_out)} == {
        ("cat", "concept card")
    }


def test_a_prompt(before: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = tmp_path / "prompts"
    own.mkdir()
    for name in ("group", "verify"):
        text = (REPO / f"prompts/{name}.yaml").read_text(encoding="utf-8")
        (own / f"{name}.yaml").write_text(text.replace("text: |-\n", "text: |-\n  Look closely.\n"), encoding="utf-8")
    monkeypatch.setattr(workspace, "MODEL", replace(MODEL, prompts=own))
    after = labeled(tmp_path / "b")
    assert set(causes(before.labels_out, after.labels_out)) == {"prompt"}
    assert causes(before.out, after.out) == {}  # the rule looks at names only
    assert "other words in group" in str(diff_tables(before.out, after.out).to_json()["settings"])


@pytest.mark.parametrize("settings", [{"strategy": "binary", "group_size": None}, {"arms": ("cooccurring@7",)}])
def test_a_strategy_and_groups(before: Workspace, tmp_path: Path, settings: dict[str, Any]):
    def change(made: Workspace) -> None:
        made.engine.answer = _odd
        made.candidates(settings)

    after = labeled(tmp_path / "b", change)
    assert set(causes(before.out, after.out)) == {"groups"}


def test_another_answer_to_the_same_question(before: Workspace, tmp_path: Path):
    after = labeled(tmp_path / "b", _other_answers)
    assert set(causes(before.out, after.out)) == {"model's answer"}
    assert set(causes(before.labels_out, after.labels_out)) == {"model's answer", "candidates"}


def _odd(picture: DecodedImage | None, request: Request) -> Response:
    """Answer as the rule does about another image."""
    return answer(None if picture is None else replace(picture, uuid=f"{picture.uuid} again"), request)


def _other_answers(made: Workspace) -> None:
    made.engine.answer = _odd


def test_an_unknown_that_had_too_little_mass_for_both_is_the_models_answer(before: Workspace, tmp_path: Path):
    def shy(picture: DecodedImage | None, request: Request) -> Response:
        said = answer(picture, request)
        return replace(said, first_logprobs={"maybe": math.log(0.9)}) if said.first_logprobs else said

    after = labeled(tmp_path / "b", lambda made: setattr(made.engine, "answer", shy))
    assert set(causes(before.labels_out, after.labels_out)) == {"model's answer"}
