"""Parts of an evaluation: each has the figures of its images and labels alone, and the parts are the whole."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from tagllm_cli.evaluation.entries import Comparison, compare, entries_of
from tagllm_cli.evaluation.metrics.slices import slice_comparison
from tagllm_cli.records import LabelEntry
from tests.evaluation.problem import Problem, row, truth, vocabulary

ARMS = ("a", "b")
SIDES = (0, 400, 800, 1600, 4000)


def compared(problem: Problem) -> Comparison:
    """Images of five sizes; what is listed has a probability, and one of three sets of arms."""

    def armed(image: int, entry: LabelEntry) -> LabelEntry:
        arms = (ARMS[:1], ARMS[1:], ARMS)[(image + problem.names.index(entry.name)) % 3]
        return replace(entry, arms=arms, probability=entry.score)

    rows = [
        replace(row(each.image_id, *(armed(image, entry) for entry in each.labels or ())),
                width=SIDES[image % 5], height=SIDES[image % 5])
        for image, each in enumerate(problem.rows())
    ]  # fmt: skip
    names = vocabulary(*problem.names)
    return compare(entries_of(rows, names, "labels", ARMS), names, problem.truth())


def test_parts_have_the_figures_of_their_images_and_labels() -> None:
    problem = Problem(2)
    found = slice_comparison(compared(problem))
    said, support = problem.said & (problem.scores > 0), problem.true.sum(axis=0)
    ordered = np.argsort(support, kind="stable")
    thirds = np.array_split(ordered[support[ordered] > 0], 3)
    everything = np.arange(len(said))
    images = [everything[everything % 5 == number] for number in (1, 2, 3, 4, 0)]
    parts = [(each, np.ix_(everything, np.sort(labels))) for each, labels in zip(found.frequency, thirds, strict=True)]
    parts += [(each, np.ix_(rows, np.arange(12))) for each, rows in zip(found.size, images, strict=True)]
    for part, kept in parts:
        true, here, scores = problem.true[kept], said[kept], problem.scores[kept]
        expected = precision_recall_fscore_support(true, here, average="micro", zero_division=0)[:3]
        assert (part.op, part.or_, part.of1) == pytest.approx(expected), part.name
        there = true.any(axis=0)
        assert part.map == pytest.approx(average_precision_score(true[:, there], scores[:, there]))
        assert (part.images, part.labels, part.support) == (*true.shape, true.sum())
    assert [each.name.partition(":")[0] for each in found.frequency] == ["rare", "medium", "frequent"]
    assert found.size[-1].name == "size unknown"


def test_entries_are_divided_by_arms_and_probability() -> None:
    problem = Problem(5)
    found = slice_comparison(compared(problem))
    listed, said = problem.scores > 0, problem.said & (problem.scores > 0)
    sets = (np.arange(len(listed))[:, None] + np.arange(12)) % 3
    band = np.minimum(problem.scores * 10 + 1e-4, 9).astype(int)  # scores are tenths
    which = {"a": sets == 0, "b": sets == 1, "a + b": sets == 2}
    which |= {f"{low / 10:.1f} to {(low + 1) / 10:.1f}": band == low for low in range(10)}
    for part in (*found.arms, *found.probability):
        here = listed & which[part.name]
        assert part.listed == here.sum(), part.name
        assert part.present == pytest.approx(problem.true[here].mean())
        assert part.predicted == (said & here).sum()
        right = (said & here & problem.true).sum()
        assert part.precision == (pytest.approx(right / part.predicted) if part.predicted else None)
        assert part.recall == pytest.approx(right / problem.true.sum())
    assert sum(part.listed for part in found.arms) == sum(part.listed for part in found.probability) == listed.sum()


def test_intervals_come_with_rounds_and_everything_is_plain_json() -> None:
    without, with_rounds = (slice_comparison(compared(Problem(2)), rounds) for rounds in (0, 40))
    assert without.frequency[0].of1_interval is None
    interval = with_rounds.frequency[0].of1_interval
    assert interval is not None
    assert interval.low < without.frequency[0].of1 < interval.high
    value = with_rounds.to_json()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert [title for title, _ in without.tables()] == [
        *("by frequency of the label in the truth", "by size of the image"),
        *("by the arms that proposed it", "by probability"),
    ]


def test_what_cannot_be_divided_has_no_parts() -> None:
    names = vocabulary("cat")
    rows = [row("1", LabelEntry("cat", score=1.0))]
    table = entries_of(rows, names, "candidates")
    found = slice_comparison(compare(table, names, truth({"1": ["cat"]}, "cat"), stage="candidates"))
    assert (found.frequency, found.size, found.arms, found.probability, found.tables()) == ((), (), (), (), [])
