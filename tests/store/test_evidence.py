"""The evidence: what is recorded is there again, and a listing reopens what changed and nothing else."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import TableError
from tagllm_cli.records import Failure, Image, ImageInfo, Item, LabelEntry, Response
from tagllm_cli.store import listing as module
from tagllm_cli.store.evidence import KEYS, Evidence
from tagllm_cli.store.listing import SourceChanges
from tests.support.workspace import evidence_rows, snapshot

SEEN = ImageInfo(b"f" * 16, 30, 20)
BROKEN = ImageInfo(b"b" * 16, failure=Failure("truncated_file", "JPEG that ends too early"))
UNREADABLE = ImageInfo(b"", failure=Failure("unreadable", "Permission denied"))
CAT = LabelEntry("cat", score=0.5, arms=("disjoint",), groups=("disjoint:1",))


def image(name: str, version: str = "1") -> Item:
    return Item(Image(name, name, version))


def take_in(evidence: Evidence, *items: Item, complete: bool = True, by_hash: bool = False) -> SourceChanges:
    evidence.begin_listing()
    evidence.list_images(enumerate(items))
    listing = evidence.compare(complete=complete)
    evidence.merge(complete=complete, by_hash=by_hash)
    return listing


def known(evidence: Evidence) -> dict[str, Any]:
    """Return (info, proposed, completed) of each image as on record, in the order of the source."""
    images = {image.id: (image.item(), image.completed) for image in evidence.iter_recorded()}
    return {name: (item.info, item.proposed, completed) for name, (item, completed) in images.items()}


def to_do(evidence: Evidence) -> dict[str, tuple[str, ImageInfo | None, bytes | None]]:
    """Return (version, info, completed) of each image as a run sees it."""
    return {item.image.id: (item.image.version, item.info, completed) for item, completed in evidence.iter_items()}


def changed_since(evidence: Evidence, revision: int) -> set[str]:
    return {image.id for image in evidence.iter_recorded() if image.revision > revision}


@pytest.fixture
def evidence(tmp_path: Path) -> Iterator[Evidence]:
    with Evidence(tmp_path / "a.evidence") as opened:
        yield opened


@pytest.fixture
def three(evidence: Evidence) -> Evidence:
    """Three images on record: one answered, one broken, one that could not be read."""
    take_in(evidence, image("a"), image("b"), image("c"))
    for name, info in (("a", SEEN), ("b", BROKEN), ("c", UNREADABLE)):
        evidence.set_info(name, info)
    evidence.set_completed("a", b"hash")
    evidence.commit()
    return evidence


def test_answers_come_back_as_they_were(evidence: Evidence) -> None:
    answer = Response("cat, dog", "stop", {"yes": -0.1234, " no": -math.inf, "да": -2.5}, 60, 30, 5)
    failure = Response(failure=Failure("timeout", "no answer in 60 s"))
    evidence.record(b"k1", answer)
    evidence.record(b"k2", failure)
    assert evidence.responses([b"k2", b"k3", b"k1"]) == [failure, None, answer]
    assert evidence.answered([b"k2", b"k3", b"k1"]) == {b"k1"}


def test_the_first_answer_wins_and_takes_the_place_of_a_failure(evidence: Evidence) -> None:
    first, second = Response("first"), Response("second")
    failures = [Response(failure=Failure("timeout", str(number))) for number in range(2)]
    for response in failures:
        evidence.record(b"k", response)
    assert evidence.responses([b"k"]) == failures[1:]
    for response in (first, second, failures[0]):
        evidence.record(b"k", response)
    assert evidence.responses([b"k"]) == [first]


def test_more_keys_than_one_query_takes(evidence: Evidence) -> None:
    keys = [number.to_bytes(16, "big") for number in range(2 * KEYS + 1)]
    for key in keys[::2]:
        evidence.record(key, Response(key.hex()))
    assert evidence.answered(keys) == set(keys[::2])
    found = evidence.responses(keys)
    assert [None if response is None else response.text for response in found] == [
        None if number % 2 else key.hex() for number, key in enumerate(keys)
    ]


def test_half_a_character_can_be_recorded(evidence: Evidence) -> None:
    evidence.record(b"k", Response("cat \ud83d", first_logprobs={"\ud83d": -1.0}))
    evidence.record(b"f", Response(failure=Failure("bad_answer", "\udcff")))
    answer, failure = evidence.responses([b"k", b"f"])
    assert answer == Response("cat ?", first_logprobs={"\ud83d": -1.0})
    assert failure == Response(failure=Failure("bad_answer", "?"))


def test_a_listing_is_compared_and_taken_in(three: Evidence) -> None:
    listing = take_in(three, image("b"), image("d"), image("a", version="2"))
    assert listing == SourceChanges(total=3, new=1, changed=1, gone=1, known=3, moved=2)
    assert known(three) == {"b": (BROKEN, None, None), "d": (None, None, None), "a": (SEEN, None, b"hash")}
    assert to_do(three) == {"b": ("1", BROKEN, None), "d": ("1", None, None), "a": ("2", None, None)}


def test_what_is_unchanged_is_not_reopened(three: Evidence) -> None:
    before, revision = known(three), three.revision
    assert take_in(three, image("a"), image("b"), image("c")) == SourceChanges(
        total=3, new=0, changed=0, gone=0, known=3
    )
    three.commit()
    assert (known(three), three.revision) == (before, revision)


def test_another_position_in_the_source_reopens_nothing(three: Evidence) -> None:
    assert take_in(three, image("c"), image("a"), image("b")).changed == 0
    assert list(known(three)) == ["c", "a", "b"]
    assert known(three)["a"] == (SEEN, None, b"hash")


def test_an_image_of_another_version_is_read_again_and_keeps_what_is_known_until_then(three: Evidence) -> None:
    revision = three.revision
    assert take_in(three, image("a", "2"), image("b"), image("c")).changed == 1
    assert to_do(three)["a"] == ("2", None, None)
    three.commit()
    assert known(three)["a"] == (SEEN, None, b"hash")
    assert (three.revision, changed_since(three, revision)) == (revision, set())


def test_an_image_that_was_verified_has_its_new_version_on_record(three: Evidence) -> None:
    take_in(three, image("a", "2"), image("b"), image("c"))
    three.set_info("a", SEEN)
    assert to_do(three)["a"] == ("2", SEEN, b"hash")
    assert take_in(three, image("a", "2"), image("b"), image("c")).changed == 0


def test_an_image_that_turns_out_to_be_another_is_replaced(three: Evidence) -> None:
    revision, other = three.revision, replace(SEEN, fingerprint=b"g" * 16)
    take_in(three, image("a", "2"), image("b"), image("c"))
    three.set_info("a", other)
    assert to_do(three)["a"] == ("2", other, None)
    assert changed_since(three, revision) == {"a"}


def test_by_hash_every_listed_image_is_read_again_and_nothing_is_forgotten(three: Evidence) -> None:
    changes = take_in(three, image("a"), image("b"), complete=False, by_hash=True)
    assert (changes.changed, changes.gone) == (0, 0)
    assert to_do(three) == {"a": ("1", None, None), "b": ("1", None, None), "c": ("1", UNREADABLE, None)}
    assert known(three) == {"a": (SEEN, None, b"hash"), "b": (BROKEN, None, None), "c": (UNREADABLE, None, None)}
    three.set_info("a", SEEN)
    assert to_do(three)["a"] == ("1", SEEN, b"hash")


def test_by_hash_what_an_earlier_table_found_is_not_read_again(evidence: Evidence) -> None:
    take_in(evidence, FOUND)
    take_in(evidence, FOUND, by_hash=True)
    assert to_do(evidence)["a"] == ("", SEEN, None)


def test_only_changes_that_a_row_shows_count_for_its_image(three: Evidence) -> None:
    revision = three.revision
    take_in(three, image("c"), image("a", "2"), image("new"), Item(Image("b", "moved", "1")))
    three.set_info("a", SEEN)
    three.set_completed("a", b"other")
    three.record(b"k", Response("cat"))
    three.commit()
    assert changed_since(three, revision) == {"new", "b"}
    assert changed_since(three, three.revision) == set()
    three.set_info("c", SEEN)
    assert changed_since(three, three.revision) == {"c"}


def test_a_partial_listing_takes_nothing_away(three: Evidence) -> None:
    assert take_in(three, image("b"), complete=False) == SourceChanges(
        total=1, new=0, changed=0, gone=0, known=3, moved=1
    )
    assert list(known(three)) == ["a", "b", "c"]
    assert [item.image.id for item, _ in three.iter_items(listed_only=True)] == ["b"]


def test_an_image_listed_twice_counts_once(evidence: Evidence) -> None:
    assert take_in(evidence, image("a"), image("a", version="5")) == SourceChanges(1, 1, 0, 0, 0)
    assert list(known(evidence)) == ["a"]


FOUND = Item(Image("a", "a"), SEEN, (CAT,))


@pytest.mark.parametrize(
    "now",
    [
        replace(FOUND, proposed=()),
        replace(FOUND, proposed=None),
        replace(FOUND, proposed=(replace(CAT, arms=("cooccurring",)),)),
        replace(FOUND, info=replace(SEEN, fingerprint=b"g" * 16)),
        replace(FOUND, info=BROKEN, proposed=None),
    ],
    ids=["fewer", "none", "arms", "bytes", "failed"],
)
def test_an_earlier_table_that_says_otherwise_reopens_an_image(evidence: Evidence, now: Item) -> None:
    take_in(evidence, FOUND)
    evidence.set_completed("a", b"hash")
    assert take_in(evidence, FOUND).changed == 0
    assert known(evidence) == {"a": (SEEN, (CAT,), b"hash")}
    assert take_in(evidence, now).changed == 1
    assert known(evidence) == {"a": (now.info, now.proposed, None)}


@pytest.mark.parametrize("ours", [BROKEN, UNREADABLE, replace(SEEN, failure=Failure("changed", "other bytes"))])
def test_what_an_earlier_table_read_and_we_could_not_is_tried_again(evidence: Evidence, ours: ImageInfo) -> None:
    take_in(evidence, FOUND)
    evidence.set_info("a", ours)
    assert take_in(evidence, FOUND).changed == 1
    assert known(evidence) == {"a": (SEEN, (CAT,), None)}


def test_new_findings_about_an_image_reopen_it_and_the_same_do_not(three: Evidence) -> None:
    three.set_info("a", SEEN)
    assert known(three)["a"] == (SEEN, None, b"hash")
    three.set_info("a", UNREADABLE)
    assert known(three)["a"] == (UNREADABLE, None, None)


def test_pages_go_on_where_they_were_while_rows_are_written(evidence: Evidence) -> None:
    count = 2 * module.PAGE + 10
    take_in(evidence, *(image(f"{number:05d}") for number in range(count)))
    ids: list[str] = []
    for item, _ in evidence.iter_items():
        evidence.set_info(item.image.id, SEEN)
        evidence.set_completed(item.image.id, b"hash")
        if len(ids) % 1500 == 0:
            evidence.commit()
        ids.append(item.image.id)
    assert ids == [f"{number:05d}" for number in range(count)]


def test_the_revision_counts_commits_that_a_table_could_show(three: Evidence) -> None:
    start = three.revision
    three.commit()
    three.set_meta("table", {"rows": 3}, revises=False)
    three.start_run("candidates", "1.0")
    three.end_run({"rows": 3})
    three.commit()
    assert three.revision == start
    changes = (
        lambda: three.set_meta("plan", {}),
        lambda: three.set_info("c", SEEN),
        lambda: three.set_completed("c", b"m"),
        lambda: three.record(b"k", Response("cat")),
        lambda: three.record(b"f", Response(failure=Failure("timeout", ""))),
        lambda: take_in(three, image("a"), image("b")),
        lambda: take_in(three, image("b"), image("a")),
    )
    for number, change in enumerate(changes, start=1):
        change()
        three.commit()
        assert three.revision == start + number


def test_an_exception_undoes_what_was_not_committed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.evidence"

    def fail() -> None:
        with Evidence(path) as evidence:
            evidence.set_meta("plan", {"labels": 2})
            take_in(evidence, image("a"))
            raise TableError("unusable")

    with pytest.raises(TableError, match="unusable"):
        fail()
    assert snapshot(tmp_path) == {}
    with Evidence(path) as evidence:
        evidence.set_meta("plan", {"labels": 1})
    before = snapshot(tmp_path)
    with pytest.raises(TableError, match="unusable"):
        fail()
    assert snapshot(tmp_path) == before


def test_a_run_is_on_record_with_its_engine_and_times(tmp_path: Path) -> None:
    path = tmp_path / "a.evidence"
    for number in range(2):
        with Evidence(path) as evidence:
            evidence.start_run("candidates", "0.1.0", None if number else "vllm 0.32.0")
            if number:
                evidence.set_run_engine("vllm 0.33.0")
            evidence.record(bytes([number]), Response("cat"))
            evidence.end_run({"rows": number})
    reports = evidence_rows(path, "SELECT id, command, version, engine, ended >= started, report FROM run")
    assert reports == [
        (1, "candidates", "0.1.0", "vllm 0.32.0", 1, '{"rows": 0}'),
        (2, "candidates", "0.1.0", "vllm 0.33.0", 1, '{"rows": 1}'),
    ]
    assert evidence_rows(path, "SELECT hex(key), run FROM response") == [("00", 1), ("01", 2)]


@pytest.mark.parametrize(
    ("damage", "read"),
    [
        ("UPDATE meta SET value = '{\"arms' WHERE key = 'plan'", lambda evidence: evidence.meta("plan")),
        ("UPDATE meta SET value = '\"x\"' WHERE key = 'revision'", lambda evidence: evidence.revision),
        ("UPDATE image SET proposed = '[[1]]'", known),
        ("UPDATE image SET proposed = '[[['", to_do),
        ("DROP TABLE response", lambda evidence: evidence.responses([b"k"])),
    ],
)
def test_content_that_makes_no_sense_is_damage_and_no_traceback(tmp_path: Path, damage: str, read: Any) -> None:
    path = tmp_path / "a.evidence"
    with Evidence(path) as evidence:
        take_in(evidence, FOUND)
        evidence.set_meta("plan", {})
        evidence.record(b"k", Response("cat"))
    with closing(sqlite3.connect(path)) as database:
        database.execute(damage)
        database.commit()

    def look() -> None:
        with Evidence(path) as evidence:
            read(evidence)

    with pytest.raises(TableError, match=r"a\.evidence is damaged: ") as raised:
        look()
    assert "backup" in raised.value.hint


def edited(path: Path, statement: str) -> Evidence:
    """Close the file's rows under a program that knows nothing of checksums, and open it again."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)
        database.commit()
    return Evidence(path)


