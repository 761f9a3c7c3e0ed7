"""Labels merged with keywords: ours come and go, people's stay, what people removed stays removed."""

from __future__ import annotations

import pytest

from tagllm_cli.store.xmp.elements import XmpError
from tagllm_cli.store.xmp.keywords import (
    HIERARCHICAL_SUBJECT,
    PROPERTIES,
    SUBJECT,
    TAGS_LIST,
    Keyword,
    Keywords,
    keyword,
    merged,
)
from tagllm_cli.store.xmp.packet import Packet
from tests.support.photo_software import STYLES, sidecar

NOW = 1_700_000_000_000_000
HOUR = 3_600_000_000
CAT, DOG, BIRD = keyword("cat", ["animal"]), keyword("dog", ["animal"]), keyword("bird")


def merge(data: bytes, *keywords: Keyword, **options: object) -> bytes:
    """The packet after a merge that has something to change."""
    new = merged(data, keywords, now=NOW, **options).data  # type: ignore[arg-type]
    assert new is not None
    return new


def values(data: bytes) -> list[list[str]]:
    found = Keywords.of(Packet(data))
    return [list(found.values[name]) for name in PROPERTIES]


def without(data: bytes, *texts: str) -> bytes:
    """The packet after somebody removed keywords from every property, as photo software does."""
    packet = Packet(data)
    return packet.edited({name: [each for each in packet.values(name) if each not in texts] for name in PROPERTIES})


def with_(data: bytes, **texts: list[str]) -> bytes:
    packet = Packet(data)
    names = {"flat": SUBJECT, "lightroom": HIERARCHICAL_SUBJECT, "digikam": TAGS_LIST}
    return packet.edited({names[key]: [*packet.values(names[key]), *new] for key, new in texts.items()})


def test_a_label_is_a_flat_keyword_and_a_path_of_either_kind() -> None:
    assert values(merge(b"", CAT, BIRD)) == [["cat", "bird"], ["animal|cat", "bird"], ["animal/cat", "bird"]]


def test_a_path_whose_parts_hold_its_separator_is_not_written() -> None:
    assert values(merge(b"", keyword("a/b", ["x|y"]))) == [["a/b"], [], []]
    assert values(merge(b"", keyword("a/b"))) == [["a/b"], ["a/b"], []]


def test_a_name_that_xml_cannot_hold_is_refused() -> None:
    with pytest.raises(XmpError, match="control character"):
        keyword("a\x00b")


def test_merging_the_same_labels_again_changes_nothing() -> None:
    assert merged(merge(b"", CAT, BIRD), [BIRD, CAT], now=NOW + HOUR, modified=NOW).data is None
    assert merged(b"", [], now=NOW).data is None


@pytest.mark.parametrize("style", STYLES)
def test_what_people_wrote_stays_and_is_not_taken_for_ours(style: str) -> None:
    theirs = sidecar(style, ("animal", "cat"), ("holiday",))
    both = merge(theirs, CAT, DOG)
    assert values(both)[0] == ["cat", "holiday", "dog"]
    assert values(merge(both, BIRD))[0] == ["cat", "holiday", "bird"]
    assert values(merge(both))[0] == ["cat", "holiday"]


def test_a_keyword_in_another_case_is_the_same() -> None:
    theirs = with_(b"<r:RDF xmlns:r='http://www.w3.org/1999/02/22-rdf-syntax-ns#'/>", flat=["Cat"])
    assert values(merge(theirs, CAT))[0] == ["Cat"]


def test_labels_that_went_are_taken_out_with_their_old_paths() -> None:
    old = merge(b"", CAT, DOG)
    assert values(merge(old, keyword("cat", ["pet"]))) == [["cat"], ["pet|cat"], ["pet/cat"]]


