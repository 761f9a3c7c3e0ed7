"""150 answers to what a review asks first improve the labels of images that nobody looked at, by thresholds alone.

The table is recorded: 600 scenes of the demo world (seeds 6000 to 6599) whose candidates the demo model was asked about
by their bare names, eight of them ambiguous. Cards by such answers do more:
tests/pipeline/concepts/test_review_live.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tagllm_cli.evaluation.metrics.scores import Evaluation, evaluate_rows
from tagllm_cli.evaluation.truth import load_truth
from tagllm_cli.labeling.answers.parse_yes_no import as_stored, is_yes
from tagllm_cli.labeling.threshold_file import thresholds_for
from tagllm_cli.labeling.thresholds import Thresholds
from tagllm_cli.records import Decision, LabelEntry, Row
from tagllm_cli.store.table import open_table, write_table
from tests.support.command_line import one_object, tagllm
from tests.support.reviewer import review

TABLE, TRUTH = Path("tests/data/demo/bare.parquet"), Path("tests/data/demo/bare-truth.csv")
ANSWERS = 150


def decided_by(entry: LabelEntry, limits: Thresholds) -> LabelEntry:
    if entry.probability is None:
        return entry
    said = is_yes(entry.probability, as_stored(limits.of(entry.name)))
    return replace(entry, decision=Decision.YES if said else Decision.NO)


def measured(rows: Sequence[Row]) -> Evaluation:
    return evaluate_rows(rows, open_table(TABLE).info.vocabulary, load_truth(TRUTH))


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every other image, with the answers to the first 150 pairs."""
    path = tmp_path_factory.mktemp("loop") / "labels.parquet"
    write_table(path, open_table(TABLE).info, list(open_table(TABLE).rows())[::2])
    assert review(path, TRUTH, ANSWERS) == ANSWERS
    return path


def test_thresholds_from_150_answers_improve_images_that_nobody_looked_at(reviewed: Path, tmp_path: Path) -> None:
    out = tmp_path / "thresholds.yaml"
    command = f"calibrate {reviewed} --truth {reviewed} --human-only --out {out} --json"
    found = tagllm(command)
    assert found.exit_code == 0, found.output
    said = one_object(found.stdout)
    assert (said["refused"], said["truth"]["dialect"]) == (False, "decisions of people")
    assert said["imputed"] > 500
    limits, _ = thresholds_for(open_table(reviewed), out)
    unseen = list(open_table(TABLE).rows())[1::2]
    before = measured(unseen)
    after = measured(
        [replace(row, labels=tuple(decided_by(each, limits) for each in row.labels or ())) for row in unseen]
    )
    assert after.of1 > before.of1
    assert after.cf1 > before.cf1


def test_the_model_is_measured_against_its_own_corrections(reviewed: Path) -> None:
    found = tagllm(f"evaluate {reviewed} --truth {reviewed} --human-only --json")
    assert found.exit_code == 0, found.output
    value = one_object(found.stdout)
    pairs = sum(label["support"] for label in value["labels"]) + value["negatives"]
    assert pairs == ANSWERS
    assert value["human"] == 0
    assert 0.3 < value["of1"] < 0.9  # doubtful pairs: the whole table has 0.91
    assert "people chose which" in found.stderr
    ignored = one_object(tagllm(f"evaluate {reviewed} --truth {TRUTH} --json").stdout)
    assert ignored["human"] == ANSWERS