@pytest.mark.parametrize(
    "damage",
    [
        "text = 'cat, dot'",
        "text = CAST(x'ff80' AS TEXT)",
        "finish = 'stoq'",
        "logprobs = NULL",
        "finish = x'73746f70'",
        "logprobs = '{'",
        "prompt_tokens = 61",
        "run = 3",
        "checksum = x'00'",
        "checksum = NULL",
    ],
)
def test_a_response_that_is_not_what_was_written_counts_as_not_on_record(tmp_path: Path, damage: str) -> None:
    path, answer = tmp_path / "a.evidence", Response("cat, dog", "stop", {"yes": -0.5}, 60, 30, 5)
    with Evidence(path) as evidence:
        evidence.record(b"k", answer)
        evidence.record(b"other", answer)
    with edited(path, f"UPDATE response SET {damage} WHERE key = x'6b'") as evidence:
        assert evidence.responses([b"k", b"other"]) == [None, answer]
        assert evidence.answered([b"k", b"other"]) == {b"other"}
        evidence.record(b"k", Response("asked again"))
        evidence.record(b"other", Response("asked again"))
        assert evidence.responses([b"k", b"other"]) == [Response("asked again"), answer]


@pytest.mark.parametrize("damage", ["kind = 'timeous'", "message = 'no'", "run = 2"])
def test_so_does_a_failed_request(tmp_path: Path, damage: str) -> None:
    path, failed = tmp_path / "a.evidence", Response(failure=Failure("timeout", "no answer"))
    with Evidence(path) as evidence:
        evidence.record(b"k", failed)
    with edited(path, f"UPDATE failed_request SET {damage}") as evidence:
        assert evidence.responses([b"k"]) == [None]
        evidence.record(b"k", failed)
        assert evidence.responses([b"k"]) == [failed]


