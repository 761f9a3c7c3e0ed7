"""Merging tables of parts, made without a run: what comes from which part, in which order, and what is refused."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tagllm_cli.errors import TableError
from tagllm_cli.records import SourceInfo
from tagllm_cli.store.evidence_layout import LAYOUT
from tagllm_cli.store.merge.merge import merge_tables
from tagllm_cli.store.merge.parts import evidence_of
from tagllm_cli.store.sqlite import SQLiteFile
from tagllm_cli.store.table import ROWS_PER_GROUP, open_table
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tests.support.parts import FOLDER, Maker, Picture
from tests.support.workspace import evidence_rows, snapshot

MAKER = Maker()
PICTURES = [Picture(f"{number:03d}.jpg", number) for number in range(60)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "merged.parquet"


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return make_parts(tmp_path, 4)


def make_parts(folder: Path, count: int) -> list[Path]:
    (folder / "parts").mkdir()
    return [
        MAKER.make(folder / f"parts/p{number}.parquet", PICTURES[number::count], started=float(number))
        for number in range(count)
    ]


def rows(table: Path) -> dict[str, Any]:
    return {row.image_id: row for row in open_table(table).rows()}


def texts(out: Path) -> dict[bytes, str]:
    return dict(evidence_rows(evidence_of(out), "SELECT key, text FROM response"))


def everything(out: Path) -> dict[str, list[Any]]:
    """What a table and its evidence say, but for how SQLite arranges it and for the states of files."""
    names = ("image", "shard", "response", "failed_request", "run", "human_decision", "label_set")
    said = {name: evidence_rows(evidence_of(out), f"SELECT * FROM {name} ORDER BY 1") for name in names}
    meta = evidence_rows(evidence_of(out), "SELECT key, value FROM meta WHERE key != 'merged' ORDER BY 1")
    return {**said, "meta": meta, "table": [out.read_bytes()]}


# -- order and rows ----------------------------------------------------------------------------------------------------


def test_parts_of_a_folder_make_the_bytes_of_one_run(tmp_path: Path, parts: list[Path], out: Path) -> None:
    whole = MAKER.make(tmp_path / "whole.parquet", PICTURES)
    summary = merge_tables(out, parts)
    assert out.read_bytes() == whole.read_bytes()
    assert (summary.rows, summary.added.images, summary.added.responses) == ({"ok": 60}, 60, 120)
    assert summary.warnings == []


def test_parts_of_shards_make_the_bytes_of_one_run(tmp_path: Path, out: Path) -> None:
    shards = [
        [Picture(f"{shard}.tar/{number}.jpg", number, f"{shard}.tar") for number in range(11)] for shard in range(6)
    ]
    versions = {f"{shard}.tar": f"v{shard}" for shard in range(6)}
    whole = MAKER.make(tmp_path / "whole.parquet", [picture for shard in shards for picture in shard], shards=versions)
    parts = [
        MAKER.make(
            tmp_path / f"{part}.parquet",
            [picture for shard in which for picture in shards[shard]],
            shards={f"{shard}.tar": f"v{shard}" for shard in which},
        )
        for part, which in enumerate([(4, 0), (5, 1, 2), (3,)])
    ]
    merge_tables(out, parts)
    assert out.read_bytes() == whole.read_bytes()
    for table in ("image", "shard"):
        columns = {"image": "id, position, shard, checksum", "shard": "*"}[table]
        query = f"SELECT {columns} FROM {table} ORDER BY 1"
        if table == "image":  # the revision counts commits, which differ
            query = query.replace(", checksum", "")
        assert evidence_rows(evidence_of(out), query) == evidence_rows(evidence_of(whole), query)


def test_rows_of_several_row_groups_are_taken_in_any_order(tmp_path: Path, out: Path) -> None:
    count = ROWS_PER_GROUP + 3_000
    pictures = [Picture(f"{number:05d}.jpg", number, labels=(), answers=()) for number in range(count)]
    even, odd = pictures[::2], pictures[1::2]
    moved = [replace(each, position=count - each.position) for each in odd]  # the table has them the other way round
    parts = [MAKER.make(tmp_path / "even.parquet", even), MAKER.make(tmp_path / "odd.parquet", moved, rows=odd)]
    merge_tables(out, parts)
    names = [each.id for each in sorted([*even, *moved], key=lambda each: (each.position, each.id))]
    assert [row.image_id for row in open_table(out).rows()] == names


def test_label_tables_of_several_candidate_tables_are_ordered_by_path(tmp_path: Path, out: Path) -> None:
    labels = replace(MAKER, stage="labels", derivation={"threshold": 0.5})
    names = ["a/2.jpg", "a-b.jpg", "a/10.jpg", "b.jpg", "a/1.jpg"]
    first = [Picture(name, number) for number, name in enumerate(["a/10.jpg", "a-b.jpg", "b.jpg"])]
    second = [Picture(name, number) for number, name in enumerate(["a/1.jpg", "a/2.jpg"])]
    parts = [labels.make(tmp_path / f"{n}.parquet", each) for n, each in enumerate([first, second])]
    merge_tables(out, parts)
    order = sorted(names, key=lambda name: name.split("/"))
    assert order == ["a/1.jpg", "a/10.jpg", "a/2.jpg", "a-b.jpg", "b.jpg"]
    assert list(rows(out)) == order
    assert evidence_rows(evidence_of(out), "SELECT id FROM image ORDER BY position") == [(name,) for name in order]
    third = labels.make(tmp_path / "3.parquet", [Picture("a/15.jpg", 0)])
    merge_tables(out, [*parts, third])
    assert list(rows(out)) == sorted([*names, "a/15.jpg"], key=lambda name: name.split("/"))


def test_label_tables_of_one_candidate_table_keep_its_order(tmp_path: Path, out: Path) -> None:
    labels = replace(MAKER, stage="labels", derivation={"threshold": 0.5})
    names = ["z.jpg", "a.jpg", "m.jpg"]
    pictures = [Picture(name, number) for number, name in enumerate(names)]
    merge_tables(out, [labels.make(tmp_path / f"{n}.parquet", pictures[n::2]) for n in range(2)])
    assert list(rows(out)) == names


def test_an_image_without_a_row_becomes_pending_and_a_row_without_an_image_is_dropped(
    tmp_path: Path, out: Path
) -> None:
    unread = Picture("c.jpg", 2, status="pending", answers=())
    broken = Picture("d.jpg", 3, status="failed", answers=())
    known, gone = Picture("a.jpg", 0), Picture("gone.jpg", 1)
    part = MAKER.make(tmp_path / "p.parquet", [known, unread, broken], rows=[known, gone])
    summary = merge_tables(out, [part])
    found = rows(out)
    assert {name: row.status.value for name, row in found.items()} == {
        "a.jpg": "ok",
        "c.jpg": "pending",
        "d.jpg": "failed",
    }
    assert found["d.jpg"].error == "truncated_file: it ends early"
    assert any("older than its evidence" in warning for warning in summary.warnings)


# -- the same thing in several parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_an_image_in_two_parts_the_row_that_says_more_counts(
    tmp_path: Path, out: Path, order: tuple[int, int]
) -> None:
    pictures = [Picture("a.jpg", status="partial", content="old"), Picture("a.jpg", content="new")]
    parts = [MAKER.make(tmp_path / f"{n}.parquet", [each]) for n, each in enumerate(pictures)]
    summary = merge_tables(out, [parts[number] for number in order])
    assert (rows(out)["a.jpg"].fingerprint, summary.added.conflicts) == (pictures[1].fingerprint, 1)
    assert evidence_rows(evidence_of(out), "SELECT fingerprint FROM image") == [(pictures[1].fingerprint,)]


def test_of_equal_rows_the_first_counts_and_the_output_is_first_of_all(tmp_path: Path, out: Path) -> None:
    parts = [MAKER.make(tmp_path / f"{n}.parquet", [Picture("a.jpg", content=str(n))]) for n in range(3)]
    merge_tables(out, [parts[1]])
    merge_tables(out, [parts[0], parts[2]])
    assert rows(out)["a.jpg"].fingerprint == Picture("", content="1").fingerprint


def test_a_part_that_was_finished_later_brings_the_output_up_to_date(tmp_path: Path, out: Path) -> None:
    part = tmp_path / "p.parquet"
    MAKER.make(part, [Picture("a.jpg", status="pending", answers=()), Picture("b.jpg", 1)])
    merge_tables(out, [part])
    evidence_of(part).unlink()
    MAKER.make(part, [Picture("a.jpg"), Picture("b.jpg", 1)])
    summary = merge_tables(out, [part])
    assert (summary.rows, summary.added.replaced, summary.added.images) == ({"ok": 2}, 1, 0)


def test_the_first_answer_wins_unless_it_is_damaged(tmp_path: Path, out: Path) -> None:
    parts = [
        MAKER.make(tmp_path / f"{n}.parquet", [Picture("a.jpg", answers=(f"{n}", f"{n}"))], started=n) for n in range(3)
    ]
    picture = Picture("a.jpg")
    with sqlite3.connect(evidence_of(parts[0])) as db:
        db.execute("UPDATE response SET text = 'flipped' WHERE key = ?", (picture.key(1),))
    db.close()
    summary = merge_tables(out, parts)
    assert texts(out) == {picture.key(0): "0", picture.key(1): "1"}
    assert summary.added.damaged_responses == 1
    assert any("damaged" in warning for warning in summary.warnings)
    # A damaged answer of the output gives way as well.
    with sqlite3.connect(evidence_of(out)) as db:
        db.execute("UPDATE response SET text = 'flipped' WHERE key = ?", (picture.key(0),))
    db.close()
    parts.append(MAKER.make(tmp_path / "3.parquet", [Picture("a.jpg", answers=("3", "3"))]))
    merge_tables(out, parts)
    assert texts(out) == {picture.key(0): "3", picture.key(1): "1"}


def test_a_failed_request_is_taken_over_only_where_there_is_no_answer(tmp_path: Path, out: Path) -> None:
    asked = Picture("a.jpg", answers=(), failed=("one", "two"))
    part = MAKER.make(tmp_path / "0.parquet", [asked])
    merge_tables(out, [part])
    query = "SELECT key, message FROM failed_request ORDER BY message"
    assert evidence_rows(evidence_of(out), query) == [(asked.key(100), "one"), (asked.key(101), "two")]
    other = MAKER.make(tmp_path / "1.parquet", [Picture("a.jpg", answers=("",) * 101)])
    merge_tables(out, [part, other])
    assert evidence_rows(evidence_of(out), query) == [(asked.key(101), "two")]


def test_answers_name_the_run_that_recorded_them(parts: list[Path], out: Path) -> None:
    merge_tables(out, parts)
    query = "SELECT r.started, count(*) FROM response JOIN run r ON r.id = run GROUP BY 1 ORDER BY 1"
    assert evidence_rows(evidence_of(out), query) == [(float(number), 30) for number in range(4)]


def test_a_shard_counts_as_known_only_with_all_its_images(tmp_path: Path, out: Path) -> None:
    whole = [Picture(f"a.tar/{number}", number, "a.tar") for number in range(3)]
    other = Picture("b.tar/0", 0, "b.tar")
    first = MAKER.make(tmp_path / "0.parquet", [*whole, other], shards={"a.tar": "1", "b.tar": "1"})
    changed = MAKER.make(tmp_path / "1.parquet", [Picture("b.tar/1", 1, "b.tar")], shards={"b.tar": "2"})
    merge_tables(out, [first])
    assert evidence_rows(evidence_of(out), "SELECT name, version FROM shard") == [("a.tar", "1"), ("b.tar", "1")]
    merge_tables(out, [first, changed])
    assert evidence_rows(evidence_of(out), "SELECT name, version FROM shard") == [("a.tar", "1")]


# -- again -------------------------------------------------------------------------------------------------------------


def test_the_same_merge_again_changes_nothing(parts: list[Path], out: Path) -> None:
    merge_tables(out, parts)
    before, state = everything(out), out.stat()
    summary = merge_tables(out, parts)
    assert (summary.unchanged, summary.added.is_nothing, summary.rows) == (4, True, {"ok": 60})
    assert everything(out) == before
    assert out.stat() == state


def test_a_merge_after_more_parts_arrived_adds_those(tmp_path: Path, parts: list[Path], out: Path) -> None:
    merge_tables(out, parts[:2])
    summary = merge_tables(out, parts)
    assert (summary.unchanged, summary.added.images, summary.added.runs) == (2, 30, 2)
    at_once = tmp_path / "at-once" / "merged.parquet"
    merge_tables(at_once, parts)
    for table in ("image", "response", "run"):
        columns = {"image": "id, position, uri, fingerprint", "response": "key, text, run", "run": "*"}[table]
        query = f"SELECT {columns} FROM {table} ORDER BY 1"
        assert evidence_rows(evidence_of(out), query) == evidence_rows(evidence_of(at_once), query)
    assert out.read_bytes() == at_once.read_bytes()


def test_rows_that_the_output_lost_come_from_the_parts_again(parts: list[Path], out: Path) -> None:
    merge_tables(out, parts[:3])
    shutil.copyfile(parts[0], out)
    summary = merge_tables(out, parts)
    assert (summary.rows, len(rows(out))) == ({"ok": 60}, 60)


def test_an_output_whose_table_was_removed_gets_it_again(parts: list[Path], out: Path) -> None:
    merge_tables(out, parts)
    before = out.read_bytes()
    out.unlink()
    merge_tables(out, parts)
    assert out.read_bytes() == before


def test_the_same_table_twice_is_harmless(parts: list[Path], out: Path, tmp_path: Path) -> None:
    link = tmp_path / "parts" / "link.parquet"
    link.symlink_to(parts[0])
    summary = merge_tables(out, [*parts, parts[1], link])
    assert (summary.parts, summary.rows) == (4, {"ok": 60})


def test_the_next_run_makes_the_table_anew(parts: list[Path], out: Path) -> None:
    merge_tables(out, parts[:1])
    file = SQLiteFile(evidence_of(out), LAYOUT)
    file.query("INSERT INTO meta (key, value) VALUES ('table', '{}')")
    file.close()
    with pytest.raises(TableError, match="damaged"):  # without a checksum
        merge_tables(out, parts[:2])
    with sqlite3.connect(evidence_of(out)) as db:
        db.execute("DELETE FROM meta WHERE key = 'table'")
    db.close()
    merge_tables(out, parts[:2])
    assert "table" not in dict(evidence_rows(evidence_of(out), "SELECT key, value FROM meta"))


# -- inputs as they are found ------------------------------------------------------------------------------------------


def test_the_parts_stay_as_they_are(tmp_path: Path, parts: list[Path], out: Path) -> None:
    before = snapshot(tmp_path / "parts")
    merge_tables(out, parts)
    assert snapshot(tmp_path / "parts") == before
    assert sorted(path.name for path in out.parent.iterdir()) == ["merged.evidence", "merged.parquet"]


def test_answers_in_a_log_that_a_killed_process_left_are_read(tmp_path: Path, parts: list[Path], out: Path) -> None:
    file = SQLiteFile(evidence_of(parts[0]), LAYOUT)
    file.query("DELETE FROM response")
    file.commit()
    killed = tmp_path / "killed"
    killed.mkdir()
    for path in parts[0].parent.glob("p0.*"):
        shutil.copyfile(path, killed / path.name)
    file.close()
    assert (killed / "p0.evidence-wal").stat().st_size
    before = snapshot(killed)
    assert merge_tables(out, [killed / "p0.parquet"]).added.responses == 0
    assert snapshot(killed) == before


def test_a_damaged_log_is_refused_because_it_hides_answers(tmp_path: Path, parts: list[Path], out: Path) -> None:
    file = SQLiteFile(evidence_of(parts[0]), LAYOUT)
    for _ in range(3):
        file.query("UPDATE run SET started = started + 1")
        file.commit()
    log = Path(f"{evidence_of(parts[0])}-wal")
    data = bytearray(log.read_bytes())
    file.close()
    data[100] ^= 1
    log.write_bytes(data)
    with pytest.raises(TableError, match=r"the log p0\.evidence-wal is damaged"):
        merge_tables(out, parts)


def test_evidence_of_an_older_format_is_read_from_a_copy(tmp_path: Path, parts: list[Path], out: Path) -> None:
    with sqlite3.connect(evidence_of(parts[0])) as db:  # format 3
        db.execute("DROP INDEX image_position")
        db.execute("CREATE INDEX image_position ON image (position, id)")
        for table in ("shard", "human_decision", "label_set"):
            db.execute(f"DROP TABLE {table}")
        db.execute("ALTER TABLE image DROP COLUMN shard")
        db.create_function("checksum", 1, LAYOUT.functions["checksum"])
        from tagllm_cli.store.checksums import set_checksums
        from tagllm_cli.store.migrations import _IMAGE_3

        db.execute(set_checksums("image", _IMAGE_3))
        db.execute("PRAGMA user_version = 3")
    db.close()
    before = snapshot(tmp_path / "parts")
    merge_tables(out, parts)
    assert len(rows(out)) == 60
    assert snapshot(tmp_path / "parts") == before


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process writes this evidence file."""
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()

    def hold() -> None:
        file = SQLiteFile(path, LAYOUT)
        file.query("UPDATE run SET report = '{}'")
        ready.set()
        done.wait(30)
        file.abandon()

    process = context.Process(target=hold)
    process.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        done.set()
        process.join()


