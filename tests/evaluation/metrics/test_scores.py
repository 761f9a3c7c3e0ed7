"""Evaluation against scikit-learn on random data, and what is compared with what."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, hamming_loss, precision_recall_fscore_support

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.gates import GATES
from tagllm_cli.evaluation.metrics import evaluate_rows
from tagllm_cli.evaluation.truth import Truth
from tagllm_cli.records import Decision, LabelEntry, Row, Status
from tests.evaluation.problem import Problem, evaluated, row, truth, vocabulary

YES, NO, UNKNOWN = Decision.YES, Decision.NO, Decision.UNKNOWN


@pytest.mark.parametrize(("seed", "labels"), [(0, 12), (1, 12), (2, 5), (3, 40)])
def test_everything_agrees_with_scikit_learn(seed: int, labels: int) -> None:
    problem = Problem(seed, labels=labels)
    found = evaluate_rows(problem.rows(), vocabulary(*problem.names), problem.truth())
    true, said = problem.true, problem.said & (problem.scores > 0)
    precision, recall, f1, support = precision_recall_fscore_support(true, said, average=None, zero_division=0)
    supported = support > 0
    assert [label.precision for label in found.labels] == pytest.approx(precision)
    assert [label.recall for label in found.labels] == pytest.approx(recall)
    assert [label.f1 for label in found.labels] == pytest.approx(f1)
    assert [label.support for label in found.labels] == support.tolist()
    assert [label.predicted for label in found.labels] == said.sum(axis=0).tolist()
    aps = [average_precision_score(true[:, label], problem.scores[:, label]) for label in np.flatnonzero(supported)]
    assert [label.ap for label in found.labels if label.support] == pytest.approx(aps, abs=1e-9)
    assert {label.ap for label in found.labels if not label.support} == {None}
    overall = precision_recall_fscore_support(true, said, average="micro", zero_division=0)[:3]
    assert (found.op, found.or_, found.of1) == pytest.approx(overall)
    cp, cr = precision[supported].mean(), recall[supported].mean()
    assert (found.cp, found.cr, found.cf1) == pytest.approx((cp, cr, 2 * cp * cr / (cp + cr)))
    assert found.map == pytest.approx(np.mean(aps), abs=1e-9)
    assert found.mean_predicted == pytest.approx(said.sum() / len(said))
    assert found.mean_true == pytest.approx(true.sum() / len(true))
    assert found.mean_difference == pytest.approx((said.sum() - true.sum()) / len(true))
    assert found.exact_match == pytest.approx(accuracy_score(true, said))
    assert found.hamming == pytest.approx(hamming_loss(true, said))


def test_human_labels_are_judged_only_when_asked() -> None:
    problem = Problem(5)
    human = (np.random.default_rng(5).random(problem.true.shape) < 0.3) & (problem.scores > 0)

    def sourced(image: int, entry: LabelEntry) -> LabelEntry:
        return replace(entry, source="human" if human[image, problem.names.index(entry.name)] else "model")

    rows = [
        row(each.image_id, *(sourced(image, entry) for entry in each.labels or ()))
        for image, each in enumerate(problem.rows())
    ]
    found = evaluate_rows(rows, vocabulary(*problem.names), problem.truth())
    said = problem.said & (problem.scores > 0)
    for label, scores in enumerate(found.labels):
        judged = ~human[:, label]
        true, predicted, ranked = (values[judged, label] for values in (problem.true, said, problem.scores))
        assert scores.support == true.sum()
        assert scores.predicted == predicted.sum()
        assert scores.precision * scores.predicted == pytest.approx((true & predicted).sum())
        if scores.support:
            assert scores.ap == pytest.approx(average_precision_score(true, ranked), abs=1e-9)
    assert found.human == human.sum()
    everything = evaluate_rows(rows, vocabulary(*problem.names), problem.truth(), include_human=True)
    by_model = evaluate_rows(problem.rows(), vocabulary(*problem.names), problem.truth())
    assert (everything.human, everything.of1, everything.hamming) == (0, by_model.of1, by_model.hamming)
    ranked = np.where(human & (problem.scores > 0), said, problem.scores)  # people's yes first, their no last
    for label, scores in enumerate(everything.labels):
        if scores.support:
            expected = average_precision_score(problem.true[:, label], ranked[:, label])
            assert scores.ap == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_that_are_not_judged_count_in_nothing(seed: int) -> None:
    problem = Problem(seed)
    judged = np.random.default_rng(seed).random(problem.true.shape) < 0.5
    whole = problem.truth()
    absent = {
        f"{image}.jpg": frozenset(
            name for label, name in enumerate(problem.names) if judged[image, label] and not problem.true[image, label]
        )
        for image in range(len(judged))
    }
    unknown = {
        f"{image}.jpg": frozenset(name for label, name in enumerate(problem.names) if not judged[image, label])
        for image in range(len(judged))
    }
    # The same said in two ways: what is not judged is listed, or all that is judged is.
    listed = replace(whole, unknown=unknown)
    present = {image: names - unknown[image] for image, names in whole.labels.items()}
    federated = replace(whole, labels=present, absent=absent)
    found = evaluate_rows(problem.rows(), vocabulary(*problem.names), listed)
    assert found == evaluate_rows(problem.rows(), vocabulary(*problem.names), federated)
    said = problem.said & (problem.scores > 0)
    overall = precision_recall_fscore_support(problem.true[judged], said[judged], average="binary", zero_division=0)
    assert (found.op, found.or_, found.of1) == pytest.approx(overall[:3])
    for label, scores in enumerate(found.labels):
        here = judged[:, label]
        true, predicted, ranked = (values[here, label] for values in (problem.true, said, problem.scores))
        expected = precision_recall_fscore_support(true, predicted, average="binary", zero_division=0)
        assert (scores.precision, scores.recall, scores.f1) == pytest.approx(expected[:3])
        assert (scores.support, scores.predicted) == (true.sum(), predicted.sum())
        if scores.support:
            assert scores.ap == pytest.approx(average_precision_score(true, ranked), abs=1e-9)
    wrong = (problem.true != said) & judged
    assert found.hamming == pytest.approx(wrong.sum() / judged.sum())
    assert found.exact_match == pytest.approx((~wrong.any(axis=1))[judged.any(axis=1)].mean())
    assert found.unjudged == (~judged).sum()
    assert found.negatives == (judged & ~problem.true).sum()


def test_unknown_counts_as_no_and_is_reported() -> None:
    rows = [row("1", LabelEntry("cat", UNKNOWN, score=1.0), LabelEntry("dog", YES, score=0.9), status=Status.PARTIAL)]
    found = evaluate_rows(rows, vocabulary("cat", "dog"), truth({"1": ["cat", "dog"]}, "cat", "dog"))
    assert (found.op, found.or_, found.unknown, found.partial) == (1.0, 0.5, 1, 1)


def test_what_the_truth_does_not_know_is_not_judged() -> None:
    rows = [row("1", LabelEntry("cat", YES, score=1.0)), row("2", LabelEntry("cat", YES, score=1.0))]
    human = truth({"1": [], "2": ["cat"]}, "cat", unknown={"1": frozenset({"cat"})})
    found = evaluate_rows(rows, vocabulary("cat"), human)
    assert (found.op, found.labels[0].predicted) == (1.0, 1)


def test_candidate_tables_are_measured_by_what_was_proposed() -> None:
    rows = [
        row("1", LabelEntry("cat", score=1.0), LabelEntry("dog", score=0.5)),
        row("2", LabelEntry("cat", score=0.5), LabelEntry("dog", UNKNOWN)),
    ]
    human = truth({"1": ["cat"], "2": ["dog"]}, "cat", "dog")
    found = evaluate_rows(rows, vocabulary("cat", "dog"), human, stage="candidates")
    assert (found.stage, found.or_) == ("candidates", 0.5)
    assert found.op == pytest.approx(1 / 3)
    assert (found.mean_predicted, found.mean_true, found.unknown) == (1.5, 1.0, 1)


def test_failed_and_pending_images_are_left_out_and_counted() -> None:
    rows = [
        row("1", LabelEntry("cat", YES, score=1.0)),
        row("2", status=Status.FAILED),
        row("3", status=Status.PENDING),
        row("4", LabelEntry("cat", YES, score=1.0)),
        row("5", status=Status.PENDING),
    ]
    human = truth({key: ["cat"] for key in "12369"}, "cat")
    found = evaluate_rows(rows, vocabulary("cat"), human)
    assert (found.images, found.failed, found.pending, found.of1) == (1, 1, 2, 1.0)
    assert (found.images_not_in_truth, found.images_not_in_table) == (2, 2)


def test_labels_outside_a_truth_that_lists_its_labels_are_named_and_not_judged() -> None:
    rows = [row("1", LabelEntry("cat", YES, score=1.0), LabelEntry("dog", YES, score=1.0))]
    listed = evaluate_rows(rows, vocabulary("cat", "dog"), truth({"1": ["Cat", "zebra"]}, "Cat", "zebra"))
    assert (listed.op, listed.or_) == (1.0, 1.0)
    assert (listed.labels_not_in_truth, listed.labels_not_in_vocabulary) == (("dog",), ("zebra",))
    assert [label.name for label in listed.labels] == ["cat"]
    unlisted = evaluate_rows(rows, vocabulary("cat", "dog"), truth({"1": ["cat"]}, "cat", exhaustive=False))
    assert (unlisted.op, unlisted.cp, unlisted.labels_not_in_truth) == (0.5, 1.0, ("dog",))


def test_two_names_of_the_truth_may_be_one_label() -> None:
    rows = [row("1", LabelEntry("tv", YES, score=1.0))]
    found = evaluate_rows(rows, vocabulary("tv"), truth({"1": ["TV", "Tv"]}, "TV", "Tv"))
    assert (found.labels[0].support, found.of1) == (1, 1.0)


def test_nothing_true_and_nothing_said_is_zero_without_a_warning() -> None:
    found = evaluate_rows([row("1")], vocabulary("cat"), truth({"1": []}, "cat"))
    assert [getattr(found, "or_" if name == "or" else name) for name in GATES] == [*[0.0] * 7, 1.0]


@pytest.mark.parametrize(
    ("rows", "human", "said"),
    [
        ([row("1")], truth({"2": []}, "cat"), "share no image: the table has '1', the truth has '2'"),
        ([row("1")], truth({"1": []}, "zebra"), "share no label: the table has 'cat', the truth has 'zebra'"),
        ([row("1")], truth({"1": []}, exhaustive=False), "share no label: the table has 'cat', the truth has none"),
        ([], truth({"1": []}, "cat"), "share no image: the table has none"),
        ([row("1", status=Status.FAILED)], truth({"1": []}, "cat"), "failed or is pending"),
    ],
)
def test_nothing_in_common_is_a_usage_error(rows: list[Row], human: Truth, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        evaluate_rows(rows, vocabulary("cat"), human)


def test_json_has_stable_keys_and_plain_values() -> None:
    found = evaluated()
    value = found.to_json()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    keys = "stage op or of1 cp cr cf1 map exact_match hamming mean_predicted mean_true mean_difference images partial"
    more = "failed pending images_not_in_truth images_not_in_table unknown human unjudged negatives"
    last = "labels_not_in_truth labels_not_in_vocabulary labels"
    assert list(value) == f"{keys} {more} {last}".split()
    assert list(value["labels"][0]) == ["name", "precision", "recall", "f1", "ap", "support", "predicted"]
    assert value["or"] == round(found.or_, 6)
