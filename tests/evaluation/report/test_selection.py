"""Which images a report shows: errors, doubts and disagreements of every label, and a fair random share."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.report.selection import choose, interests
from tagllm_cli.evaluation.report.subject import Subject, read_subject
from tests.bench.tables import tables
from tests.evaluation.report.tables import FAILED, HOSTILE_FILE, other, small, write


def named(subject: Subject, kind: str) -> set[tuple[str, str]]:
    cells = interests(subject)[kind]
    names = subject.entries
    return {
        (names.ids[row], names.names[label])
        for row, label in zip(cells.rows.tolist(), cells.labels.tolist(), strict=True)
    }


def test_errors_doubts_and_disagreements_are_the_cells_that_they_are(tmp_path: Path) -> None:
    table, truth = small(tmp_path)
    subject = read_subject(table, truth, [other(tmp_path)])
    assert named(subject, "error") == {
        ("wrong.jpg", "dog"),
        ("missed.jpg", "cat"),
        ("missed.jpg", "dog"),
    }
    assert {image for image, _ in named(subject, "doubt")} == {"missed.jpg", "undecided.jpg", HOSTILE_FILE}
    assert named(subject, "disagreement") == {("wrong.jpg", "dog"), ("missed.jpg", "dog")}


def test_without_a_truth_there_are_no_errors(tmp_path: Path) -> None:
    table, _ = small(tmp_path)
    assert set(interests(read_subject(table, None, []))) == {"doubt"}


def test_a_table_of_other_images_cannot_be_compared(tmp_path: Path) -> None:
    table, _ = small(tmp_path)
    foreign = write(tmp_path / "foreign.parquet", tmp_path / "images", {"elsewhere.jpg": [("cat", 0.9)]})
    with pytest.raises(UsageError, match=r"foreign\.parquet has no image of the table"):
        read_subject(table, None, [foreign])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Five thousand images with 80 labels."""
    table, truth = tables(tmp_path_factory.mktemp("large"), images=5000)
    return read_subject(table, truth, [])


def test_each_reason_gets_its_share_and_each_image_one_place(large: Subject) -> None:
    chosen = choose(large, 400, seed=3)
    rows = [row for row, _ in chosen]
    assert rows == sorted(set(rows))
    assert len(rows) == 400
    reasons = Counter(why for _, why in chosen)
    assert set(reasons) == {"error", "suspect", "doubt", "random", "failed"}
    assert reasons["failed"] == 20
    assert reasons["random"] == 95
    assert max(reasons["error"], reasons["doubt"]) - min(reasons["error"], reasons["doubt"]) <= 1


def test_the_errors_of_every_label_are_shown_before_the_second_of_one(large: Subject) -> None:
    cells = interests(large)["error"]
    chosen = {row for row, why in choose(large, 1000, seed=3) if why == "error"}
    shown = set(cells.labels[np.isin(cells.rows, list(chosen))].tolist())
    assert len(shown) >= 0.95 * len(set(cells.labels.tolist()))


def test_the_random_share_is_a_fair_sample(large: Subject) -> None:
    answered = large.answered
    drawn = np.concatenate([[row for row, why in choose(large, 400, seed) if why == "random"] for seed in range(40)])
    place = np.searchsorted(answered, drawn) / len(answered)
    counts = np.histogram(place, 10, (0, 1))[0]
    expected = len(drawn) / 10
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi square, 9 degrees of freedom: 1 in 1,000


def test_the_same_seed_chooses_the_same(large: Subject) -> None:
    assert choose(large, 300, 5) == choose(large, 300, 5)
    assert choose(large, 300, 5) != choose(large, 300, 6)


def test_all_images_are_shown_where_there_is_room(tmp_path: Path) -> None:
    table, truth = small(tmp_path)
    subject = read_subject(table, truth, [])
    chosen = choose(subject, 100)
    assert [subject.entries.ids[row] for row, _ in chosen] == list(subject.entries.ids)
    assert (subject.entries.ids[chosen[-1][0]], chosen[-1][1]) == (FAILED.image_id, "failed")
    assert "random" not in {why for _, why in chosen}
    assert choose(subject, 0) == []