def test_a_part_that_is_being_written_is_refused_in_words(parts: list[Path], out: Path) -> None:
    with held(evidence_of(parts[2])), pytest.raises(TableError, match=r"another tagllm is writing .*p2\.evidence"):
        merge_tables(out, parts)
    assert not out.parent.exists()
    assert merge_tables(out, parts).rows == {"ok": 60}


def test_an_output_that_is_being_written_is_refused_in_words(parts: list[Path], out: Path) -> None:
    merge_tables(out, parts[:1])
    with held(evidence_of(out)), pytest.raises(TableError, match=r"another tagllm is writing .*merged\.evidence"):
        merge_tables(out, parts)


def test_an_interrupt_leaves_the_output_as_it_was(tmp_path: Path, parts: list[Path], out: Path) -> None:
    merge_tables(out, parts[:2])
    before = everything(out)
    for step in ("tables", "responses", "images", "rows"):

        def interrupt(what: str, done: int, total: int, step: str = step) -> None:
            if what == step:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            merge_tables(out, parts, interrupt)
        assert everything(out) == before
        fresh = tmp_path / step / "merged.parquet"
        with pytest.raises(KeyboardInterrupt):
            merge_tables(fresh, parts, interrupt)
        assert not fresh.parent.exists()


def test_progress_comes_to_its_end_in_each_step(parts: list[Path], out: Path) -> None:
    ends: dict[str, tuple[int, int]] = {}
    merge_tables(out, parts, lambda what, done, total: ends.__setitem__(what, (done, total)))
    assert ends == {"tables": (60, 60), "responses": (120, 120), "images": (60, 60), "rows": (60, 60)}


