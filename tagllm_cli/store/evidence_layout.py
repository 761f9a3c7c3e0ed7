"""The tables of an evidence file, and records as the values of their columns and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagllm_cli.records import Failure, Image, ImageInfo, Item, LabelEntry, Response
from tagllm_cli.store.checksums import IMAGE_TRIGGER, checksum
from tagllm_cli.store.damage import damage_as_table_error
from tagllm_cli.store.human_labels import TABLES as HUMAN_TABLES
from tagllm_cli.store.migrations import MIGRATIONS
from tagllm_cli.store.sqlite import Layout

IMAGE_COLUMNS = "id, position, uri, version, fingerprint, width, height, error_kind, error, proposed, shard"
LAYOUT = Layout(
    application_id=0x7461676C,  # "tagl"
    tables=(
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum BLOB) WITHOUT ROWID",
        """CREATE TABLE image (id TEXT PRIMARY KEY, position INTEGER NOT NULL, uri TEXT NOT NULL, version TEXT NOT NULL,
           fingerprint BLOB, width INTEGER, height INTEGER, error_kind TEXT, error TEXT, proposed TEXT, completed BLOB,
           revision INTEGER NOT NULL, shard TEXT NOT NULL, checksum BLOB) WITHOUT ROWID""",
        "CREATE INDEX image_position ON image (shard, position, id)",
        # A shard of which all images are on record, as they were in this version.
        "CREATE TABLE shard (name TEXT PRIMARY KEY, version TEXT NOT NULL, checksum BLOB) WITHOUT ROWID",
        """CREATE TABLE response (key BLOB PRIMARY KEY, text TEXT NOT NULL, finish TEXT NOT NULL, logprobs TEXT,
           prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
           run INTEGER NOT NULL, checksum BLOB) WITHOUT ROWID""",
        """CREATE TABLE failed_request (key BLOB PRIMARY KEY, kind TEXT NOT NULL, message TEXT NOT NULL,
           run INTEGER NOT NULL, checksum BLOB) WITHOUT ROWID""",
        """CREATE TABLE run (id INTEGER PRIMARY KEY, command TEXT NOT NULL, version TEXT NOT NULL,
           started REAL NOT NULL, ended REAL, report TEXT, engine TEXT)""",
        *HUMAN_TABLES,
    ),
    # The source as this run lists it. `unverified`: bytes that may have changed and were not read yet.
    temporary=(
        """CREATE TEMP TABLE listed (
            id TEXT PRIMARY KEY, position INTEGER NOT NULL, uri TEXT NOT NULL, version TEXT NOT NULL,
            fingerprint BLOB, width INTEGER, height INTEGER, error_kind TEXT, error TEXT, proposed TEXT,
            shard TEXT NOT NULL, unverified INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID""",
        """CREATE TEMP TABLE listed_shard (
            name TEXT PRIMARY KEY, version TEXT NOT NULL, state TEXT NOT NULL) WITHOUT ROWID""",
        IMAGE_TRIGGER,
    ),
    functions={"checksum": checksum},
    migrations=MIGRATIONS,
)


@dataclass(frozen=True, slots=True)
class RecordedImage:
    """One image as on record. `revision` is that of its last change; `failed`: it cannot be read or decoded."""

    id: str
    revision: int
    completed: bytes | None
    failed: bool
    path: Path | None
    values: Sequence[Any]

    @property
    def position(self) -> int:
        """The image's place within its shard."""
        return int(self.values[1])

    def item(self) -> Item:
        """Return it for a stage; built on demand, since most rows of a table do not change."""
        with damage_as_table_error(self.path):
            return item_of(self.values)


def image_values(position: int, item: Item) -> tuple[Any, ...]:
    """Return an image as the values of IMAGE_COLUMNS."""
    image, info = item.image, item.info
    proposed = None
    if item.proposed is not None:
        entries = [(entry.name, entry.score, entry.arms, entry.groups) for entry in item.proposed]
        proposed = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
    found: tuple[Any, ...] = (None, None, None, None, None)
    if info is not None:
        found = (info.fingerprint or None, info.width, info.height, *failure_values(info.failure))
    return (image.id, position, image.uri, image.version, *found, proposed, image.shard)


def item_of(values: Sequence[Any]) -> Item:
    """Return the item of values that begin with IMAGE_COLUMNS."""
    id_, _, uri, version, fingerprint, width, height, error_kind, error, proposed, shard, *_ = values
    info = None
    if fingerprint is not None or error_kind is not None:
        failure = Failure(error_kind, error) if error_kind is not None else None
        info = ImageInfo(fingerprint or b"", width or 0, height or 0, failure)
    entries = None
    if proposed is not None:
        entries = tuple(
            LabelEntry(name, score=score, arms=tuple(arms), groups=tuple(groups))
            for name, score, arms, groups in json.loads(proposed)
        )
    return Item(Image(id_, uri, version, shard), info, entries)


def response_of(values: Sequence[Any]) -> Response:
    """Return the response of (text, finish, logprobs as JSON, prompt, cached and output tokens)."""
    text, finish, logprobs, *tokens = values
    return Response(text, finish, json.loads(logprobs) if logprobs else {}, *tokens)


def failure_values(failure: Failure | None) -> tuple[str | None, str | None]:
    """Return (kind, message), both None without a failure."""
    return (None, None) if failure is None else (failure.kind, storable(failure.message))


def storable(text: str) -> str:
    """Return text that can be stored: half a character, which a cut answer may end in, becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
