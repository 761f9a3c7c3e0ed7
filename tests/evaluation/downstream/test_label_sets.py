"""Label sets: what a table says as targets, which images are drawn to test on, and what both sides know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.downstream.label_sets import CERTAIN, UNJUDGED, load_label_sets
from tagllm_cli.evaluation.downstream.options import DownstreamOptions
from tagllm_cli.evaluation.truth import TruthOptions
from tagllm_cli.records import Decision, LabelEntry
from tests.evaluation.downstream.world import NAMES, World, yes

_OPTIONS = DownstreamOptions()
_MIXED = (
    LabelEntry("red", Decision.YES, 0.75, 1.0, 0.75),
    LabelEntry("green", Decision.NO, 0.25, 1.0, 0.25),
    LabelEntry("blue", Decision.UNKNOWN, None, 0.1, 0.5),
)


@pytest.mark.parametrize(
    ("soft", "human", "first"),
    [
        (False, False, (CERTAIN, 0, UNJUDGED)),
        (True, False, (190, 64, UNJUDGED)),  # 0.75 and 0.25 of 254
    ],
)
def test_decisions_or_probabilities_are_the_targets(
    world: World, soft: bool, human: bool, first: tuple[int, ...]
) -> None:
    table = world.table("mixed", lambda image: _MIXED)
    sets = load_label_sets(table, world.truth, replace(_OPTIONS, soft_labels=soft, include_human=human))
    assert sets.sets[0].targets[0].tolist() == list(first)
    assert sets.names == NAMES


@pytest.mark.parametrize(("included", "target"), [(False, UNJUDGED), (True, CERTAIN)])
def test_what_people_decided_is_trained_on_only_where_asked(world: World, included: bool, target: int) -> None:
    by_people = [LabelEntry("red", Decision.YES, score=1.0, source="human")]
    table = world.table("people", lambda image: by_people)
    sets = load_label_sets(table, world.truth, replace(_OPTIONS, include_human=included))
    assert sets.sets[0].targets[0].tolist() == [target, 0, 0]


def test_soft_targets_of_what_people_decided_are_their_decisions(world: World) -> None:
    decided = [replace(_MIXED[0], decision=Decision.NO, source="human")]
    decided.append(replace(_MIXED[1], decision=Decision.YES, source="human"))
    table = world.table("people", lambda image: decided)
    other = world.table("other", lambda image: decided)
    options = replace(_OPTIONS, include_human=True, soft_labels=True, against=(other,))
    for each in load_label_sets(table, world.truth, options).sets[:2]:
        assert each.targets[0].tolist() == [0, CERTAIN, 0]


def test_tables_measured_by_decisions_of_people_are_trained_on_as_their_models_left_them(world: World) -> None:
    decided = [
        replace(_MIXED[0], decision=Decision.NO, source="human"),
        replace(_MIXED[1], decision=Decision.YES, source="human"),
    ]
    table, other = (world.table(name, lambda image: decided) for name in ("people", "other"))
    options = replace(_OPTIONS, against=(other,))
    sets = load_label_sets(table, table, options, TruthOptions(human_only=True)).sets
    assert [each.targets[0].tolist() for each in sets[:2]] == [[CERTAIN, 0, 0]] * 2


def test_the_truth_is_the_last_set_and_says_what_it_does_not_judge(world: World) -> None:
    gaps = world.root / "gaps.csv"
    lines = [f"{image},{int('red' in present)},{int('green' in present)}," for image, present in world.true.items()]
    gaps.write_text("\n".join(["image,red,green,blue", *lines, ""]))
    sets = load_label_sets(world.right(), gaps, _OPTIONS)
    truth = sets.sets[-1].targets
    assert sets.names == NAMES
    assert (truth[:, 2] == UNJUDGED).all()
    for number, name in enumerate(NAMES[:2]):
        expected = [CERTAIN * (name in present) for present in world.true.values()]
        assert truth[:, number].tolist() == expected


def test_copies_of_a_file_are_drawn_together(tmp_path: Path) -> None:
    world = World(tmp_path, images=200)
    for number in range(100):
        (world.folder / f"{number + 100:03d}.png").write_bytes((world.folder / f"{number:03d}.png").read_bytes())
    sets = load_label_sets(world.right(), world.truth, _OPTIONS)
    assert (sets.is_test[:100] == sets.is_test[100:]).all()
    assert 15 <= sets.is_test[:100].sum() <= 45  # of an expected 30
    assert not (sets.is_test & sets.is_validation).any()


def test_the_draw_depends_on_no_other_image(world: World) -> None:
    every = load_label_sets(world.right(), world.truth, _OPTIONS)
    some = world.write_truth("some.csv", dict(list(world.true.items())[40:]))
    fewer = load_label_sets(world.right(), some, _OPTIONS)
    assert fewer.is_test.tolist() == every.is_test[40:].tolist()


def test_labels_that_one_table_lacks_are_left_out(world: World) -> None:
    plain = world.table("plain", lambda image: yes("Red"), names=("Red", "blue"))
    sets = load_label_sets(world.right(), world.truth, replace(_OPTIONS, against=(plain,)))
    assert (sets.names, sets.labels_left_out) == (("red", "blue"), ("green",))
    assert (sets.sets[1].targets == np.array([CERTAIN, 0])).all()


def test_tables_without_a_common_label_or_image_are_an_error(world: World, tmp_path: Path) -> None:
    other = world.table("other", lambda image: yes("cat"), names=("cat",))
    with pytest.raises(UsageError, match="no label in common"):
        load_label_sets(world.right(), world.truth, replace(_OPTIONS, against=(other,)))
    failed = world.table("failed", lambda image: yes(), failed=tuple(world.true))
    with pytest.raises(UsageError, match="share no image"):
        load_label_sets(world.right(), world.truth, replace(_OPTIONS, against=(failed,)))


def test_labels_about_other_bytes_are_left_out(tmp_path: Path) -> None:
    world = World(tmp_path)
    plain = world.right("plain")
    (world.folder / "000.png").write_bytes((world.folder / "001.png").read_bytes())
    sets = load_label_sets(world.right(), world.truth, replace(_OPTIONS, against=(plain,)))
    assert sets.left_out == {"labeled from other bytes in another table": 1}


def test_tables_of_one_name_are_told_apart_by_their_paths(world: World, tmp_path: Path) -> None:
    ours, plain = world.right(), tmp_path / "right.parquet"
    plain.write_bytes(ours.read_bytes())
    sets = load_label_sets(ours, world.truth, replace(_OPTIONS, against=(plain,)))
    assert [each.name for each in sets.sets] == [str(ours), str(plain), "truth"]