# -- refusals ----------------------------------------------------------------------------------------------------------


def _without_evidence(part: Path) -> None:
    evidence_of(part).unlink()


def _newer(part: Path) -> None:
    with sqlite3.connect(evidence_of(part)) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def _of_another_program(part: Path) -> None:
    evidence_of(part).unlink()
    with sqlite3.connect(evidence_of(part)) as db:
        db.execute("CREATE TABLE other (id)")
    db.close()


def _truncated(part: Path) -> None:
    with evidence_of(part).open("r+b") as file:
        file.truncate(evidence_of(part).stat().st_size // 2)


def _flipped_image(part: Path) -> None:
    with sqlite3.connect(evidence_of(part)) as db:
        db.execute("UPDATE image SET fingerprint = x'00' WHERE id = '003.jpg'")
    db.close()


def _flipped_plan(part: Path) -> None:
    with sqlite3.connect(evidence_of(part)) as db:
        db.execute("UPDATE meta SET value = '{}' WHERE key = 'plan'")
    db.close()


def _text(part: Path) -> None:
    evidence_of(part).write_text("no database")


def _folder(part: Path) -> None:
    evidence_of(part).unlink()
    evidence_of(part).mkdir()


def _cut_table(part: Path) -> None:
    data = part.read_bytes()
    part.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_evidence, r"p3\.parquet is there, but its evidence p3\.evidence is not"),
        (_newer, r"p3\.evidence was written by a newer tagllm \(format 99\)"),
        (_of_another_program, r"p3\.evidence is not an evidence file"),
        (_text, r"p3\.evidence is not an evidence file"),
        (_folder, r"p3\.evidence is not a regular file"),
        (_truncated, r"p3\.evidence is damaged"),
        (_flipped_image, r"p3\.evidence is damaged: the row of an image"),
        (_flipped_plan, r"p3\.evidence is damaged: the entry 'plan'"),
        (_cut_table, r"p3\.parquet is not a Parquet file"),
    ],
)
def test_a_part_that_cannot_be_used_is_refused_and_nothing_has_changed(
    tmp_path: Path, parts: list[Path], out: Path, damage: Callable[[Path], None], message: str
) -> None:
    merge_tables(out, parts[:2])
    damage(parts[3])
    before = snapshot(tmp_path)
    with pytest.raises(TableError, match=message) as refused:
        merge_tables(out, parts)
    assert refused.value.hint.endswith(".")
    assert {name: data for name, data in snapshot(tmp_path).items() if "out/" not in name or ".parquet" in name} == {
        name: data for name, data in before.items() if "out/" not in name or ".parquet" in name
    }
    assert len(texts(out)) == 60


