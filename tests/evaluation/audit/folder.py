"""A table on disk with its pictures, an audit of it, and answers by the truth."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from tagllm_cli.evaluation.audit.create import create_audit
from tagllm_cli.records import Decision, LabelEntry, Row, SourceInfo, Status
from tagllm_cli.store.table import TableInfo, write_table
from tagllm_cli.text import undefused
from tagllm_cli.vocabulary.model import Label, Vocabulary

NAMES = ("cat", "dog", "=cup", "person")


@dataclass(frozen=True)
class Audited:
    """A label table, its truth by image id, and the folder of its audit."""

    table: Path
    rows: list[Row]
    true: Mapping[str, frozenset[str]]
    audit: Path
    images: str

    def copied(self, folder: Path) -> Audited:
        """Return a copy to change, with the same images."""
        shutil.copy(self.table, folder)
        shutil.copytree(self.audit, folder / self.audit.name)
        return replace(self, table=folder / self.table.name, audit=folder / self.audit.name)

    def answer(self, name: str = "audit.csv", said: Callable[[int, bool], str] | None = None) -> Path:
        """Write a filled CSV; `said` makes the answer of a pair's place and the truth."""
        lines = self.lines()
        for place, line in enumerate(lines):
            there = undefused(line["label"]) in self.true[undefused(line["image"])]
            line["answer"] = ("yes" if there else "no") if said is None else said(place, there)
        return self.write(lines, name)

    def lines(self) -> list[dict[str, str]]:
        """Return the lines of the CSV as it was drawn."""
        with (self.audit / "audit.csv").open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))

    def write(self, lines: list[dict[str, str]], name: str = "other.csv") -> Path:
        """Write lines as a CSV beside the design."""
        path = self.audit / name
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
        return path

    def write_table(self, rows: list[Row], names: tuple[str, ...] = NAMES, stage: str = "labels") -> Path:
        """Write another table of the same images beside the first one."""
        path = self.table.with_name("later.parquet")
        write_table(
            path, TableInfo(stage, SourceInfo("folder", str(self.table.parent / "images")), vocabulary(names)), rows
        )
        return path


def vocabulary(names: tuple[str, ...] = NAMES) -> Vocabulary:
    card = Label("dog", description="a domestic dog, not a wolf", similar=("cat",))
    return Vocabulary("pets", tuple(card if name == "dog" else Label(name) for name in names))


def audited(folder: Path, size: int = 60, images: int = 60, paint: bool = False) -> Audited:
    """Make a table of `images` images and draw `size` pairs of it."""
    random = np.random.default_rng(0)
    rows, true = [], {}
    for number in range(images):
        name = f"{'=1+' if number % 7 == 0 else 'a/'}{number:03}.png"
        true[name] = frozenset(label for label in NAMES if random.random() < 0.35)
        entries = []
        for label in NAMES:
            there = label in true[name]
            if random.random() < (0.85 if there else 0.25):
                score = round(float(random.beta(5, 2) if there else random.beta(2, 4)), 4)
                entries.append(LabelEntry(label, Decision.YES if score > 0.5 else Decision.NO, score, 1.0, score))
        rows.append(Row(name, name, b"", 4, 4, Status.OK, None, tuple(entries), ()))
        if paint:
            path = folder / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    found = Audited(folder / "labels.parquet", rows, true, folder / "audit", str(folder / "images"))
    found.write_table(rows).rename(found.table)
    create_audit(found.table, found.audit, size=size)
    return found


def without(rows: list[Row], status: Status = Status.FAILED, *, every: int = 2) -> list[Row]:
    """Return the rows with every so many-th without an answer."""
    return [replace(row, status=status, labels=None) if place % every == 0 else row for place, row in enumerate(rows)]
