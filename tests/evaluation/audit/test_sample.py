"""The sample: each pair's probability of being drawn is the one that is written down."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tagllm_cli.evaluation.audit import sample
from tagllm_cli.evaluation.audit.population import FAR, KINDS, NEAR, YES, Population, population
from tagllm_cli.evaluation.audit.sample import allocation, draw
from tagllm_cli.evaluation.entries import HUMAN, PREDICTED
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.evaluation.audit.world import World, world


@pytest.fixture(scope="module")
def small() -> World:
    """600 images and 6 labels."""
    return world(1, images=600, labels=6, often=0.4, rarely=0.02)


def pairs(of: Population, size: int, seed: int) -> list[tuple[int, int]]:
    sample = draw(of, size, seed)
    return list(zip(sample.rows.tolist(), sample.labels.tolist(), strict=True))


def test_a_sample_has_its_size_and_no_pair_twice(small: World) -> None:
    of = small.population
    for size in (1, 7, 100, 1500):
        found = pairs(of, size, seed=size)
        assert len(set(found)) == len(found) == size


def test_the_same_seed_draws_the_same_pairs_and_another_one_others(small: World) -> None:
    of = small.population
    assert pairs(of, 200, 3) == pairs(of, 200, 3)
    assert set(pairs(of, 200, 3)) != set(pairs(of, 200, 4))


def test_every_pair_is_drawn_as_often_as_its_probability_says(small: World) -> None:
    of, rounds = small.population, 250
    drawn, weighted = np.zeros(small.true.shape), np.zeros(small.true.shape)
    for seed in range(rounds):
        sample = draw(of, 300, seed)
        np.add.at(drawn, (sample.rows, sample.labels), 1)
        weighted[sample.rows, sample.labels] = sample.probabilities
    seen = weighted > 0
    probability = weighted[seen]
    deviation = (drawn[seen] / rounds - probability) / np.sqrt(probability * (1 - probability) / rounds + 1e-12)
    # Seen at least once is a little more than chance for the rare pairs: only the likelier ones are compared.
    likely = (probability > 0.05) & (probability < 1)
    assert np.count_nonzero(likely) > 500
    assert abs(deviation[likely].mean()) < 0.1
    assert deviation[likely].std() == pytest.approx(1, abs=0.15)
    assert (drawn[seen][probability == 1] == rounds).all()


def test_the_probabilities_add_up_to_the_size_over_all_pairs(small: World) -> None:
    of = small.population
    expected = allocation(of, 300)
    assert expected.sum() == pytest.approx(300)
    assert (expected <= of.sizes).all()
    assert (expected[of.sizes > 0] > 0).all()  # a pair that cannot be drawn would bias everything


def test_precision_gets_a_fifth_of_the_sample_however_rare_predictions_are(monkeypatch: pytest.MonkeyPatch) -> None:
    of = world(3, images=3_000, labels=10, often=0.01, rarely=0.001).population
    kinds = np.array([of.kind_of(stratum) for stratum in range(of.count)])
    assert allocation(of, 200)[kinds == YES].sum() == pytest.approx(0.2 * 200, abs=0.1)
    monkeypatch.setattr(sample, "_PREDICTED_SHARE", 0)
    assert allocation(of, 200)[kinds == YES].sum() < 0.18 * 200


def test_strata_hold_every_pair_once(small: World) -> None:
    of = small.population
    found = [
        (int(row), stratum % of.labels)
        for stratum in np.flatnonzero(of.sizes).tolist()
        for row in of.rows_of(stratum).tolist()
    ]
    assert len(set(found)) == len(found) == small.true.size
    for stratum in np.flatnonzero(of.sizes).tolist():
        assert len(of.rows_of(stratum)) == of.sizes[stratum]
        said = small.said[of.rows_of(stratum), stratum % of.labels]
        assert (said == (of.kind_of(stratum) == YES)).all()


def test_a_sample_of_everything_is_everything(small: World) -> None:
    sample = draw(small.population, 10**6, 0)
    assert len(set(zip(sample.rows.tolist(), sample.labels.tolist(), strict=True))) == small.true.size
    assert (sample.probabilities == 1).all()


def test_what_people_decided_is_never_asked_about(small: World) -> None:
    flags = small.entries.flags.copy()
    flags[::3] |= HUMAN
    of = population(replace(small.entries, flags=flags), small.vocabulary)
    human = set(zip(small.entries.rows[::3].tolist(), small.entries.labels[::3].tolist(), strict=True))
    assert of.sizes.sum() == small.true.size - len(human)
    assert not human & set(pairs(of, 3000, 0))


def test_near_are_images_with_a_label_that_is_similar_or_often_beside(small: World) -> None:
    entries = small.entries
    rows, labels = np.array([0, 1, 2]), np.array([0, 1, 0])
    few = replace(
        entries, rows=rows, labels=labels, scores=np.full(3, 0.9, np.float32), flags=np.full(3, PREDICTED, np.int8)
    )
    names = small.vocabulary.names
    told = Vocabulary("told", (Label(names[0]), Label(names[1], similar=(names[0],)), *map(Label, names[2:])))
    of = population(few, told)
    assert of.rows_of(of.absent_stratum(NEAR, 1)).tolist() == [0, 2]
    assert of.rows_of(of.absent_stratum(NEAR, 0)).tolist() == [1]  # both ways
    assert of.sizes[of.absent_stratum(FAR, 2)] == 600
    both = replace(few, rows=np.repeat(np.arange(10), 2), labels=np.tile([3, 4], 10), scores=np.full(20, 0.9),
                   flags=np.full(20, PREDICTED, np.int8))  # fmt: skip
    assert population(both, small.vocabulary).companions[3].tolist() == [4]


def test_the_first_pairs_are_spread_over_the_strata_like_all(small: World) -> None:
    of = small.population
    sample = draw(of, 400, 5)
    kinds = np.array([of.kind_of(stratum) for stratum in sample.strata.tolist()])
    for kind in range(len(KINDS)):
        whole, first = np.mean(kinds == kind), np.mean(kinds[:100] == kind)
        assert first == pytest.approx(whole, abs=0.05)


def test_pairs_of_one_image_stand_together_within_a_block(small: World) -> None:
    rows = draw(small.population, 1000, 5).rows
    for start in range(0, 1000, 50):
        block = rows[start : start + 50]
        changes = 1 + np.count_nonzero(np.diff(block))
        assert changes == len(np.unique(block))


def test_a_table_without_any_candidate_can_be_audited() -> None:
    of = world(2, images=50, labels=3).entries.restricted(range(50), range(3))
    empty = replace(of, **{name: getattr(of, name)[:0] for name in ("rows", "labels", "scores", "flags", "arms")})
    sample = draw(population(empty, Vocabulary("v", tuple(map(Label, of.names)))), 20, 0)
    assert len(sample.rows) == 20
