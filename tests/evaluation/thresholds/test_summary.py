"""A table calibrated by a truth file: what is written decides the table as was said; what cannot be used is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tagllm_cli.errors import TableError, UsageError
from tagllm_cli.evaluation.summary import evaluate_table
from tagllm_cli.evaluation.thresholds.metric import Metric
from tagllm_cli.evaluation.thresholds.summary import Calibration, calibrate_table
from tagllm_cli.labeling.threshold_file import decided_by, load_thresholds
from tagllm_cli.records import Decision
from tests.support.rule_engine import RuleEngine
from tests.support.workspace import LABELS, Workspace

IMAGES = 90
BEST = {"cat": 0.25, "dog": 0.75, "cow": 0.25, "sheep": 0.75}  # what the truth follows


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("calibrate"), IMAGES)
    workspace.candidates({"strategy": "all", "group_size": None, "arms": None})
    workspace.disambiguate()
    workspace.engine = RuleEngine()
    return workspace


def write_truth(workspace: Workspace, images: int = IMAGES, noise: float = 0.1, best: dict[str, float] = BEST) -> Path:
    """A truth by the probabilities: a label is there where its probability is above its best threshold, nearly."""
    random = np.random.default_rng(0)
    path = workspace.out.with_name("truth.csv")
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["image", "label"])
        for row in list(workspace.rows(workspace.labels_out).values())[:images]:
            present = [
                entry.name
                for entry in row.labels or ()
                if (entry.probability or 0) + random.normal(0, noise) > best.get(entry.name, 0.5)
            ]
            lines.writerows([row.image_id, name] for name in present or [""])
    return path


def calibrated(workspace: Workspace, truth: Path, metric: str = "f1", **options: Any) -> Calibration:
    out = workspace.out.with_name("thresholds.yaml")
    return calibrate_table(workspace.labels_out, truth, Metric.parse(metric), out, folds=3, **options)


@pytest.mark.parametrize("metric", ["f1", "recall=0.9", "precision=0.9"])
def test_the_file_decides_the_table_as_was_said(workspace: Workspace, metric: str) -> None:
    truth = write_truth(workspace)
    found = calibrated(workspace, truth, metric)
    limits, file = decided_by(found.file.path)
    summary = workspace.disambiguate({"thresholds": limits, "threshold_file": file})
    rows = workspace.rows(workspace.labels_out).values()
    decisions = [entry.decision for row in rows for entry in row.labels or ()]
    assert summary.stats.asked == 0
    assert decisions.count(Decision.YES) == found.pairs.after != found.pairs.before
    after = evaluate_table(workspace.labels_out, truth).evaluation
    workspace.disambiguate()
    before = evaluate_table(workspace.labels_out, truth).evaluation
    assert found.held.before["OF1"].value == pytest.approx(before.of1)
    assert not found.refused
    if metric == "f1":
        assert after.of1 > before.of1
        assert (limits.of("dog") > 0.55, limits.of("cat") < 0.45) == (True, True)
    elif metric == "recall=0.9":
        assert after.or_ >= 0.85
        assert any("to review, in the whole table" in line for line in found.lines())
    else:
        assert any("recall that remains, on held-out images" in line for line in found.lines())


def test_a_truth_that_agrees_with_the_table_changes_nothing(workspace: Workspace) -> None:
    truth = write_truth(workspace, noise=0.0, best={})
    found = calibrated(workspace, truth)
    assert found.refused
    assert {label.threshold for label in found.file.labels} == {None}
    assert found.file.threshold == 0.5
    assert found.pairs.after == found.pairs.before
    assert "no threshold is changed: on held-out images the new ones are no better" in found.warnings


def test_calibrating_a_calibrated_table_keeps_what_it_has(workspace: Workspace) -> None:
    found = calibrated(workspace, write_truth(workspace))
    limits, file = decided_by(found.file.path)
    workspace.disambiguate({"thresholds": limits, "threshold_file": file})
    agreeing = workspace.out.with_name("agreeing.csv")
    rows = workspace.rows(workspace.labels_out).values()
    with agreeing.open("w", newline="") as lines:
        csv.writer(lines).writerows(
            [["image", "label"]]
            + [[row.image_id, entry.name] for row in rows for entry in row.labels or () if entry.decision == "yes"]
        )
    again = calibrated(workspace, agreeing)
    workspace.disambiguate()
    assert again.refused
    assert load_thresholds(again.file.path).limits() == limits


def test_what_is_reported_is_plain_json_and_tables_of_equal_width(workspace: Workspace) -> None:
    found = calibrated(workspace, write_truth(workspace))
    value = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert value["images"] == IMAGES
    assert {label["name"] for label in value["labels"]} == set(LABELS)
    assert set(value["held_out"]) == {"before", "after", "difference"}
    for columns, rows in (found.overall(), found.per_label()):
        assert all(len(row) == len(columns) for row in rows)
    assert len(found.per_label()[1]) == len(LABELS)


def test_too_few_images_are_refused(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="judges 8 images of the table, and thresholds need at least 10"):
        calibrated(workspace, write_truth(workspace, 8))


def test_a_truth_without_absent_labels_is_refused_but_for_recall(workspace: Workspace) -> None:
    truth = workspace.out.with_name("positive.csv")
    rows = list(workspace.rows(workspace.labels_out).values())
    truth.write_text("\n".join(["image,cat,dog", *(f"{row.image_id},1," for row in rows)]))
    with pytest.raises(UsageError, match="judges no label absent: f1 cannot be measured"):
        calibrated(workspace, truth)
    assert calibrated(workspace, truth, "recall=0.9").held.support.sum() == IMAGES


def test_a_candidate_table_is_refused_with_advice(workspace: Workspace) -> None:
    with pytest.raises(TableError, match="candidate table") as refusal:
        calibrate_table(workspace.out, write_truth(workspace), Metric("f1"), workspace.out.with_name("t.yaml"))
    assert "tagllm disambiguate" in refusal.value.hint
