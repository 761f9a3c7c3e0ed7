"""The file under the evidence: whose it is, who holds it, and what a crash or a full disk leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tagllm_cli.errors import TableError
from tagllm_cli.store.sqlite import Layout, SQLiteFile
from tests.support.workspace import snapshot


def to_format_2(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE remark RENAME TO note")


OLD = Layout(0x01020304, ("CREATE TABLE remark (text TEXT)",))
LAYOUT = Layout(
    0x01020304, ("CREATE TABLE note (text TEXT)",), ("CREATE TEMP TABLE scratch (text TEXT)",), (to_format_2,)
)
# Opens a file, commits one note, writes another, says so and waits for the end of its input.
HOLDER = """
import sys
from pathlib import Path
from tagllm_cli.store.sqlite import SQLiteFile
from tests.store.test_sqlite import LAYOUT
file = SQLiteFile(Path(sys.argv[1]), LAYOUT)
file.query("INSERT INTO note VALUES ('committed')")
file.commit()
file.query("INSERT INTO note VALUES ('not committed')")
print("held", flush=True)
sys.stdin.read()
"""


def notes(path: Path) -> list[str]:
    file = SQLiteFile(path, LAYOUT)
    try:
        return [text for (text,) in file.query("SELECT text FROM note ORDER BY rowid")]
    finally:
        file.close()


def closed(path: Path) -> Path:
    file = SQLiteFile(path, LAYOUT)
    file.query("INSERT INTO note VALUES ('kept')")
    file.close()
    return path


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the file `a.evidence` open."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "a.evidence")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_what_is_committed_stays(tmp_path: Path) -> None:
    file = SQLiteFile(tmp_path / "new" / "a.evidence", LAYOUT)
    file.insert("INSERT INTO note VALUES (?)", [("one",), ("two",)])
    file.commit()
    file.query("INSERT INTO note VALUES ('three')")
    file.rollback()
    file.query("INSERT INTO scratch VALUES ('gone with the process')")
    file.close()
    assert notes(tmp_path / "new" / "a.evidence") == ["one", "two"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.evidence"]


def test_in_memory_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = SQLiteFile(None, LAYOUT)
    file.query("INSERT INTO note VALUES ('x')")
    file.commit()
    file.abandon()
    assert snapshot(tmp_path) == {}


def test_a_run_that_could_not_begin_leaves_no_trace(tmp_path: Path) -> None:
    file = SQLiteFile(tmp_path / "some" / "where" / "a.evidence", LAYOUT)
    file.query("INSERT INTO note VALUES ('x')")
    file.abandon()
    assert snapshot(tmp_path) == {}


def test_abandoning_a_file_that_was_there_leaves_its_bytes(tmp_path: Path) -> None:
    path = closed(tmp_path / "a.evidence")
    before = snapshot(tmp_path)
    file = SQLiteFile(path, LAYOUT)
    file.query("DELETE FROM note")
    file.abandon()
    assert snapshot(tmp_path) == before


def test_a_second_process_says_so_and_leaves(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(TableError, match=r"another tagllm is writing .*a\.evidence"):
        SQLiteFile(tmp_path / "a.evidence", LAYOUT)
    holder.communicate("")
    assert notes(tmp_path / "a.evidence") == ["committed"]


def test_a_killed_process_leaves_no_lock_and_what_it_committed(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert notes(tmp_path / "a.evidence") == ["committed"]


def test_an_empty_file_of_a_killed_creator_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "a.evidence").touch()
    closed(tmp_path / "a.evidence")
    assert notes(tmp_path / "a.evidence") == ["kept"]


def foreign_wal(path: Path) -> None:
    """Leave a foreign database with a write-ahead log, as a crashed program does: opening it would change both."""
    database = sqlite3.connect(path.with_name("theirs"))
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE note (text TEXT)")
    for suffix in ("", "-wal"):
        path.with_name(path.name + suffix).write_bytes(path.with_name("theirs" + suffix).read_bytes())
    database.close()


def newer(path: Path) -> None:
    closed(path)
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 3")
    database.close()


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (lambda path: path.write_text("name,label\n" * 20), "is not an evidence file"),
        (lambda path: path.mkdir(), "is not a regular file"),
        (os.mkfifo, "is not a regular file"),
        (foreign_wal, "is an SQLite file, but no evidence"),
        (newer, r"by a newer tagllm \(format 3\)"),
    ],
    ids=["text", "folder", "fifo", "database", "newer"],
)
def test_what_is_not_ours_is_left_alone(tmp_path: Path, put: Callable[[Path], object], said: str) -> None:
    path = tmp_path / "a.evidence"
    put(path)
    before = snapshot(tmp_path)
    with pytest.raises(TableError, match=said):
        SQLiteFile(path, LAYOUT)
    assert snapshot(tmp_path) == before


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TableError, match="cannot make the folder"):
        SQLiteFile(tmp_path / "file" / "a.evidence", LAYOUT)
    with pytest.raises(TableError, match="unable to open database file"):
        SQLiteFile(Path("/proc/a.evidence"), LAYOUT)
    assert sorted(snapshot(tmp_path)) == ["file"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = closed(tmp_path / "a.evidence")
    data = bytearray(path.read_bytes())
    data[100:] = os.urandom(len(data) - 100)
    path.write_bytes(data)
    with pytest.raises(TableError, match=r"a\.evidence is damaged"):
        SQLiteFile(path, LAYOUT)


def test_a_full_disk_is_one_clear_error_and_loses_nothing_committed(tmp_path: Path) -> None:
    file = SQLiteFile(tmp_path / "a.evidence", LAYOUT)
    file.query("INSERT INTO note VALUES ('kept')")
    file.commit()
    file.query("PRAGMA max_page_count = 8")
    with pytest.raises(TableError, match="database or disk is full") as raised:
        file.insert("INSERT INTO note VALUES (?)", [("x" * 1000,)] * 100)
    assert "free space" in raised.value.hint
    file.rollback()
    file.close()
    assert notes(tmp_path / "a.evidence") == ["kept"]


def old_file(path: Path) -> Path:
    file = SQLiteFile(path, OLD)
    file.query("INSERT INTO remark VALUES ('old')")
    file.close()
    return path


def test_an_older_format_is_migrated_when_it_is_opened(tmp_path: Path) -> None:
    path = old_file(tmp_path / "a.evidence")
    assert notes(path) == ["old"]
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)
    with pytest.raises(TableError, match="newer tagllm"):
        SQLiteFile(path, OLD)


def test_a_migration_that_fails_leaves_the_older_format(tmp_path: Path) -> None:
    path = old_file(tmp_path / "a.evidence")

    def fail(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM remark")
        db.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(TableError, match="no such table: nowhere"):
        SQLiteFile(path, Layout(0x01020304, (), (), (fail,)))
    assert notes(path) == ["old"]


@pytest.mark.parametrize("version", [0, -1])
def test_a_format_that_never_was_is_damage(tmp_path: Path, version: int) -> None:
    path = closed(tmp_path / "a.evidence")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(TableError, match=f"damaged: it has format {version}"):
        SQLiteFile(path, LAYOUT)


def test_bytes_that_are_no_text_are_damage_and_no_traceback(tmp_path: Path) -> None:
    path = closed(tmp_path / "a.evidence")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("INSERT INTO note VALUES (CAST(x'ff80' AS TEXT))")
        database.commit()
    with pytest.raises(TableError, match=r"a\.evidence is damaged: Could not decode"):
        notes(path)


@pytest.mark.parametrize("flipped", range(16, 100, 3))
def test_a_flipped_byte_in_the_header_is_never_a_traceback(tmp_path: Path, flipped: int) -> None:
    path = closed(tmp_path / "a.evidence")
    data = bytearray(path.read_bytes())
    data[flipped] ^= 0xFF
    path.write_bytes(data)
    with contextlib.suppress(TableError):
        notes(path)


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk cannot be written, whoever runs this."""
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)