IMAGE_DAMAGE = [
    "id = 'x'", "position = 7", "uri = 'x'", "version = ''", "fingerprint = x'00'", "width = 31", "height = NULL",
    "error_kind = 'x'", "error = 'x'", "proposed = '[]'", "completed = x'00'", "revision = 0", "checksum = NULL",
]  # fmt: skip


@pytest.mark.parametrize("damage", IMAGE_DAMAGE)
def test_a_damaged_image_comes_anew_with_the_listing(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.evidence"
    with Evidence(path) as evidence:
        take_in(evidence, image("a"), image("b"))
        evidence.set_info("a", SEEN)
        evidence.set_info("b", SEEN)
        evidence.commit()
        revision = evidence.revision
    with edited(path, f"UPDATE image SET {damage} WHERE id = 'b'") as evidence:
        with pytest.raises(TableError, match="damaged: the row of an image is not what was written"):
            evidence.check_images(complete=False)
        evidence.list_images(enumerate((image("a"), image("b"))))
        assert evidence.check_images(complete=True) == 1
        evidence.merge(complete=True, by_hash=False)
        evidence.commit()
        assert known(evidence) == {"a": (SEEN, None, None), "b": (None, None, None)}
        assert changed_since(evidence, revision) == {"b"}
        assert evidence.check_images(complete=False) == 0


def test_a_damaged_image_that_is_not_listed_may_still_be_there(three: Evidence, tmp_path: Path) -> None:
    three.commit()
    copy = tmp_path / "copy.evidence"
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).write_bytes((tmp_path / f"a.evidence{suffix}").read_bytes())
    with edited(copy, "UPDATE image SET uri = 'x' WHERE id = 'b'") as evidence:
        evidence.list_images([(0, image("a"))])
        with pytest.raises(TableError, match="is damaged"):
            evidence.check_images(complete=False)
        evidence.list_images([(0, image("b"))])
        assert evidence.check_images(complete=False) == 1