DIFFERENT = {
    r"the stage \(\"candidates\", \"labels\"\)": replace(MAKER, stage="labels"),
    r'the model \("qwen", "llava"\)': replace(MAKER, plan={"model": "llava"}),
    r"the files of the model": replace(MAKER, plan={"model_digest": "11" * 16}),
    r"--max-pixels \(1000, 2000\)": replace(MAKER, plan={"max_pixels": 2000}),
    r"the groups of labels": replace(MAKER, plan={"arms": {"disjoint": [["g", ["cat"]]]}}),
    r"the prompts": replace(MAKER, plan={"templates": {"candidates": {}}}),
    r"the vocabulary": replace(MAKER, vocabulary=Vocabulary("tiny", (Label("cat"),))),
    r"the ids of the labels": replace(MAKER, plan={"label_ids": {"cat": 1, "dog": 0}}),
    r"--min-votes \(1, 2\)": replace(MAKER, derivation={"min_votes": 2}),
    r"the concept cards": replace(MAKER, derivation={"min_votes": 1, "cards": "x"}),
    r'the source\'s kind \("folder", "tar"\)': replace(MAKER, source=SourceInfo("tar", FOLDER.uri)),
    r"the source's options": replace(MAKER, source=SourceInfo("folder", FOLDER.uri, {"exclude": ["*.gif"]})),
}


