"""`evaluate_table`: what is said of the truth, what a gate fails on, and that the table is read once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation import entries
from tagllm_cli.evaluation.summary import EvaluateOptions, EvaluationSummary, evaluate_table
from tagllm_cli.evaluation.truth import TruthOptions
from tagllm_cli.evaluation.truth.matching import match_images, match_names
from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status
from tagllm_cli.store.table import Table, TableInfo, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.bench.tables import tables

NAMES = ("cat", "dog", "person")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six images, cat and dog in each."""
    said = tuple(LabelEntry(name, Decision.YES, 0.9, 1.0, 0.9) for name in ("cat", "dog"))
    rows = [Row(f"a/{n}.jpg", f"a/{n}.jpg", b"", 4, 4, Status.OK, None, said, ()) for n in range(6)]
    write_table(
        tmp_path / "t.parquet",
        TableInfo("labels", SourceInfo("folder", "/"), Vocabulary("v", tuple(map(Label, NAMES)))),
        rows,
    )
    return tmp_path / "t.parquet"


def evaluated(table: Path, truth: str, *gates: str, **options: Any) -> EvaluationSummary:
    path = table.with_name("truth.csv")
    path.write_text(truth)
    return evaluate_table(table, path, gates=gates, **options)


def lines(*images: str) -> str:
    return "".join(["image,labels\n", *(f"{image},cat|dog\n" for image in images)])


ALL = lines(*(f"{n}.jpg" for n in range(6)))
SCRAPS = lines("a/0.jpg", *(f"IMG-{n}.jpeg" for n in range(1, 6)))


def test_what_was_read_is_said_before_the_figures(table: Path) -> None:
    found = evaluated(table, ALL)
    first, matched = found.notes
    assert first.endswith(
        "truth.csv: CSV, a line per image (image, labels); 6 images, 2 labels; found in the table: 6 of 6 images"
    )
    assert matched == "matched, for example: a/0.jpg = 0.jpg, a/1.jpg = 1.jpg, a/2.jpg = 2.jpg"
    value = found.to_json()
    assert json.loads(json.dumps(value)) == value
    assert value["truth"]["matched"][0] == {"table": "a/0.jpg", "truth": "0.jpg"}
    assert (value["truth"]["images"], value["truth"]["labels"], value["truth"]["overlap"]) == (6, 2, 1.0)


def test_a_gate_fails_on_a_truth_of_which_few_images_are_in_the_table(table: Path) -> None:
    found = evaluated(table, SCRAPS, "of1=0.9")
    assert found.evaluation.of1 == 1.0
    assert found.missed == ["only 1 of 6 images of the truth are in the table, less than --min-overlap 0.9"]
    assert found.notes[2:] == [
        "only in the truth, for example: IMG-1.jpeg, IMG-2.jpeg, IMG-3.jpeg",
        "only in the table, for example: a/1.jpg, a/2.jpg, a/3.jpg",
    ]
    assert evaluated(table, SCRAPS).missed == []
    assert evaluated(table, SCRAPS, "of1=0.9", min_overlap=0.1).missed == []


@pytest.mark.parametrize("least", [-0.1, 1.5, float("nan")])
def test_an_overlap_that_is_no_share_is_a_usage_error(table: Path, least: float) -> None:
    with pytest.raises(UsageError, match="--min-overlap"):
        evaluated(table, ALL, min_overlap=least)


def test_a_truth_without_any_absence_measures_recall_only(table: Path) -> None:
    gaps = "image,cat,dog,person\n" + "".join(f"{n}.jpg,1,,\n" for n in range(6))
    found = evaluated(table, gaps, "or=0.9", "op=0.9")
    assert found.missed == ["op cannot be measured: the truth judges no label absent"]
    assert any("judges no label absent" in line for line in found.warnings)
    assert "pairs of image and label that are not judged and count in no figure: 12 of 18" in found.notes


def test_an_absent_label_is_never_taken_for_a_present_one(table: Path) -> None:
    truth = "image,label,present\n" + "".join(f"{n}.jpg,cat,1\n{n}.jpg,dog,0\n" for n in range(6))
    found = evaluated(table, truth).evaluation
    assert (found.op, found.or_, found.negatives, found.unjudged) == (0.5, 1.0, 6, 0)
    assert found.labels_not_in_truth == ("person",)


