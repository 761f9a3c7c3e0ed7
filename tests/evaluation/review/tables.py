"""Tables to be reviewed: the table of the audit's tests, with fingerprints, a second opinion and pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status, digest16
from tagllm_cli.store.table import TableInfo, write_table
from tagllm_cli.vocabulary.model import Label, Vocabulary

NAMES = ("cat", "dog", "=cup", "person")


def entry(name: str, probability: float | None, *arms: str, source: str = "model") -> LabelEntry:
    """Return a label decided by 0.5, as the model said it; without a probability it is undecided."""
    decision = Decision.UNKNOWN if probability is None else Decision.YES if probability > 0.5 else Decision.NO
    return LabelEntry(name, decision, probability, 0.9, probability or 0.0, arms, source=source)


def row(name: str, *labels: LabelEntry, status: Status = Status.OK, fingerprint: bytes = b"") -> Row:
    """Return a row; one without an answer has no labels."""
    is_known = status in (Status.OK, Status.PARTIAL)
    return Row(name, name, fingerprint, 4, 4, status, None, labels if is_known else None, ())


def vocabulary(names: tuple[str, ...] = NAMES) -> Vocabulary:
    """Return labels of which `dog` has a card."""
    card = Label("dog", description="a domestic dog, not a wolf", similar=("cat",))
    return Vocabulary("pets", tuple(card if name == "dog" else Label(name) for name in names))


def save(path: Path, rows: list[Row], names: tuple[str, ...] = NAMES, *, stage: str = "labels", **plan: object) -> Path:
    """Write a table of images in the folder beside it."""
    source = SourceInfo("folder", str(path.parent / "images"))
    write_table(path, TableInfo(stage, source, vocabulary(names), plan), rows)
    return path


def painted(folder: Path, images: int = 30, seed: int = 0) -> tuple[Path, list[Row]]:
    """Make pictures and a table of them, with doubts, disagreeing arms and undecided labels."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(images):
        name = f"a/{number:03}.png"
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)
        labels = [
            entry(label, None if random.random() < 0.1 else round(float(random.random()), 4), *arms)
            for label in NAMES
            if random.random() < 0.6
            for arms in [("one", "two") if random.random() < 0.5 else ("one",)]
        ]
        rows.append(row(name, *labels, fingerprint=digest16(path.read_bytes())))
    return save(folder / "labels.parquet", rows), rows


def decided(rows: list[Row], label: str) -> list[Row]:
    """Return the rows with every entry of a label decided by a person, as it is."""
    return [
        replace(
            each,
            labels=tuple(replace(one, source="human") if one.name == label else one for one in each.labels or ()),
        )
        for each in rows
    ]