@pytest.mark.parametrize("words", DIFFERENT)
@pytest.mark.parametrize("into", ["a new table", "an earlier one", "one that was killed before it had a table"])
def test_tables_that_differ_are_refused_in_words(
    tmp_path: Path, parts: list[Path], out: Path, words: str, into: str
) -> None:
    other = DIFFERENT[words].make(tmp_path / "other.parquet", [Picture("new.jpg", 99)])
    inputs, first = [parts[0], other], "p0"
    if into != "a new table":
        merge_tables(out, parts[:1])
        inputs, first = [other], "merged"
    if into.startswith("one that"):
        out.unlink()
        if DIFFERENT[words].plan == MAKER.plan and DIFFERENT[words].vocabulary == MAKER.vocabulary:
            return  # known from the table alone
    with pytest.raises(TableError, match=words) as refused:
        merge_tables(out, inputs)
    assert f"{first}.parquet and " in refused.value.message
    assert "other.parquet cannot be merged: they differ in " in refused.value.message
    if into == "a new table":
        assert not out.parent.exists()
    else:
        assert len(texts(out)) == 30


def test_the_same_images_under_another_path_are_a_warning(tmp_path: Path, out: Path) -> None:
    sources = [SourceInfo("folder", f"/mnt/{node}/images") for node in "abc"]
    parts = [
        replace(MAKER, source=source).make(tmp_path / f"{n}.parquet", PICTURES[n::3])
        for n, source in enumerate(sources)
    ]
    summary = merge_tables(out, parts)
    assert open_table(out).info.source == sources[0]
    assert summary.warnings == [
        "the images were also read from /mnt/b/images and 1 more; the merged table names /mnt/a/images"
    ]