def test_on_a_disk_that_cannot_be_written_a_file_is_read(tmp_path: Path, read_only: None) -> None:
    path = closed(tmp_path / "a.evidence")
    before = snapshot(tmp_path)
    file = SQLiteFile(path, LAYOUT)
    assert file.query("SELECT text FROM note") == [("kept",)]
    file.query("INSERT INTO scratch VALUES ('temporary')")
    file.close()
    file = SQLiteFile(path, LAYOUT)
    with pytest.raises(TableError, match="cannot be written, and there is something to record") as raised:
        file.query("INSERT INTO note VALUES ('new')")
    file.abandon()
    assert "disk that can be written" in raised.value.hint
    assert snapshot(tmp_path) == before


def test_there_an_older_format_is_refused_in_words(tmp_path: Path, read_only: None) -> None:
    path = old_file(tmp_path / "a.evidence")
    with pytest.raises(TableError, match="by an older tagllm and cannot be changed here"):
        SQLiteFile(path, LAYOUT)


def test_an_sqlite_that_is_too_old_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 22, 0))
    with pytest.raises(TableError, match=r"Python uses SQLite .*, and tagllm needs 3\.26\.0"):
        SQLiteFile(tmp_path / "a.evidence", LAYOUT)
    assert snapshot(tmp_path) == {}