def test_a_damaged_entry_is_named_and_one_that_is_derived_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "a.evidence"
    with Evidence(path) as evidence:
        evidence.set_meta("table", {"rows": 3})
    with edited(path, """UPDATE meta SET value = '{"rows": 4}' WHERE key = 'table'""") as evidence:
        assert evidence.meta("table", derived=True) is None
        with pytest.raises(TableError, match="damaged: the entry 'table' is not what was written"):
            evidence.meta("table")
        assert evidence.meta("nothing") is None
        evidence.set_meta("table", {"rows": 3})
        assert evidence.meta("table") == {"rows": 3}


def steps_of_set_info(images: int) -> int:
    """Return how many hundreds of steps SQLite's virtual machine takes for one image of so many listed ones."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connections: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def connected(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connections.append(connect(*arguments, **options))
        return connections[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", connected)
        with Evidence(None) as evidence:
            take_in(evidence, *(image(f"{number:05d}") for number in range(images)))
            connections[0].set_progress_handler(count, 100)
            evidence.set_info("00003", SEEN)
            connections[0].set_progress_handler(None, 0)
    return steps


def test_what_an_image_costs_does_not_depend_on_how_many_there_are() -> None:
    assert steps_of_set_info(2000) <= steps_of_set_info(20) + 3


def test_evidence_that_can_only_be_read_takes_a_listing_without_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.evidence"
    with Evidence(path) as evidence:
        take_in(evidence, image("a"), image("b"))
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with Evidence(path) as evidence:
        take_in(evidence, image("a"), image("b"))

    def change() -> None:
        with Evidence(path) as evidence:
            take_in(evidence, image("a"))

    with pytest.raises(TableError, match="cannot be written, and there is something to record"):
        change()