def test_a_table_that_is_older_than_its_plan_is_refused(parts: list[Path], out: Path) -> None:
    other = replace(MAKER, plan={"model": "llava"})
    evidence = other.make(parts[0].parent / "other.parquet", PICTURES[:1])
    shutil.copyfile(evidence_of(evidence), evidence_of(parts[0]))
    with pytest.raises(TableError, match=r"p0\.parquet is older than its evidence, whose plan has changed"):
        merge_tables(out, parts)


def test_the_output_is_no_input(parts: list[Path], out: Path) -> None:
    merge_tables(out, parts[:1])
    with pytest.raises(TableError, match="is OUT and one of the tables"):
        merge_tables(out, [*parts, out])


def test_an_output_without_evidence_is_refused(parts: list[Path], out: Path) -> None:
    out.parent.mkdir()
    shutil.copyfile(parts[0], out)
    with pytest.raises(TableError, match=r"is there, but its evidence merged\.evidence is not"):
        merge_tables(out, parts)
    assert [path.name for path in out.parent.iterdir()] == ["merged.parquet"]


def test_what_was_merged_is_on_record_without_paths(tmp_path: Path, parts: list[Path], out: Path) -> None:
    merge_tables(out, parts)
    (merged,) = evidence_rows(evidence_of(out), "SELECT value FROM meta WHERE key = 'merged'")[0]
    assert len(json.loads(merged)["parts"]) == 4
    assert str(tmp_path) not in merged