def test_options_reach_the_reader(table: Path) -> None:
    path = table.with_name("truth.csv")
    path.write_text("first,second\n0.jpg,cat / dog\n")
    options = TruthOptions(image_column="first", label_column="second", separator="/")
    assert evaluate_table(table, path, truth_options=options).evaluation.or_ == 1.0


def test_a_table_is_read_once_and_matched_once(table: Path) -> None:
    with (
        patch.object(Table, "batches", autospec=True, side_effect=Table.batches) as read,
        patch.object(entries, "match_images", side_effect=match_images) as images,
        patch.object(entries, "match_names", side_effect=match_names) as names,
    ):
        evaluated(table, ALL)
    assert [each.call_count for each in (read, images, names)] == [1, 1, 1]


def test_labels_of_the_truth_that_the_vocabulary_lacks_are_counted(table: Path) -> None:
    found = evaluated(table, ALL.replace("cat|dog", "cat|zebra|okapi"))
    assert "labels of the truth that the vocabulary lacks: zebra, okapi (12 of 18 human labels)" in found.warnings


def test_images_that_only_their_file_names_match_are_pointed_out(table: Path) -> None:
    found = evaluated(table, lines(*(f"elsewhere/{n:03}.png" for n in range(6))))
    assert found.evaluation.images == 6
    assert any("matched by file name alone" in warning for warning in found.warnings)
    assert not any("file name alone" in warning for warning in evaluated(table, ALL).warnings)


def test_too_few_images_for_anything_are_pointed_out(table: Path) -> None:
    assert "only 6 images were compared: no figure says much" in evaluated(table, ALL).warnings


def test_a_truth_without_any_absence_is_pointed_out_and_misses_gates_on_precision(table: Path) -> None:
    lines = "".join(f"{n}.jpg,1,\n" for n in range(6))
    found = evaluated(table, "image,cat,dog\n" + lines, "op=0", "or=0")
    assert any("judges no label absent" in warning for warning in found.warnings)
    assert [gate.metric for gate in found.missed_gates] == ["op"]


def test_a_truth_without_a_label_in_the_images_compared_is_pointed_out(table: Path) -> None:
    found = evaluated(table, "image,cat,dog\n" + "".join(f"{n}.jpg,0,0\n" for n in range(6)) + "z.jpg,1,1\n")
    assert "no image that was compared has a label in the truth: recall and F1 mean nothing" in found.warnings
    assert (found.evaluation.of1, found.evaluation.images_not_in_table) == (0.0, 1)


def test_sections_and_intervals_come_when_they_are_asked_for(table: Path) -> None:
    other = table.with_name("other.parquet")
    shutil.copy(table, other)
    plain = evaluated(table, ALL)
    assert (list(plain.sections), plain.intervals) == (["stages"], None)
    options = EvaluateOptions(rounds=30, compare=[other], details=True)
    found = evaluated(table, ALL, "of1.low=0.5", options=options)
    assert list(found.sections) == ["compared", "stages", "slices", "confusions", "reliability"]
    assert found.missed == []
    assert found.intervals is not None
    assert found.overall()[1][2] == ("OF1", "1.0000 [1.0000, 1.0000]")
    value = found.to_json()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["intervals"]["of1"] == [1.0, 1.0]
    assert value["compared"]["tables"][1]["differences"]["of1"]["beyond_noise"] is False
    assert value["stages"]["candidate_recall"] == 1.0


def test_a_gate_on_a_lower_end_makes_the_intervals_that_it_needs(table: Path) -> None:
    truth = lines(*(f"{n}.jpg" for n in range(6))).replace("0.jpg,cat|dog", "0.jpg,cat")
    found = evaluated(table, truth, "of1=0.95", "of1.low=0.95")
    assert found.evaluation.of1 == pytest.approx(22 / 23)
    assert found.intervals is not None
    assert [gate.metric for gate in found.missed_gates] == ["of1.low"]


def test_a_table_of_the_bench_has_the_quality_that_it_is_made_with(tmp_path: Path) -> None:
    made, truth = tables(tmp_path, images=3000, labels=20, seed=4)
    assert tables(tmp_path, images=3000, labels=20, seed=4) == (made, truth)  # not made again
    found = evaluate_table(made, truth, options=EvaluateOptions(details=True))
    figures = found.evaluation
    assert figures.images + figures.failed == 3000
    assert 2 < figures.mean_true < 4
    assert 0.7 < figures.of1 < 0.98
    assert found.arms is None
    assert {"slices", "stages", "confusions"} <= set(found.sections)
