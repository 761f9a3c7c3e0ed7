"""What people decided, in tests: files of decisions, and what a table shows of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tagllm_cli.records import Row
from tagllm_cli.store.evidence import Evidence
from tagllm_cli.store.human_labels import HumanDecision
from tagllm_cli.store.merge.parts import evidence_of
from tagllm_cli.store.table import open_table

HEADER = ("image", "label", "decision", "who", "when", "fingerprint")


def write_sheet(path: Path, lines: Sequence[Sequence[Any]], header: Sequence[str] | None = None) -> Path:
    """Write decisions as our CSV; lines give as many of HEADER as they have cells."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header or HEADER[: len(lines[0])])
        writer.writerows(lines)
    return path


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write decisions as JSON Lines."""
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records), encoding="utf-8")
    return path


def table_rows(table: Path) -> dict[str, Row]:
    """Return the rows of a table by image."""
    return {row.image_id: row for row in open_table(table).rows()}


def labels_of(table: Path, image: str) -> set[str]:
    """Return the labels of an image."""
    return {entry.name for entry in table_rows(table)[image].labels or () if entry.decision in (None, "yes")}


def human_labels_of(table: Path, image: str) -> dict[str, str]:
    """Return what people decided about an image, as the table shows it."""
    return {
        entry.name: str(entry.decision) for entry in table_rows(table)[image].labels or () if entry.source == "human"
    }


def on_record(table: Path) -> list[HumanDecision]:
    """Return all decisions in a table's evidence, by what counts."""
    with Evidence(evidence_of(table)) as evidence:
        found = [each for some in evidence.human for each in some]
    return sorted(found, key=lambda each: (each.image, *each.order))
