"""A log that a killed process left: whole, torn at its end, or with commits that SQLite would leave out."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from tagllm_cli.store.write_ahead_log import loses_commits

COMMITS = 20
HEADER, FRAME = 32, 24 + 4096


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database without its process; every row is a commit of its own, all of them in the log."""
    origin = tmp_path / "origin"
    with contextlib.closing(sqlite3.connect(origin, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (number INTEGER)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for number in range(COMMITS):
            connection.execute("INSERT INTO t VALUES (?)", (number,))
        for suffix in ("", "-wal"):
            (tmp_path / f"copy{suffix}").write_bytes((tmp_path / f"origin{suffix}").read_bytes())
    return tmp_path / "copy"


def rows(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM t").fetchone()
    return int(count)


def log(database: Path) -> Path:
    return database.with_name("copy-wal")


def test_a_whole_log_loses_nothing(database: Path) -> None:
    assert log(database).stat().st_size == HEADER + COMMITS * FRAME
    assert not loses_commits(database)
    assert rows(database) == COMMITS


@pytest.mark.parametrize("place", [HEADER + 5, HEADER + 9, HEADER + 17, HEADER + 200, HEADER + 7 * FRAME + 4000])
def test_a_flipped_bit_hides_all_commits_after_it(database: Path, place: int) -> None:
    data = bytearray(log(database).read_bytes())
    data[place] ^= 4
    log(database).write_bytes(data)
    assert loses_commits(database)
    assert rows(database) == (place - HEADER) // FRAME


@pytest.mark.parametrize("place", [0, 10, 17, 25])
def test_so_does_one_in_the_header(database: Path, place: int) -> None:
    data = bytearray(log(database).read_bytes())
    data[place] ^= 4
    log(database).write_bytes(data)
    assert loses_commits(database)
    assert rows(database) == 0


@pytest.mark.parametrize("length", [0, 20, HEADER, HEADER + 10, HEADER + FRAME, HEADER + 3 * FRAME + 1000])
def test_a_log_that_ends_early_is_what_a_killed_process_leaves(database: Path, length: int) -> None:
    log(database).write_bytes(log(database).read_bytes()[:length])
    assert not loses_commits(database)
    assert rows(database) == max(0, length - HEADER) // FRAME


def test_the_frames_of_an_earlier_log_are_none_of_this_one(tmp_path: Path) -> None:
    """After a checkpoint SQLite writes over the log from its beginning; the rest stays behind the new frames."""
    with contextlib.closing(sqlite3.connect(tmp_path / "copy", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (number INTEGER)")
        for number in range(COMMITS):
            connection.execute("INSERT INTO t VALUES (?)", (number,))
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
        connection.execute("INSERT INTO t VALUES (0)")
        assert log(tmp_path / "copy").stat().st_size > HEADER + COMMITS * FRAME
        assert not loses_commits(tmp_path / "copy")


def test_without_a_log_nothing_is_lost(tmp_path: Path) -> None:
    assert not loses_commits(tmp_path / "copy")
