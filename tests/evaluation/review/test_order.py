"""Which pairs are asked about first."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.report.subject import read_subject
from tagllm_cli.evaluation.review.create import ReviewOptions, choose
from tagllm_cli.evaluation.review.order import gains, ordered
from tagllm_cli.records import LabelEntry, Row, Status
from tests.evaluation.review.tables import decided, entry, painted, row, save


def asked(path: Path, *rows: Row, truth: Path | None = None, **options: object) -> list[tuple[str, str]]:
    """Return what a review of these rows asks, in its order."""
    save(path / "labels.parquet", list(rows))
    chosen = ReviewOptions(truth=truth, **options)  # type: ignore[arg-type]
    return list(choose(read_subject(path / "labels.parquet", truth, ()), chosen).pairs)


def test_the_nearer_to_the_threshold_the_earlier_and_undecided_ones_first(tmp_path: Path) -> None:
    rows = [row(f"{n}.png", entry("cat", value)) for n, value in enumerate((0.99, 0.6, 0.52, None, 0.05, 0.3))]
    assert [image[0] for image, _ in asked(tmp_path, *rows)] == ["3", "2", "1", "5", "4", "0"]


def test_doubt_is_about_the_labels_own_threshold(tmp_path: Path) -> None:
    rows = [row("a.png", entry("cat", 0.8)), row("b.png", entry("cat", 0.5))]
    save(tmp_path / "own.parquet", rows, threshold=0.5, label_thresholds={"cat": 0.82})
    chosen = choose(read_subject(tmp_path / "own.parquet", None, ()))
    assert [image for image, _ in chosen.pairs] == ["a.png", "b.png"]


def test_rare_labels_come_before_frequent_ones_of_the_same_doubt(tmp_path: Path) -> None:
    sure = [row(f"{n}.png", entry("dog", 0.999)) for n in range(30)]
    found = asked(tmp_path, *sure, row("x.png", entry("dog", 0.6)), row("y.png", entry("cat", 0.6)))
    assert found[:2] == [("y.png", "cat"), ("x.png", "dog")]


def test_arms_that_disagree_make_a_label_doubtful(tmp_path: Path) -> None:
    both, one = ("one", "two"), ("one",)
    found = asked(tmp_path, row("a.png", entry("cat", 0.8, *both)), row("b.png", entry("cat", 0.8, *one)))
    assert [image for image, _ in found] == ["b.png", "a.png"]


def test_a_second_table_that_disagrees_brings_its_own_pairs(tmp_path: Path) -> None:
    other = [row("a.png", entry("cat", 0.999)), row("b.png", entry("dog", 0.99)), row("c.png", entry("cat", 0.999))]
    save(tmp_path / "other.parquet", other)
    rows = (row("a.png", entry("cat", 0.999)), row("b.png"), row("c.png", entry("cat", 0.001)))
    found = asked(tmp_path, *rows, second=tmp_path / "other.parquet")
    assert found == [("b.png", "dog"), ("c.png", "cat"), ("a.png", "cat")]
    assert len(asked(tmp_path, *rows)) == 2  # `b.png` has nothing that one table alone would ask


def test_a_truth_is_asked_about_where_it_differs_the_most_doubtful_first(tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("image,label\n" + "".join(f"{n}.png,cat\n" for n in range(20)) + "a.png,dog\n")
    agreeing = [row(f"{n}.png", entry("cat", 0.99)) for n in range(20)]
    rows = [*agreeing, row("a.png", entry("cat", 0.999)), row("b.png")]
    found = asked(tmp_path, *rows, truth=truth)
    assert set(found) == {("a.png", "cat"), ("a.png", "dog")}


def test_images_without_an_answer_are_not_asked_about(tmp_path: Path) -> None:
    found = asked(tmp_path, row("a.png", status=Status.FAILED), row("b.png", entry("cat", 0.5)))
    assert found == [("b.png", "cat")]


def test_what_people_decided_is_asked_again_only_on_request(tmp_path: Path) -> None:
    rows = [row("a.png", entry("cat", 0.5), entry("dog", 0.4))]
    assert asked(tmp_path, *decided(rows, "cat")) == [("a.png", "dog")]
    assert set(asked(tmp_path, *decided(rows, "cat"), again=True)) == {("a.png", "cat"), ("a.png", "dog")}


def test_only_the_labels_that_are_named_are_asked_about(tmp_path: Path) -> None:
    rows = [row("a.png", entry("cat", 0.5), entry("dog", 0.4))]
    assert asked(tmp_path, *rows, labels=("dog",)) == [("a.png", "dog")]
    with pytest.raises(UsageError, match="no labels of the table: cow"):
        asked(tmp_path, *rows, labels=("cow", "dog"))


def test_the_first_50_are_neither_of_one_label_nor_of_one_image() -> None:
    random = np.random.default_rng(0)
    cells = np.sort(random.choice(200 * 80, 5000, replace=False))
    cells = np.unique(np.concatenate([cells, 7 * 80 + np.arange(80), np.arange(0, 200) * 80 + 3]))
    rows, labels = cells // 80, cells % 80
    wrong = np.where((rows == 7) | (labels == 3), 0.5, 0.1)
    order = ordered(gains(wrong, labels, np.full(80, 100)), rows, labels, 5000)
    for of in (rows, labels):
        (_, most), *_ = Counter(of[order[:50]].tolist()).most_common(1)
        assert most <= 25
    assert len(order) == 5000


def test_pairs_of_one_image_stand_together() -> None:
    rows, labels = np.repeat(np.arange(50), 3), np.tile(np.arange(3), 50)
    order = ordered(np.random.default_rng(1).random(150), rows, labels, 60)
    changes = int((np.diff(rows[order]) != 0).sum()) + 1
    assert (len(order), changes) == (60, len(set(rows[order].tolist())))


def test_the_same_table_gives_the_same_page_and_another_choice_another_one(tmp_path: Path) -> None:
    path, rows = painted(tmp_path)
    first, again = (choose(read_subject(path, None, ())) for _ in range(2))
    assert (first.page, first.ids) == (again.page, again.ids)
    assert choose(read_subject(path, None, ()), ReviewOptions(limit=5)).page != first.page
    save(tmp_path / "moved.parquet", rows)
    assert choose(read_subject(tmp_path / "moved.parquet", None, ())).page == first.page


def test_a_candidate_table_is_asked_about_too(tmp_path: Path) -> None:
    named = [LabelEntry("cat", score=score, arms=arms) for score, arms in ((1.0, ("one", "two")), (0.5, ("one",)))]
    rows = [row(image, each) for image, each in zip(("a.png", "b.png"), named, strict=True)]
    save(tmp_path / "candidates.parquet", rows, stage="candidates", arms={"one": [], "two": []})
    chosen = choose(read_subject(tmp_path / "candidates.parquet", None, ()))
    assert [image for image, _ in chosen.pairs] == ["b.png", "a.png"]
