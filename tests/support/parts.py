"""Tables with their evidence as parts of a run leave them, made without a run: quickly, and as many as one likes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tagllm_cli.records import LabelEntry, Row, SourceInfo, Status, digest16
from tagllm_cli.store.checksums import insert
from tagllm_cli.store.evidence_layout import LAYOUT
from tagllm_cli.store.merge.parts import evidence_of
from tagllm_cli.store.sqlite import SQLiteFile
from tagllm_cli.store.table import TableInfo, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary
from tagllm_cli.vocabulary.serialize import vocabulary_to_json

FOLDER = SourceInfo("folder", "/data/images")
VOCABULARY = Vocabulary("tiny", (Label("cat"), Label("dog")))


@dataclass(frozen=True)
class Picture:
    """An image of a generated part. `answers` are the texts of its responses; `failed` those of failed requests."""

    id: str
    position: int = 0
    shard: str = ""
    status: str = "ok"
    content: str | None = None
    labels: tuple[str, ...] = ("cat",)
    answers: tuple[str, ...] = ("cat", "dog")
    failed: tuple[str, ...] = ()
    uri: str | None = None

    @property
    def fingerprint(self) -> bytes:
        return digest16((self.content or self.id).encode())

    def key(self, number: int) -> bytes:
        return digest16(self.fingerprint, b"%d" % number)

    def row(self) -> Row:
        known = self.status != "pending"
        error = None if self.status in ("ok", "pending") else "truncated_file: it ends early"
        entries = tuple(LabelEntry(name, score=1.0) for name in self.labels)
        labels = entries if self.status in ("ok", "partial") else None
        print_, size = (self.fingerprint, 8) if known else (b"", 0)
        return Row(self.id, self.uri or self.id, print_, size, size, Status(self.status), error, labels)


@dataclass(frozen=True)
class Maker:
    """Makes parts that agree with one another but for what `plan`, `derivation` and the like say."""

    stage: str = "candidates"
    plan: Mapping[str, Any] = field(default_factory=dict)
    derivation: Mapping[str, Any] = field(default_factory=lambda: {"min_votes": 1})
    source: SourceInfo = FOLDER
    vocabulary: Vocabulary = VOCABULARY

    def whole_plan(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "vocabulary": vocabulary_to_json(self.vocabulary),
            "label_ids": {name: number for number, name in enumerate(self.vocabulary.names)},
            "model": "qwen",
            "model_digest": "00" * 16,
            "max_pixels": 1000,
            **self.plan,
        }

    def info(self) -> TableInfo:
        return TableInfo(self.stage, self.source, self.vocabulary, {**self.whole_plan(), **self.derivation})

    def make(
        self,
        path: Path,
        pictures: Iterable[Picture],
        *,
        shards: Mapping[str, str] = {},
        started: float = 0.0,
        rows: Iterable[Picture] | None = None,
    ) -> Path:
        """Write a part; `rows` are those of its table where it is behind the evidence."""
        pictures = sorted(pictures, key=lambda each: (each.shard, each.position, each.id))
        file = SQLiteFile(evidence_of(path), LAYOUT)
        meta = {"plan": self.whole_plan(), "source": asdict(self.source), "revision": 3}
        if rows is not None:
            meta["table"] = {"revision": 2}
        for key, value in meta.items():
            file.query(insert("meta", "REPLACE"), (key, json.dumps(value, sort_keys=True)))
        file.query("INSERT INTO run (command, version, started, ended) VALUES ('make', '1', ?, ?)", (started, started))
        file.insert(insert("image", "REPLACE"), map(_image, pictures))
        for picture in pictures:
            answers = [
                (picture.key(number), text, "stop", None, 100, 0, 5, 1) for number, text in enumerate(picture.answers)
            ]
            file.insert(insert("response", "IGNORE"), answers)
            failed = [(picture.key(100 + number), "timeout", text, 1) for number, text in enumerate(picture.failed)]
            file.insert(insert("failed_request", "IGNORE"), failed)
        file.insert(insert("shard", "REPLACE"), shards.items())
        file.close()
        write_table(path, self.info(), [each.row() for each in (pictures if rows is None else rows)])
        return path


def _image(picture: Picture) -> tuple[Any, ...]:
    row = picture.row()
    error = row.error.split(": ") if row.error and row.status is Status.FAILED else (None, None)
    size = (row.width or None, row.height or None)
    completed = b"all" if picture.status == "ok" else None
    found = (row.fingerprint or None, *size, *error, None, completed)
    return (picture.id, picture.position, picture.uri or picture.id, "1", *found, 1, picture.shard)
