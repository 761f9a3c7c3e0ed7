"""Older evidence files brought up to date: `MIGRATIONS[n - 1]` turns format n into n + 1.

They run in one transaction when a file is opened for writing, in SQL that SQLite 3.26 knows. A table's own metadata is
read in every version that was ever written (`store.table`), and written in the newest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from tagllm_cli.store.checksums import renew_checksums, set_checksums
from tagllm_cli.store.human_labels import TABLES as HUMAN_TABLES

_IMAGE_2 = """CREATE TABLE image_2 (
    id TEXT PRIMARY KEY, position INTEGER NOT NULL, uri TEXT NOT NULL, version TEXT NOT NULL,
    fingerprint BLOB, width INTEGER, height INTEGER, error_kind TEXT, error TEXT, proposed TEXT,
    completed BLOB, revision INTEGER NOT NULL) WITHOUT ROWID"""

_IMAGE_3 = (
    "id", "position", "uri", "version", "fingerprint", "width", "height", "error_kind", "error", "proposed",
    "completed", "revision",
)  # fmt: skip

# Release 0.1.0 took these for answers, so that a filtered image counted as one without labels.
_NO_ANSWER = """SELECT key, CASE
        WHEN finish IN ('content_filter', 'tool_calls', 'error', 'abort') THEN 'filtered'
        WHEN logprobs IS NULL AND trim(text, ' ' || char(9, 10, 13)) = '' THEN 'empty_answer'
        WHEN logprobs IS NULL AND finish = 'length' THEN 'truncated'
    END AS kind, 'recorded by an earlier release, finish reason ' || finish AS message, run FROM response"""
_MOVED = f"SELECT * FROM ({_NO_ANSWER}) WHERE kind NOTNULL"


def to_format_2(db: sqlite3.Connection) -> None:
    """Release 0.1.0 to format 2: opaque image versions, the engine of a run, and no answers without content."""
    execute = db.execute
    execute(_IMAGE_2)
    execute(
        """INSERT INTO image_2 SELECT id, position, uri,
               CASE WHEN size = 0 AND mtime_ns = 0 THEN '' ELSE size || '-' || mtime_ns END,
               fingerprint, width, height, error_kind, error, proposed, settled, 0 FROM image"""
    )
    execute("DROP TABLE image")
    execute("ALTER TABLE image_2 RENAME TO image")
    execute("CREATE INDEX image_position ON image (position, id)")
    execute("ALTER TABLE reply RENAME TO response")
    execute("ALTER TABLE run ADD COLUMN engine TEXT")
    moved = execute(f"INSERT OR REPLACE INTO failed_request (key, kind, message, run) {_MOVED}").rowcount
    execute(f"DELETE FROM response WHERE key IN (SELECT key FROM ({_MOVED}))")
    if moved:  # nothing says which images they are about: the next run looks at all of them, and asks for these
        execute("UPDATE image SET completed = NULL")
    execute("DELETE FROM meta WHERE key = 'table'")  # the table is written anew, in its new version


def to_format_3(db: sqlite3.Connection) -> None:
    """Format 2 to format 3: a checksum in every row that a table is made from."""
    for table in ("meta", "image", "response", "failed_request"):
        db.execute(f"ALTER TABLE {table} ADD COLUMN checksum BLOB")
        db.execute(set_checksums(table, _IMAGE_3 if table == "image" else None))


def to_format_4(db: sqlite3.Connection) -> None:
    """Format 3 to format 4: images lie in shards; those of a folder in one without a name."""
    execute = db.execute
    execute("ALTER TABLE image ADD COLUMN shard TEXT NOT NULL DEFAULT ''")
    execute("DROP INDEX image_position")
    execute("CREATE INDEX image_position ON image (shard, position, id)")
    execute("CREATE TABLE shard (name TEXT PRIMARY KEY, version TEXT NOT NULL, checksum BLOB) WITHOUT ROWID")
    execute(renew_checksums("image", _IMAGE_3))


def to_format_5(db: sqlite3.Connection) -> None:
    """Format 4 to format 5: what people decided."""
    for table in HUMAN_TABLES:
        db.execute(table)


MIGRATIONS: Sequence[Callable[[sqlite3.Connection], None]] = (to_format_2, to_format_3, to_format_4, to_format_5)
