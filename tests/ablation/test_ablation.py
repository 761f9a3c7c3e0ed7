"""The ablation without vLLM: end to end on a few scenes, its arithmetic by hand, and what happens when it is killed."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.cli.console import Console
from tagllm_cli.engines.factory import ModelOptions
from tagllm_cli.evaluation.summary import evaluate_table
from tests.ablation.__main__ import ablate, main
from tests.ablation.design import COLUMNS, CONTROLS, DOSES, STRATEGIES
from tests.ablation.eye import DemoEye
from tests.ablation.study import Settings
from tests.support.shared_engine import SharedEngine

pytestmark = pytest.mark.slow

SCENES, DOSE_SCENES = 24, 8
MODEL = ModelOptions(replay=Path("nothing"), model_id="eye")  # the engine is put in by hand: this only names the model
VOLATILE = ("seconds", "is_estimated", "time")


def run(out: Path, eye: DemoEye, **settings: Any) -> dict[str, Any]:
    """Run the ablation and return its results."""
    chosen = replace(Settings(out, SCENES, DOSE_SCENES, workers=1), **settings)
    out.mkdir(parents=True, exist_ok=True)
    shared = SharedEngine(eye, _nothing, _nothing)
    try:
        ablate(chosen, MODEL, shared.handle, Console(quiet=True))
    finally:
        shared.close()
    return dict(json.loads((out / "results.json").read_text()))


async def _nothing() -> None:
    return None


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoEye, dict[str, Any]]:
    """A whole ablation: its folder, its engine and its results."""
    out = tmp_path_factory.mktemp("ablation")
    eye = DemoEye(out)
    return out, eye, run(out, eye)


def cell(results: Mapping[str, Any], strategy: str, disambiguation: str, dial: float = 0.3333) -> dict[str, Any]:
    """Return one cell of the results."""
    (found,) = (
        each
        for each in results["cells"]
        if (each["strategy"], each["disambiguation"], each["other_sense"]) == (strategy, disambiguation, dial)
    )
    return dict(found)


def goal(results: Mapping[str, Any], words: str) -> bool:
    """Return whether the goal that contains `words` was reached."""
    (found,) = (each for each in results["goals"] if words in each["wanted"])
    return bool(found["is_met"])


def test_every_cell_of_the_design_is_there_with_its_cost(finished: tuple[Path, DemoEye, dict[str, Any]]) -> None:
    _, eye, results = finished
    requests = {name: cell(results, name, "none")["cost"]["requests"] for name in (each.name for each in STRATEGIES)}
    arms = dict.fromkeys(("random", "cooccurring", "disjoint"), 5 * SCENES)
    assert requests == {"open": SCENES, "all": SCENES, "binary": 60 * SCENES, **arms, "both": 10 * SCENES}
    for strategy in STRATEGIES:
        for concepts in COLUMNS:
            found = cell(results, strategy.name, concepts.name)
            assert found["cost"]["requests"] == found["own_cost"]["requests"] + (
                requests[strategy.name] if concepts.is_asked else 0
            )
            assert found["cost"]["computed_tokens"] == found["cost"]["prompt_tokens"] - found["cost"]["cached_tokens"]
            assert found["cost"]["seconds"] > 0
    for dial in DOSES:
        for concepts in CONTROLS:
            cell(results, "both", concepts.name, round(dial, 4))
    assert eye.asked == sum(each["own_cost"]["requests"] for each in results["cells"])
    assert (eye.started, eye.closed) == (1, 1)


def test_the_figures_are_the_tools_own(finished: tuple[Path, DemoEye, dict[str, Any]]) -> None:
    out, _, results = finished
    for strategy, disambiguation in (("both", "none"), ("binary", "none"), ("open", "similar")):
        found = cell(results, strategy, disambiguation)
        (table,) = out.glob(f"scenes-{SCENES}-*/{found['table']}")
        expected = evaluate_table(table, table.with_name("truth.json")).evaluation.to_json()
        assert {
            key: found["metrics"]["all"][key] for key in ("op", "or", "of1", "cp", "cr", "cf1", "map", "images")
        } == {key: expected[key] for key in ("op", "or", "of1", "cp", "cr", "cf1", "map", "images")}
        assert found["of1_interval"]["value"] == pytest.approx(expected["of1"], abs=1e-6)
        assert found["of1_interval"]["low"] <= expected["of1"] <= found["of1_interval"]["high"]


def test_an_eye_that_reads_cards_gains_from_them_as_ambiguity_grows(
    finished: tuple[Path, DemoEye, dict[str, Any]],
) -> None:
    _, _, results = finished
    assert goal(results, "description + similar: OF1 above bare")
    assert goal(results, "shuffled cards gain nothing")
    assert goal(results, "placebo cards gain nothing")
    assert goal(results, "cards that repeat the name gain nothing")
    gains = {
        each["other_sense"]: each["gain"]["value"]
        for each in results["dose"]
        if (each["concepts"], each["subset"]) == ("similar", "ambiguous")
    }
    assert gains[0.0] == 0 < gains[1 / 3] < gains[2 / 3]
    apart = {each["subset"]: each["gain"]["value"] for each in results["differences"] if "placebo" in each["name"]}
    assert apart == {"all": 0, "ambiguous": 0, "unambiguous": 0}


def test_the_page_and_the_picture_are_written(finished: tuple[Path, DemoEye, dict[str, Any]]) -> None:
    out, _, _ = finished
    page = (out / "table.md").read_text(encoding="utf-8")
    for title in (
        "OF1 at a glance",
        "The table",
        "Goals",
        "Differences",
        "Dose and response",
        "How the arms agree: both arms",
    ):
        assert f"\n## {title}\n" in page
    for strategy in STRATEGIES:
        rows = [line for line in page.splitlines() if line.startswith(f"| {strategy.title} | ")]
        assert len(rows) >= 1 + len(COLUMNS)
    assert (out / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_the_second_time_nothing_is_asked_and_nothing_changes(
    finished: tuple[Path, DemoEye, dict[str, Any]],
) -> None:
    out, _, results = finished
    idle = DemoEye(out)
    assert run(out, idle) == results
    assert (idle.asked, idle.started) == (0, 0)


def test_a_part_alone_shows_what_is_there_of_the_others(tmp_path: Path) -> None:
    first = run(tmp_path, DemoEye(tmp_path), scenes=3, dose_scenes=3, parts=("dose",))
    assert {each["strategy"] for each in first["cells"]} == {"both"}
    assert not any("binary" in each["wanted"] for each in first["goals"])
    eye = DemoEye(tmp_path)
    second = run(tmp_path, eye, scenes=3, dose_scenes=3, parts=("controls",))
    assert [each["strategy"] for each in second["cells"] if each not in first["cells"]] == ["random-twice"]
    assert eye.asked == 3 * 10


def _killed(out: str, after: int) -> None:
    run(Path(out), DemoEye(Path(out), dies_after=after))


def test_a_killed_ablation_goes_on(tmp_path: Path, finished: tuple[Path, DemoEye, dict[str, Any]]) -> None:
    _, whole, expected = finished
    process = multiprocessing.get_context("spawn").Process(target=_killed, args=(str(tmp_path), 1_000))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    complete = [json.loads(path.read_text()) for path in tmp_path.glob("*/*.cost.json")]
    assert complete
    eye = DemoEye(tmp_path)
    results = run(tmp_path, eye)
    assert eye.asked <= whole.asked - sum(cost["requests"] for cost in complete)
    assert _steady(results) == _steady(expected)


def _steady(value: Any) -> Any:
    """Leave out what the clock says."""
    if isinstance(value, dict):
        return {key: _steady(inner) for key, inner in value.items() if key not in VOLATILE}
    return [_steady(inner) for inner in value] if isinstance(value, list) else value


def test_a_control_that_gains_is_reported_as_a_missed_goal(tmp_path: Path) -> None:
    eye = DemoEye(tmp_path, trusts_any_card=True)
    results = run(tmp_path, eye, parts=("controls",))
    assert not goal(results, "placebo cards gain nothing")
    assert "**missed**" in (tmp_path / "table.md").read_text(encoding="utf-8")


# -- command line -----------------------------------------------------------------------------------------------------


def test_a_model_that_is_not_there_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "out"), "--model", str(tmp_path / "no-model"), "--scenes", "1"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("arguments", [["--scenes", "0"], ["--only", "everything"]])
def test_wrong_options_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "--" in capsys.readouterr().err
