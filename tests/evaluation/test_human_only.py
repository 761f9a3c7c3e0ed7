"""What people decided in a table as the truth, and what the model alone said as what is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.entries import entries_of
from tagllm_cli.evaluation.model_entries import read_model_entries
from tagllm_cli.evaluation.report.subject import read_subject
from tagllm_cli.evaluation.summary import EvaluateOptions, evaluate_table
from tagllm_cli.evaluation.thresholds.imputed import area_under_curve
from tagllm_cli.evaluation.thresholds.metric import Metric
from tagllm_cli.evaluation.thresholds.summary import Calibration, calibrate_table
from tagllm_cli.evaluation.truth import TruthOptions, load_truth
from tagllm_cli.labeling.human import HumanOverlay
from tagllm_cli.pipeline.concepts.validation_set import open_validation_set
from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status
from tagllm_cli.store.table import TableInfo, open_table, write_table
from tests.evaluation.review.tables import entry, row, save, vocabulary
from tests.evaluation.test_entries import ARMS, NAMES, equal, random_rows
from tests.support.command_line import one_object, tagllm

YES, NO, UNKNOWN = Decision.YES, Decision.NO, Decision.UNKNOWN
PEOPLE = TruthOptions(human_only=True)
RECORDED = Path("tests/data/demo/bare.parquet")


def overlaid(path: Path, rows: list[Row], decisions: dict[str, dict[str, Decision]], *, stage: str = "labels") -> Path:
    """Write a table whose rows have decisions of people."""
    info = TableInfo(stage, SourceInfo("folder", str(path.parent)), vocabulary(), {"threshold": 0.5})
    overlay = HumanOverlay(info)
    write_table(path, info, [overlay.row(each, decisions.get(each.image_id, {})) for each in rows])
    return path


@pytest.mark.parametrize("stage", ["labels", "candidates"])
def test_entries_of_the_model_alone_are_those_of_its_rows(tmp_path: Path, stage: str) -> None:
    rows = [
        replace(each, labels=each.labels and tuple(map(massive, each.labels))) for each in random_rows(4, 80, stage)
    ]
    plan = {"arms": {arm: [] for arm in ARMS}, "threshold": 0.4, "label_thresholds": {"label 2": 0.7}, "min_votes": 2}
    info = TableInfo(stage, SourceInfo("folder", "/"), NAMES, plan)
    overlay, path = HumanOverlay(info), tmp_path / "t.parquet"
    random = np.random.default_rng(5)
    people = [
        {name: Decision(random.choice([*Decision])) for name in NAMES.names if random.random() < 0.3} for _ in rows
    ]
    write_table(path, info, [overlay.row(each, said) for each, said in zip(rows, people, strict=True)])
    alone = [overlay.model_row(each) for each in open_table(path).rows()]
    assert equal(read_model_entries(open_table(path)), entries_of(alone, NAMES, stage, ARMS))


def massive(each: LabelEntry) -> LabelEntry:
    """Return an entry with a mass, as some have."""
    return replace(each, mass=0.75 if len(each.arms) == 1 else None)


def test_only_what_people_decided_is_judged(tmp_path: Path) -> None:
    rows = [
        row("a.png", entry("cat", 0.9, "one"), entry("dog", 0.2, "one")),
        row("b.png", entry("cat", 0.3, "one")),
        row("c.png", entry("person", 0.99, "one")),
        row("d.png", status=Status.FAILED),
    ]
    said = {"a.png": {"cat": NO, "person": UNKNOWN}, "b.png": {"cat": YES, "dog": YES}, "d.png": {"cat": YES}}
    path = overlaid(tmp_path / "labels.parquet", rows, said)
    truth = load_truth(path, PEOPLE)
    assert dict(truth.labels) == {"a.png": set(), "b.png": {"cat", "dog"}, "d.png": {"cat"}}
    assert truth.absent == {"a.png": {"cat"}}
    assert truth.unknown == {"a.png": {"person"}}
    found = evaluate_table(path, path, truth_options=PEOPLE).evaluation
    labels = {each.name: (each.support, each.predicted) for each in found.labels if each.support or each.predicted}
    assert labels == {"cat": (1, 1), "dog": (1, 0)}  # a.png: the model's false yes; b.png: two that it missed
    assert (found.images, found.negatives, found.op, found.or_) == (2, 1, 0.0, 0.0)


def test_another_table_is_measured_by_what_people_decided_in_the_first(tmp_path: Path) -> None:
    path = overlaid(tmp_path / "labels.parquet", [row("a.png", entry("cat", 0.9))], {"a.png": {"cat": NO, "dog": YES}})
    other = save(tmp_path / "other.parquet", [row("a.png", entry("cat", 0.1), entry("dog", 0.8))])
    options = EvaluateOptions(compare=[other])
    found = evaluate_table(path, path, truth_options=PEOPLE, options=options).to_json()
    assert [each["of1"] for each in found["compared"]["tables"]] == [0.0, 1.0]


def test_candidates_are_measured_by_decisions_too(tmp_path: Path) -> None:
    rows = [row("a.png", LabelEntry("cat", score=1.0, arms=("one",)), LabelEntry("dog", score=1.0, arms=("one",)))]
    path = overlaid(tmp_path / "c.parquet", rows, {"a.png": {"cat": NO, "person": YES}}, stage="candidates")
    found = evaluate_table(path, path, truth_options=PEOPLE).evaluation
    assert {each.name: (each.support, each.predicted) for each in found.labels if each.support or each.predicted} == {
        "cat": (0, 1),
        "person": (1, 0),
    }


def test_what_nobody_decided_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no person decided anything"):
        load_truth(save(tmp_path / "labels.parquet", [row("a.png", entry("cat", 0.9))]), PEOPLE)
    (tmp_path / "truth.csv").write_text("image,label\na.png,cat\n")
    with pytest.raises(UsageError, match="--human-only is about a table"):
        load_truth(tmp_path / "truth.csv", PEOPLE)


def test_cards_are_validated_on_what_people_decided(tmp_path: Path) -> None:
    rows = [row(f"{n}.png", entry("cat", 0.9, "one"), entry("dog", 0.9, "one")) for n in range(12)]
    said = {f"{n}.png": {"cat": YES if n % 2 else NO} for n in range(8)}
    path = overlaid(tmp_path / "labels.parquet", rows, said)
    found = open_validation_set(vocabulary(), path, None, path, 12, 0, truth_options=PEOPLE)
    examples = {each.image.id: (each.proposed, each.present) for each in found.samples["cat"]}
    assert examples == {f"{n}.png": (True, bool(n % 2)) for n in range(8)}
    assert found.samples["dog"] == ()  # nobody said anything about it


def test_info_counts_them_and_a_report_is_judged_by_them(tmp_path: Path) -> None:
    rows = [row("a.png", entry("cat", 0.9, "one")), row("b.png", entry("cat", 0.9, "one"))]
    path = overlaid(tmp_path / "labels.parquet", rows, {"a.png": {"cat": NO, "dog": UNKNOWN}, "b.png": {"cat": YES}})
    assert "1 no; 1 unknown; 3 decided by people" in tagllm(f"info {path}").stdout
    assert one_object(tagllm(f"info {path} --json").stdout)["tables"][0]["labels"]["human"] == 3
    judged = read_subject(path, path, (), PEOPLE).judged
    assert judged is not None
    assert [(each.image, each.model) for each in judged.suspects.top()] == [("a.png", "yes")]


def answered(path: Path, kept: Callable[[bool, float], bool]) -> Path:
    """Write the recorded table of the demo world with an answer to each pair that `kept` takes."""
    recorded, truth = open_table(RECORDED), load_truth(RECORDED.with_name("bare-truth.csv")).labels
    overlay = HumanOverlay(recorded.info)
    rows = [
        overlay.row(each, {
            one.name: YES if present else NO
            for one in each.labels or ()
            for present in [one.name in truth[each.image_id]]
            if one.probability is not None and kept(present, one.probability)
        })
        for each in recorded.rows()
    ]  # fmt: skip
    write_table(path, recorded.info, rows)
    return path


def calibrated(path: Path, metric: str = "f1") -> Calibration:
    return calibrate_table(path, path, Metric.parse(metric), path.with_name("t.yaml"), truth_options=PEOPLE)


def test_thresholds_are_not_fitted_to_corrections_of_mistakes_alone(tmp_path: Path) -> None:
    wrong = answered(tmp_path / "labels.parquet", lambda present, probability: present != (probability > 0.5))
    with pytest.raises(UsageError, match="they seem to have decided only what is wrong"):
        calibrated(wrong)
    doubtful = answered(tmp_path / "labels.parquet", lambda _, probability: 0.2 < probability < 0.95)
    assert calibrated(doubtful).selection == ""


def test_answers_that_are_all_yes_are_said_and_no_recall_of_candidates_is_claimed(tmp_path: Path) -> None:
    found = calibrated(answered(tmp_path / "labels.parquet", lambda present, _: present), "recall=0.95")
    assert [each for each in found.warnings if "are yes: if others were not recorded, thresholds are too low" in each]
    assert "recall that is lost with the candidates: unknown" in [*found.lines()]
    assert (found.ceiling, found.to_json()["candidate_recall"]) == (None, None)


def test_the_area_under_the_curve_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    scores, present = random.integers(0, 9, 200) / 8, random.random(200) < 0.4
    expected = roc_auc_score(present, scores)
    assert area_under_curve(scores[present], scores[~present]) == pytest.approx(expected)
