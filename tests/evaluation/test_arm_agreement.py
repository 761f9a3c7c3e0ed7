"""How arms err together: against dense arithmetic and scikit-learn, by hand, and what is left out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import jaccard_score, matthews_corrcoef, precision_score, recall_score

from tagllm_cli.evaluation.arm_agreement import ArmComparison, ErrorCorrelation, compare_arms
from tagllm_cli.evaluation.entries import compare, read_entries
from tagllm_cli.evaluation.metrics import evaluate_rows
from tagllm_cli.evaluation.summary import evaluate_table
from tagllm_cli.evaluation.truth import Truth
from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status
from tagllm_cli.store.table import Table, TableInfo, open_table, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary

ARMS = ("cooccurring", "disjoint", "random@1")


def table_of(
    path: Path,
    arms: Sequence[str],
    labels: Sequence[str],
    rows: Sequence[Row],
    stage: str = "candidates",
    votes: int = 1,
) -> Table:
    vocabulary = Vocabulary("test", tuple(map(Label, labels)))
    plan = {"arms": {arm: [] for arm in arms}, "min_votes": votes}
    write_table(path, TableInfo(stage, SourceInfo("folder", "/images"), vocabulary, plan), rows)
    return open_table(path)


def row(image: str, *proposed: tuple[str, Sequence[str]], status: Status = Status.OK) -> Row:
    entries = tuple(LabelEntry(name, score=1.0, arms=tuple(arms)) for name, arms in proposed)
    answered = status in (Status.OK, Status.PARTIAL)
    return Row(image, image, b"", 4, 4, status, None, entries if answered else None, ())


def compared(table: Table, truth: Truth) -> ArmComparison | None:
    vocabulary, arms, stage = table.info.vocabulary, tuple(table.info.plan["arms"]), table.info.stage
    entries = read_entries(table)
    return compare_arms(compare(entries, vocabulary, truth, stage=stage), arms)


class World:
    """Arms that err at random, partly together: `said` is [arms, images, labels], `true` is [images, labels]."""

    def __init__(self, seed: int, images: int = 300, labels: int = 9) -> None:
        random = np.random.default_rng(seed)
        self.labels = [f"label {number}" for number in range(labels)]
        self.true = random.random((images, labels)) < random.random(labels) * 0.5
        common = random.random(self.true.shape) < 0.06
        apart = random.random((len(ARMS), *self.true.shape)) < 0.12
        self.said = (self.true & ~(common | apart)) | (~self.true & (common | apart))
        self.said[:, :, 0] = False  # nobody ever proposes label 0

    def rows(self) -> list[Row]:
        return [
            row(
                f"{image}.jpg",
                *(
                    (name, [arm for arm, votes in zip(ARMS, self.said, strict=True) if votes[image, label]])
                    for label, name in enumerate(self.labels)
                    if self.said[:, image, label].any()
                ),
            )
            for image in range(len(self.true))
        ]

    def truth(self) -> Truth:
        present = {
            f"{image}.jpg": frozenset(name for name, there in zip(self.labels, line, strict=True) if there)
            for image, line in enumerate(self.true)
        }
        return Truth(present, tuple(self.labels), exhaustive=True)


def measured(world: World, path: Path, truth: Truth | None = None) -> ArmComparison:
    found = compared(table_of(path, ARMS, world.labels, world.rows()), truth or world.truth())
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(3))
def test_everything_agrees_with_dense_arithmetic(tmp_path: Path, seed: int) -> None:
    world = World(seed)
    found, true = measured(world, tmp_path / "c.parquet"), world.true
    for arm, said in zip(found.arms, world.said, strict=True):
        assert arm.proposed == said.sum()
        assert arm.precision == pytest.approx(precision_score(true.ravel(), said.ravel()))
        assert arm.recall == pytest.approx(recall_score(true.ravel(), said.ravel()))
    for pairs, where, wrong in ((found.wrong, ~true, True), (found.missed, true, False)):
        expected_pairs = [(0, 1), (0, 2), (1, 2)]
        assert [(pair.first, pair.second) for pair in pairs] == [(ARMS[a], ARMS[b]) for a, b in expected_pairs]
        for pair, (a, b) in zip(pairs, expected_pairs, strict=True):
            one, other = ((world.said[arm] == wrong) & where for arm in (a, b))
            assert (pair.errors_first, pair.errors_second, pair.both) == (one.sum(), other.sum(), (one & other).sum())
            assert pair.expected == pytest.approx(one.sum() * other.sum() / where.sum())
            assert pair.ratio == pytest.approx(pair.both / pair.expected)
            by_label = (one.sum(axis=0) * other.sum(axis=0) / where.sum(axis=0)).sum()
            assert pair.expected_by_label == pytest.approx(by_label)
            assert pair.ratio_by_label == pytest.approx(pair.both / by_label)
            assert pair.jaccard == pytest.approx(jaccard_score(one[where], other[where]))
            assert pair.phi == pytest.approx(matthews_corrcoef(one[where], other[where]))


def test_votes_agree_with_the_evaluation_of_what_is_left(tmp_path: Path) -> None:
    world = World(5)
    found = measured(world, tmp_path / "c.parquet")
    assert [each.min_votes for each in found.votes] == [1, 2, 3]
    for each in found.votes:
        kept = [
            row(every.image_id, *((entry.name, entry.arms) for entry in every.labels or () if len(entry.arms) >= least))
            for least in [each.min_votes]
            for every in world.rows()
        ]
        vocabulary = Vocabulary("test", tuple(map(Label, world.labels)))
        overall = evaluate_rows(kept, vocabulary, world.truth(), stage="candidates")
        assert (each.precision, each.recall) == (pytest.approx(overall.op), pytest.approx(overall.or_))
        assert each.per_image == pytest.approx(overall.mean_predicted)


def by_hand(path: Path) -> Table:
    rows = [
        row("1", ("cat", ["a", "b"]), ("dog", ["a", "b"])),  # the truth: cat
        row("2", ("cat", ["a"]), ("cow", ["b"])),  # nothing
        row("3", ("cow", ["b"])),  # cat, cow
        row("4", ("dog", ["a", "b"]), status=Status.PARTIAL),
        row("5", status=Status.FAILED),
        row("6", status=Status.PENDING),
        row("7", ("dog", ["a", "b"])),  # not in the truth
    ]
    return table_of(path, ["a", "b"], ["cat", "dog", "cow"], rows)


LITTLE = {"1": frozenset({"cat"}), "2": frozenset[str](), "3": frozenset({"cat", "cow"}), "4": frozenset[str]()}


def test_a_case_worked_by_hand(tmp_path: Path) -> None:
    found = compared(by_hand(tmp_path / "c.parquet"), Truth(LITTLE, ("cat", "dog", "cow"), exhaustive=True))
    assert found is not None
    assert found.images == 3  # what failed in part says nothing about an arm
    # Nine cells, three of them true. a: cat and dog of 1, cat of 2; b: cat and dog of 1, cow of 2, cow of 3.
    assert [(arm.proposed, arm.precision, arm.recall) for arm in found.arms] == [(3, 1 / 3, 1 / 3), (4, 0.5, 2 / 3)]
    # Wrong: a says dog of 1 and cat of 2, b says dog of 1 and cow of 2; phi = (6*1 - 4) / sqrt(2*4*2*4).
    # Label by label: dog 1*1/3, cat 1*0/1, cow 0*1/2.
    assert found.wrong == (ErrorCorrelation("a", "b", 2, 2, 1, 4 / 6, 1 / 3, 1.5, 3.0, 1 / 3, 0.25),)
    # Missed: a misses cat and cow of 3, b only the cat; label by label: cat 1*1/2, cow 1*0/1.
    assert found.missed == (ErrorCorrelation("a", "b", 2, 1, 1, 2 / 3, 0.5, 1.5, 2.0, 0.5, 0.5),)
    assert [(each.precision, each.recall, each.per_image) for each in found.votes] == [
        (0.4, pytest.approx(2 / 3), pytest.approx(5 / 3)),
        (0.5, pytest.approx(1 / 3), pytest.approx(2 / 3)),
    ]


def test_what_the_truth_does_not_judge_is_no_error(tmp_path: Path) -> None:
    table = by_hand(tmp_path / "c.parquet")
    unknown = {"1": frozenset({"dog"}), "3": frozenset({"cat"})}
    found = compared(table, Truth(LITTLE, ("cat", "dog"), exhaustive=True, unknown=unknown))
    assert found is not None  # cow is not judged at all
    pair = found.wrong[0]
    assert (pair.errors_first, pair.errors_second, pair.both, pair.ratio, pair.phi) == (1, 0, 0, None, None)
    missed = found.missed[0]
    assert (missed.errors_first, missed.errors_second, missed.expected, missed.jaccard) == (0, 0, 0.0, None)
    # Cells that are judged and false: dog of 1, 2 and 3, cat of 2.
    known = compared(table, Truth(LITTLE, ("cat", "dog"), exhaustive=True, unknown={"3": frozenset({"cat"})}))
    assert known is not None
    assert known.wrong == (ErrorCorrelation("a", "b", 2, 1, 1, 2 / 4, 1 / 3, 2.0, 3.0, 0.5, 2 / math.sqrt(12)),)
    listed = compared(table, Truth(LITTLE, ("cat", "dog"), exhaustive=False))
    assert listed is not None
    assert listed.wrong[0].errors_second == 3  # a truth that lists only what occurs says that there is no cow


def test_where_there_is_nothing_to_compare(tmp_path: Path) -> None:
    truth = Truth(LITTLE, ("cat", "dog", "cow"), exhaustive=True)
    one = table_of(tmp_path / "1.parquet", ["a"], ["cat"], [row("1", ("cat", ["a"]))])
    assert compared(one, truth) is None
    labels = table_of(tmp_path / "2.parquet", ["a", "b"], ["cat"], [row("1", ("cat", ["a"]))], stage="labels")
    assert compared(labels, truth) is None
    table = by_hand(tmp_path / "3.parquet")
    assert compared(table, Truth({"4": frozenset()}, ("cat",), exhaustive=True)) is None  # partial: an arm failed


def test_a_truth_that_lists_what_is_absent_leaves_the_rest_unjudged(tmp_path: Path) -> None:
    absent = {"1": frozenset({"dog"}), "2": frozenset({"cat", "dog"}), "3": frozenset({"dog"})}
    truth = Truth(LITTLE, ("cat", "dog", "cow"), exhaustive=True, absent=absent)
    found = compared(by_hand(tmp_path / "c.parquet"), truth)
    assert found is not None
    # Judged absent: dog of 1, 2 and 3, cat of 2. The cow that b says of 2 is not judged.
    assert found.wrong == (ErrorCorrelation("a", "b", 2, 1, 1, 2 / 4, 1 / 3, 2.0, 3.0, 0.5, 2 / math.sqrt(12)),)
    assert [(arm.proposed, arm.precision) for arm in found.arms] == [(3, 1 / 3), (3, 2 / 3)]


def test_arms_that_say_the_same_err_together_and_arms_that_do_not_err_do_not(tmp_path: Path) -> None:
    world = World(8)
    world.said[1] = world.said[0]
    world.said[2] = world.true
    found = measured(world, tmp_path / "c.parquet")
    same, clean, _ = found.wrong
    assert (same.phi, same.jaccard) == (pytest.approx(1), 1.0)
    assert (clean.both, clean.ratio, clean.phi, clean.jaccard) == (0, None, None, 0.0)


def test_independent_arms_err_together_as_often_as_chance_has_it(tmp_path: Path) -> None:
    world = World(9, images=4000)
    noise = np.random.default_rng(90).random((len(ARMS), *world.true.shape)) < 0.1
    world.said = world.true ^ noise
    for pair in measured(world, tmp_path / "c.parquet").wrong:
        assert pair.ratio == pytest.approx(1, abs=0.2)
        assert pair.phi == pytest.approx(0, abs=0.02)


def test_json_is_plain_and_rounded(tmp_path: Path) -> None:
    value = measured(World(2), tmp_path / "c.parquet").to_json()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert list(value) == ["images", "arms", "wrong", "missed", "votes"]
    assert list(value["wrong"][0])[:5] == ["first", "second", "errors_first", "errors_second", "both"]
    assert value["arms"][0]["precision"] == round(value["arms"][0]["precision"], 6)


def write_truth(path: Path, world: World) -> Path:
    lines = [",".join(["image", *world.labels])]
    lines += [",".join([f"{image}.jpg", *map(str, line)]) for image, line in enumerate(world.true.astype(int).tolist())]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("votes", [1, 2])
def test_evaluate_shows_the_arms(tmp_path: Path, votes: int) -> None:
    world = World(3, images=40)
    table_of(tmp_path / "c.parquet", ARMS, world.labels, world.rows(), votes=votes)
    report = evaluate_table(tmp_path / "c.parquet", write_truth(tmp_path / "truth.csv", world))
    assert report.arms is not None
    assert report.to_json()["arms"] == report.arms.to_json()
    tables = report.details()
    assert [len(rows) for _, (_, rows) in tables] == [3, 6, 3]
    assert all(len(columns) == len(cells) for _, (columns, rows) in tables for cells in rows)
    overall, voted = report.overall()[1][0], tables[2][1][1][0]
    assert voted[:3] == ("1", overall[0], overall[1])
    assert any("--min-votes 2" in line for line in report.warnings) == (votes == 2)


def test_evaluate_says_how_many_images_the_arms_are_compared_on(tmp_path: Path) -> None:
    world = World(3, images=40)
    rows = world.rows()
    for image, status in ((3, Status.PARTIAL), (4, Status.FAILED), (5, Status.PENDING)):
        labels = rows[image].labels if status is Status.PARTIAL else None
        rows[image] = replace(rows[image], status=status, labels=labels)
    table_of(tmp_path / "c.parquet", ARMS, world.labels, rows)
    report = evaluate_table(tmp_path / "c.parquet", write_truth(tmp_path / "truth.csv", world))
    assert report.arms is not None
    assert (report.evaluation.images, report.arms.images) == (38, 37)
    assert any(line.startswith("the arms are compared on 37 of 38 images: ") for line in report.warnings)


def test_evaluate_of_a_label_table_says_nothing_about_arms(tmp_path: Path) -> None:
    world = World(3, images=20)
    rows = [Row(f"{image}.jpg", "", b"", 4, 4, Status.OK, None, (decided,), ()) for image in range(20)
            for decided in [LabelEntry(world.labels[1], Decision.YES, 0.9, 1.0, 0.9, arms=ARMS[:2])]]  # fmt: skip
    table_of(tmp_path / "l.parquet", ARMS, world.labels, rows, stage="labels", votes=2)
    report = evaluate_table(tmp_path / "l.parquet", write_truth(tmp_path / "truth.csv", world))
    assert (report.arms, report.to_json()["arms"], report.warnings) == (None, None, [])
    assert not any("arm" in title for title, _ in report.details())
