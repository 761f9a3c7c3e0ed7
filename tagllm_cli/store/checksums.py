"""A checksum in every row that a table is made from: SQLite itself does not notice a flipped byte inside a value.

The column `checksum` holds an 8-byte BLAKE2b hash of the row's other columns. It is written by `insert` and
`insert_from`, and where images are updated by a trigger that ends with the process; a reader says
`WHERE {is_intact("response")}`. Pages and indexes are checked by SQLite's own `integrity_check` when a file is opened
(`store.sqlite`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

# All columns but `checksum`. The table `run` is left out: nothing is made from it.
COLUMNS: Mapping[str, Sequence[str]] = {
    "meta": ("key", "value"),
    "image": (
        "id", "position", "uri", "version", "fingerprint", "width", "height", "error_kind", "error", "proposed",
        "completed", "revision", "shard",
    ),
    "shard": ("name", "version"),
    "response": (
        "key", "text", "finish", "logprobs", "prompt_tokens", "cached_tokens", "output_tokens", "run",
    ),
    "failed_request": ("key", "kind", "message", "run"),
    "human_decision": (
        "fingerprint", "image", "label", "who", "decided", "decision", "scope", "origin", "file", "recorded",
    ),
    "label_set": ("key", "names"),
}  # fmt: skip


def checksum(content: bytes) -> bytes:
    """Return the 8-byte hash; as an SQL function under this name it is applied to a row's values."""
    return hashlib.blake2b(content, digest_size=8).digest()


def row_checksum(values: Sequence[str | bytes | int | None]) -> bytes:
    """Return the checksum that SQL computes of these values, for rows that are read without our functions."""
    kinds = {str: "text", bytes: "blob", int: "integer", type(None): "null"}
    parts = (kinds[type(value)].encode() + _as_bytes(value) for value in values)
    return checksum(b"".join(parts))


def _as_bytes(value: str | bytes | int | None) -> bytes:
    return value if isinstance(value, bytes) else b"" if value is None else str(value).encode()


def _expression(values: Iterable[str]) -> str:
    # With types, which one flipped bit can change as well; as bytes, since damaged text need not be UTF-8.
    return f"""checksum(CAST({" || ".join(f"typeof({value}) || ifnull({value}, '')" for value in values)} AS BLOB))"""


def _of_row(table: str, columns: Sequence[str] | None = None) -> str:
    return _expression(f"{table}.{column}" for column in columns or COLUMNS[table])


def set_checksums(table: str, columns: Sequence[str] | None = None) -> str:
    """Return the statement that writes the checksums of all rows of a table, which had other columns in old formats."""
    return f"UPDATE {table} SET checksum = {_of_row(table, columns)}"


def renew_checksums(table: str, before: Sequence[str]) -> str:
    """Return the statement for a table that got new columns: what is damaged stays so."""
    return f"{set_checksums(table)} WHERE checksum IS {_of_row(table, before)}"


@cache
def is_intact(table: str) -> str:
    """Return the condition that a row of a table holds what was written."""
    return f"{table}.checksum IS {_of_row(table)}"


@cache
def insert(table: str, conflict: str) -> str:
    """Return the statement that inserts a row, given the values of COLUMNS; `conflict`: `IGNORE` or `REPLACE`."""
    columns = COLUMNS[table]
    parameters = [f"?{number}" for number in range(1, len(columns) + 1)]
    return f"""INSERT OR {conflict} INTO {table} ({", ".join(columns)}, checksum)
        VALUES ({", ".join(parameters)}, {_expression(parameters)})"""


def insert_from(table: str, values: Mapping[str, str], rows: str) -> str:
    """Return the statement that inserts `rows` of another table: an SQL expression for each of COLUMNS.

    >>> insert_from("shard", {"name": "name", "version": "'1'"}, "listed_shard")[:55]
    'INSERT OR REPLACE INTO shard (name, version, checksum)\\n'
    """
    columns = COLUMNS[table]
    given = [values[column] for column in columns]
    return f"""INSERT OR REPLACE INTO {table} ({", ".join(columns)}, checksum)
        SELECT {", ".join(given)}, {_expression(given)} FROM {rows}"""


# Images are changed by statements that set some columns of many rows at a time.
IMAGE_TRIGGER = f"""CREATE TEMP TRIGGER image_updated AFTER UPDATE OF {", ".join(COLUMNS["image"])} ON main.image
    BEGIN {set_checksums("image")} WHERE id = new.id; END"""
