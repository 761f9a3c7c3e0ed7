"""What people decided, on record: nothing is overwritten, the latest counts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tagllm_cli.errors import TableError
from tagllm_cli.records import Decision
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.store.human_labels import HumanDecision, in_force

CAT = HumanDecision("1.jpg", b"f" * 16, "cat", "yes", "ann", 10, "a.csv (CSV)", b"a" * 16, 100)


def test_decisions_come_back_as_they_were_recorded(tmp_path: Path) -> None:
    others = [
        replace(CAT, label="", scope=("cat", "dög"), decision="no"),
        replace(CAT, fingerprint=b"g" * 16, image="2.jpg", label="=evil\n", who=""),
    ]
    with Evidence(tmp_path / "t.evidence") as evidence:
        assert not evidence.human
        assert evidence.record_decisions([CAT, *others]) == 3
    with Evidence(tmp_path / "t.evidence") as evidence:
        assert evidence.record_decisions([CAT, *others]) == 0
        found = [each for some in evidence.human for each in some]
        assert sorted(found, key=repr) == sorted([CAT, *others], key=repr)
        assert [len(some) for some in evidence.human] == [2, 1]
        assert evidence.human.in_force(b"f" * 16) == {"cat": Decision.YES, "dög": Decision.NO}
        assert evidence.human.in_force(b"h" * 16) == {}


def test_of_several_decisions_the_latest_counts_and_all_are_kept(tmp_path: Path) -> None:
    later = replace(CAT, who="ben", decision="no", decided=20)
    with Evidence(tmp_path / "t.evidence") as evidence:
        evidence.record_decisions([later])
        evidence.record_decisions([CAT])
        assert evidence.human.in_force(CAT.fingerprint) == {"cat": Decision.NO}
        assert len(next(iter(evidence.human))) == 2


def test_going_through_an_image_says_no_to_what_is_not_listed_and_to_what_was_said_before() -> None:
    through = replace(CAT, label="", scope=("cat", "dog", "cow"), decision="no", decided=20)
    dog = replace(CAT, label="dog", decided=20)
    assert in_force([dog, through, CAT]) == {"cat": Decision.NO, "dog": Decision.YES, "cow": Decision.NO}


def test_what_is_withdrawn_counts_no_more() -> None:
    assert in_force([CAT, replace(CAT, decision="withdrawn", decided=11)]) == {}
    assert in_force([CAT, replace(CAT, decision="withdrawn", decided=9)]) == {"cat": Decision.YES}


def test_at_the_same_time_what_was_recorded_later_counts() -> None:
    assert in_force([replace(CAT, decision="no", recorded=101), CAT]) == {"cat": Decision.NO}


def test_what_equal_images_say_at_one_time_is_taken_back_without_what_was_said_before() -> None:
    said = [replace(CAT, image=image, decided=20, decision="no") for image in ("1.jpg", "copy.jpg")]
    through = [replace(CAT, label="", scope=scope, decision="no", decided=20) for scope in (("cat",), ("cat", "dog"))]
    for some in (said, through, [*said, *through]):
        back = [replace(each, decision="withdrawn", recorded=200) for each in some]
        assert in_force([CAT, *some]) == {label: Decision.NO for each in some for label in each.scope or ("cat",)}
        assert in_force([CAT, *some, *back]) == {"cat": Decision.YES}


def test_the_order_in_which_equal_decisions_come_makes_no_difference(tmp_path: Path) -> None:
    earlier = [CAT, replace(CAT, decision="no", recorded=200), replace(CAT, who="ben", decision="withdrawn")]
    later = [replace(CAT, recorded=300, file=b"b" * 16), replace(CAT, who="ben", recorded=300)]
    found = []
    for number, order in enumerate(([earlier, later], [later, earlier])):
        with Evidence(tmp_path / f"{number}.evidence") as evidence:
            for some in order:
                evidence.record_decisions(some)
            assert evidence.record_decisions(later) == 0
            found.append([set(each) for each in evidence.human])
            assert evidence.human.in_force(CAT.fingerprint) == {"cat": Decision.NO}
    assert found[0] == found[1]


def test_many_images_are_read_page_by_page(tmp_path: Path) -> None:
    many = [replace(CAT, fingerprint=number.to_bytes(16, "big"), label=str(number)) for number in range(1, 5001)]
    with Evidence(tmp_path / "t.evidence") as evidence:
        evidence.record_decisions(many)
        assert [each for some in evidence.human for each in some] == many


@pytest.mark.parametrize(
    "damage", ["UPDATE human_decision SET decision = 'no'", "UPDATE label_set SET names = '[\"cat\"]'"]
)
def test_a_damaged_decision_is_an_error_and_not_another_decision(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "t.evidence"
    with Evidence(path) as evidence:
        evidence.record_decisions([CAT, replace(CAT, label="", scope=("cow",), decision="no")])
    with closing(sqlite3.connect(path)) as db:
        db.execute(damage)
        db.commit()
    with Evidence(path) as evidence, pytest.raises(TableError, match=r"is damaged: .*people"):
        evidence.human.in_force(CAT.fingerprint)
