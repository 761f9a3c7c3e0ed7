"""Who is wrong: planted errors are found first, verdicts fall as documented, no pair speaks for itself."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.entries import Comparison, Entries, compare, entries_of, read_entries
from tagllm_cli.evaluation.noise import _agreement, find_suspects
from tagllm_cli.evaluation.suspects import Suspect, Suspects
from tagllm_cli.evaluation.truth import TableContext, Truth, load_truth
from tagllm_cli.records import Decision, LabelEntry, Row
from tagllm_cli.store.table import open_table
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.evaluation.problem import row, truth, vocabulary

RECORDED = Path("tests/data/demo/labels.parquet")  # of `make demo`, without the groups
TRUTH = Path("tests/demo/truth.json")
Pairs = set[tuple[str, str]]


def planted(exact: Truth, share: float, seed: int, left_out: float = 0.5) -> tuple[Truth, Pairs]:
    """Return a truth in which a share of the labels is wrong, `left_out` of them left out and the others added.

    Also return which those are.
    """
    random = np.random.default_rng(seed)
    labels = {image: set(names) for image, names in exact.labels.items()}
    pairs = sorted((image, name) for image, names in labels.items() for name in names)
    count = 2 * int(len(pairs) * share / 2)
    wrong = {pairs[number] for number in random.choice(len(pairs), int(count * left_out), replace=False)}
    images = sorted(labels)
    while len(wrong) < count:  # labels are added as often as they occur
        pair = (images[random.integers(len(images))], pairs[random.integers(len(pairs))][1])
        wrong |= {pair} if pair[1] not in exact.labels[pair[0]] else set()
    for image, name in wrong:
        labels[image] ^= {name}
    return replace(exact, labels={image: frozenset(names) for image, names in labels.items()}), wrong


def precisions(
    entries: Entries,
    known: Vocabulary,
    exact: Truth,
    share: float,
    seeds: int = 10,
    *,
    left_out: float = 0.5,
    seen: bool | None = None,
) -> Mapping[str, float]:
    """Return the mean precision at k, the number of planted errors, of our order and of two simple ones.

    With `seen`, k and the orders are those of the labels that people see, or do not see.
    """
    found: dict[str, list[float]] = {"ours": [], "plain": [], "random": []}
    for seed in range(seeds):
        noisy, wrong = planted(exact, share, seed, left_out)
        suspects = list(find_suspects(compare(entries, known, noisy), known).top(seen=seen))
        is_wrong = np.array([(each.image, each.label) in wrong for each in suspects])
        k = len(wrong) if seen is None else sum((pair[1] in noisy.labels[pair[0]]) == seen for pair in wrong)
        # The model's own probability that people are wrong; what was never proposed counts as 0.
        own = np.array([each.probability or 0.0 for each in suspects])
        doubt = np.where([each.truth == "present" for each in suspects], 1 - own, own)
        lots = np.random.default_rng(seed).random(len(own))
        for name, order in {
            "ours": np.arange(len(own)),
            "plain": np.lexsort((lots, -doubt)),
            "random": np.argsort(lots),
        }.items():
            found[name].append(is_wrong[order][:k].mean())
    return {name: float(np.mean(values)) for name, values in found.items()}


def test_errors_planted_in_the_demo_truth_are_found_before_others() -> None:
    table = open_table(RECORDED)
    entries = read_entries(table)
    exact = load_truth(TRUTH, table=TableContext(entries.ids, table.info.vocabulary))
    found = precisions(entries, table.info.vocabulary, exact, share=0.05)
    # 32 of 98 disagreements are planted; the model is wrong about most of the others, and as sure of itself.
    assert found["ours"] > 0.45
    assert found["ours"] > found["plain"] + 0.08
    assert found["ours"] > found["random"] + 0.12


def synthetic(seed: int, images: int = 2000, labels: int = 20) -> tuple[Entries, Vocabulary, Truth]:
    """A model that is good at most labels, and says yes with confidence to a quarter of them without reason."""
    random = np.random.default_rng(seed)
    names = [f"label {number}" for number in range(labels)]
    true = random.random((images, labels)) < 0.15
    is_hard = np.arange(labels) % 4 == 0
    proposed = random.random((images, labels)) < np.where(true, np.where(is_hard, 0.7, 0.98), 0.05)
    fooled = ~true & is_hard & (random.random((images, labels)) < 0.6)
    sure = np.where(true | fooled, random.beta(9, 1, true.shape), random.beta(1, 6, true.shape))
    rows = [
        row(
            f"{image}.jpg",
            *(
                LabelEntry(name, Decision.YES if p > 0.5 else Decision.NO, float(p), 1.0, float(p))
                for name, p, is_proposed in zip(names, sure[image], proposed[image], strict=True)
                if is_proposed
            ),
        )
        for image in range(images)
    ]
    present = {
        f"{image}.jpg": [name for name, is_there in zip(names, line, strict=True) if is_there]
        for image, line in enumerate(true)
    }
    known = vocabulary(*names)
    return entries_of(rows, known, "labels"), known, truth(present, *names)


def test_errors_about_labels_that_the_model_knows_come_before_its_own_mistakes() -> None:
    found = precisions(*synthetic(3), share=0.05, seeds=3)
    assert found["ours"] > 0.45
    assert found["ours"] > found["plain"] + 0.2
    assert found["ours"] > found["random"] + 0.2


@pytest.mark.parametrize(("left_out", "seen"), [(1.0, False), (0.0, True)])
def test_errors_of_one_kind_are_found_in_the_list_of_their_kind(left_out: float, seen: bool) -> None:
    found = precisions(*synthetic(3), share=0.05, seeds=3, left_out=left_out, seen=seen)
    assert found["ours"] > 0.6
    assert found["ours"] > found["plain"] + 0.2


def said(name: str, decision: Decision, probability: float | None = None, source: str = "model") -> LabelEntry:
    return LabelEntry(name, decision, probability, 1.0, probability or 0.0, source=source)


YES, NO, UNKNOWN = Decision.YES, Decision.NO, Decision.UNKNOWN


def many(*more: tuple[Row, list[str]], known: Vocabulary) -> tuple[Comparison, Vocabulary]:
    """Compare 200 images on which model and people agree about every label, and some more."""
    agreed = [
        (
            row(f"{n}.jpg", *(said(name, YES if n % 2 else NO, 0.97 if n % 2 else 0.03) for name in known.names)),
            list(known.names) if n % 2 else [],
        )
        for n in range(200)
    ]
    rows, people = zip(*agreed, *more, strict=True)
    human = truth({each.image_id: names for each, names in zip(rows, people, strict=True)}, *known.names)
    return compare(entries_of(rows, known, "labels"), known, human), known


def verdicts(found: Suspects) -> dict[tuple[str, str], str]:
    return {(each.image, each.label): each.verdict for each in found.top()}


def test_an_answer_as_sure_as_those_that_people_confirm_puts_the_mistake_on_people() -> None:
    known = vocabulary("cat", "dog")
    found = find_suspects(
        *many(
            (row("forgotten.jpg", said("cat", YES, 0.97), said("dog", NO, 0.03)), []),
            (row("invented.jpg", said("cat", NO, 0.03), said("dog", NO, 0.03)), ["cat"]),
            (row("unasked.jpg", said("dog", NO, 0.03)), ["cat"]),
            known=known,
        )
    )
    assert verdicts(found) == {
        ("forgotten.jpg", "cat"): "annotator",
        ("invented.jpg", "cat"): "annotator",
        ("unasked.jpg", "cat"): "both",  # the model was not asked
    }
    assert {(each.image, each.truth, each.model, each.probability) for each in found.top()} == {
        ("forgotten.jpg", "absent", "yes", 0.97),
        ("invented.jpg", "present", "no", 0.03),
        ("unasked.jpg", "present", "not proposed", None),
    }


def test_a_label_about_which_people_often_disagree_with_the_model_is_its_mistake() -> None:
    known = vocabulary("cat", "dog")
    wrong = [(row(f"w{n}.jpg", said("dog", YES, 0.97)), list[str]()) for n in range(300)]
    found = find_suspects(*many((row("cat.jpg", said("cat", YES, 0.97)), []), *wrong, known=known))
    assert verdicts(found)["w7.jpg", "dog"] == "model"
    assert next(found.top()).image == "cat.jpg"


def test_a_label_that_candidates_often_miss_is_not_held_against_people() -> None:
    known = vocabulary("cat", "dog")
    missed = [(row(f"m{n}.jpg"), ["dog"]) for n in range(100)]
    found = find_suspects(*many((row("cat.jpg"), ["cat"]), *missed, known=known))
    scores = {each.image: each.score for each in found.top()}
    assert scores["cat.jpg"] > 0.6
    assert scores["m3.jpg"] < 0.4
    assert verdicts(found)["m3.jpg", "dog"] == "model"


@pytest.mark.parametrize(
    "labels",
    [
        (Label("taxi", similar=("car",)), Label("car")),
        (Label("taxi", synonyms=("cab",)), Label("car", synonyms=("Cab",))),
        (Label("taxi", parent="car"), Label("car")),
    ],
)
def test_two_names_for_one_thing_can_both_be_defended(labels: tuple[Label, ...]) -> None:
    known = Vocabulary("cars", (*labels, Label("dog")))
    swapped = (row("s.jpg", said("taxi", YES, 0.97), said("car", NO, 0.03), said("dog", YES, 0.97)), ["car"])
    also = (row("a.jpg", said("taxi", YES, 0.97), said("car", YES, 0.97)), ["car"])
    found = verdicts(find_suspects(*many(swapped, also, known=known)))
    assert found["s.jpg", "taxi"] == found["s.jpg", "car"] == "both"
    assert found["s.jpg", "dog"] == found["a.jpg", "taxi"] == "annotator"  # nothing stands in its place


def test_what_nobody_claims_is_no_disagreement() -> None:
    known = vocabulary("cat", "dog")
    rows = [
        row("1.jpg", said("cat", UNKNOWN), said("dog", YES, 0.9, source="human")),
        row("2.jpg", said("cat", YES, 0.9), said("dog", YES, 0.9)),
    ]
    human = truth({"1.jpg": ["cat"], "2.jpg": []}, "cat", "dog", unknown={"2.jpg": frozenset(["dog"])})
    found = find_suspects(compare(entries_of(rows, known, "labels"), known, human), known)
    assert [(each.image, each.label) for each in found.top()] == [("2.jpg", "cat")]
    assert found.notes == ["undecided labels, about which nobody is wrong: 1"]


def test_no_pair_speaks_for_itself() -> None:
    entries, known, exact = synthetic(5, images=100, labels=6)
    labels = dict(exact.labels)
    labels[entries.ids[entries.rows[0]]] ^= {entries.names[entries.labels[0]]}
    flipped = replace(exact, labels=labels)
    cells = entries.cells
    agreements = [
        _agreement(cells, entries.probabilities, comparison.judgments.of(cells) == 1, 6)
        for comparison in (compare(entries, known, exact), compare(entries, known, flipped))
    ]
    same_fold = entries.rows % 5 == entries.rows[0] % 5
    assert (agreements[0] == agreements[1])[same_fold].all()
    assert (agreements[0] != agreements[1])[~same_fold].any()


def test_the_offset_of_a_label_is_the_most_probable_one() -> None:
    random = np.random.default_rng(2)
    rows, labels = np.repeat(np.arange(500), 3), np.tile(np.arange(3), 500)
    answers = random.random(1500)
    present = random.random(1500) < np.clip(answers + 0.2 * (labels - 1), 0, 1)
    found = _agreement(rows * 3 + labels, answers, present, 3)

    edges = np.quantile(answers, np.linspace(0, 1, 21)[1:-1])
    bins, others = np.searchsorted(edges, answers, side="right"), rows % 5 != 0
    hits, count = (np.bincount(bins[others & kept], minlength=20) for kept in (present, np.ones(1500, bool)))
    curve = np.log((hits + 1) / (count - hits + 1))
    own = others & (labels == 2)

    def loss(offset: float) -> float:
        logits = curve[bins[own]] + offset
        return float(np.sum(np.log1p(np.exp(logits)) - present[own] * logits) + offset**2 / 2)

    expected = 1 / (1 + np.exp(-(curve + minimize_scalar(loss).x)))
    hits, count = (np.bincount(bins[own & kept], minlength=20) for kept in (present, np.ones(1500, bool)))
    shrunk = (hits + 10 * expected) / (count + 10)
    held_out = (rows % 5 == 0) & (labels == 2)
    np.testing.assert_allclose(found[held_out], shrunk[bins[held_out]], atol=1e-6)


def test_candidates_without_probabilities_are_judged_by_their_scores() -> None:
    known = vocabulary("cat", "dog")
    rows = [row(f"{n}.jpg", LabelEntry("cat", score=1.0 if n % 2 else 0.5)) for n in range(100)]
    human = truth({f"{n}.jpg": ["cat"] if n % 2 or n == 4 else ["dog"] for n in range(100)}, "cat", "dog")
    found = find_suspects(compare(entries_of(rows, known, "candidates"), known, human, stage="candidates"), known)
    kinds = found.by_kind()
    assert (sum(kinds["people no, model yes"]), sum(kinds["people yes, not proposed"])) == (49, 49)
    assert {each.probability for each in found.top()} == {None}


def test_findings_are_json_tables_and_a_file(tmp_path: Path) -> None:
    known = vocabulary("cat", "=dog")
    found = find_suspects(
        *many((row("=1.jpg", said("cat", YES, 0.97)), ["=dog"]), (row("2.jpg", said("cat", YES, 0.9)), []), known=known)
    )
    found = replace(found, shown=2)
    value = found.to_json()
    assert json.loads(json.dumps(value)) == value
    assert value["disagreements"] == sum(sum(each.values()) for each in value["kinds"].values()) == 3
    assert sum(sum(each.values()) for each in value["labels"].values()) == 3
    assert len(value["suspects"]) == 3
    left_out, added = (lines for _, (_, lines) in found.tables()[-2:])
    assert [(line[0], line[2]) for line in left_out] == [(each.image, "absent") for each in found.top(seen=False)]
    assert [(line[1], line[2]) for line in added] == [("=dog", "present")]
    for _, (columns, lines) in found.tables():
        assert all(len(line) == len(columns) for line in lines)
    found.write_csv(tmp_path / "s.csv")
    found.write_csv(tmp_path / "s.csv")  # over its own
    with (tmp_path / "s.csv").open() as file:
        head, *lines = csv.reader(file)
    assert tuple(head) == Suspect.__slots__
    assert {line[0] for line in lines} == {"'=1.jpg", "2.jpg"}
    (tmp_path / "mine.csv").write_text("image,label\n")
    with pytest.raises(UsageError, match="holds something else"):
        found.write_csv(tmp_path / "mine.csv")


def test_nothing_in_dispute_is_an_empty_list() -> None:
    known = vocabulary("cat")
    human = truth({"1.jpg": ["cat"], "2.jpg": []}, "cat")
    rows = [row("1.jpg", said("cat", YES, 0.9)), row("2.jpg")]
    found = find_suspects(compare(entries_of(rows, known, "labels"), known, human), known)
    assert (len(found), list(found.top()), found.by_label()) == (0, [], {})
    assert "people see 1 labels: too few" in found.warnings[0]