def test_a_removed_keyword_stays_removed_and_on_record() -> None:
    edited = without(merge(b"", CAT, DOG), "cat", "animal|cat", "animal/cat")
    result = merged(edited, [CAT, DOG], now=NOW + HOUR)
    assert result.data is None
    assert result.kept_out == ("cat",)
    # A model that says something else in between does not make the removal forgotten.
    later = merged(merge(edited, BIRD), [CAT, BIRD], now=NOW)
    assert later.data is None
    assert later.kept_out == ("cat",)
    assert Keywords.of(Packet(merge(edited, BIRD))).removed == ["cat"]


def test_a_flat_keyword_that_was_removed_takes_its_paths_with_it() -> None:
    edited = without(merge(b"", CAT, DOG), "cat")
    assert values(merge(edited, CAT, DOG)) == [["dog"], ["animal|dog"], ["animal/dog"]]


def test_a_keyword_that_was_moved_to_another_parent_is_not_moved_back() -> None:
    moved = with_(without(merge(b"", CAT, DOG), "animal|cat"), lightroom=["pets|cat"])
    assert merged(moved, [CAT, DOG], now=NOW).data is None
    assert values(merge(moved, CAT, BIRD))[1] == ["pets|cat", "bird"]


def test_a_removal_that_the_table_knows_needs_no_record_any_more() -> None:
    edited = without(merge(b"", CAT, DOG), "cat", "animal|cat", "animal/cat")
    settled = merge(edited, DOG, settled=["cat"])
    assert Keywords.of(Packet(settled)).removed == []
    assert values(merge(settled, CAT, DOG))[0] == ["dog", "cat"]


def test_restore_puts_removed_labels_back() -> None:
    edited = without(merge(b"", CAT, DOG), "cat", "animal|cat", "animal/cat")
    result = merged(edited, [CAT, DOG], now=NOW, restore=True)
    assert result.kept_out == ()
    assert result.data is not None
    assert values(result.data) == [["dog", "cat"], ["animal|dog", "animal|cat"], ["animal/dog", "animal/cat"]]


def test_nothing_of_ours_is_left_where_no_label_is_left() -> None:
    theirs = sidecar("digikam", ("holiday",))
    assert b"tagllm:" in (labeled := merge(theirs, CAT))
    assert b"<tagllm:" not in merge(labeled)


def test_what_people_added_are_flat_keywords_and_last_parts_of_paths() -> None:
    ours = merge(b"", CAT)
    edited = with_(ours, flat=["holiday", "animal"], lightroom=["animal|dog"], digikam=["places/Rome", "animal/dog"])
    found = Keywords.of(Packet(edited))
    assert sorted(found.added) == ["Rome", "dog", "holiday"]  # `animal` is only the parent of others
    assert found.untouched == ["cat"]
    assert found.removed == []
    assert Keywords.of(Packet(with_(ours, flat=["animal"], lightroom=["animal"]))).added == ["animal"]


def test_our_own_writes_do_not_date_what_people_did() -> None:
    theirs = sidecar("lightroom", ("holiday",))
    ours = Keywords.of(Packet(merge(theirs, CAT, modified=NOW - 24 * HOUR)))
    assert ours.when(NOW + 1) == NOW - 24 * HOUR
    assert ours.when(NOW + HOUR) == NOW + HOUR
    again = merged(merge(theirs, CAT, modified=NOW - HOUR), [DOG], now=NOW + 9, modified=NOW).data
    assert Keywords.of(Packet(again or b"")).when(NOW + 9) == NOW - HOUR
    assert Keywords.of(Packet(theirs)).when(NOW) == NOW


@pytest.mark.parametrize("time", ["", "yesterday", "2026-05-01", "2026-99-01T00:00:00Z"])
def test_times_that_are_none_are_as_if_they_were_not_there(time: str) -> None:
    data = merge(sidecar("lightroom", ("holiday",)), CAT, modified=NOW - HOUR)
    packet = Packet(data)
    (name,) = [name for name in (SUBJECT._replace(uri="urn:tagllm:xmp:1.0:", local="times"),) if packet.values(name)]
    assert Keywords.of(Packet(packet.edited({name: [time, time]}))).when(NOW) == NOW
