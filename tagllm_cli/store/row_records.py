"""Rows as the plain values that Arrow takes and gives (`store.schema`), and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tagllm_cli.records import Decision, LabelEntry, Row, Status


def row_to_record(row: Row) -> dict[str, Any]:
    """Return one row as a record of the Arrow schema; what is not known is None."""
    known = bool(row.width and row.height)
    return {
        "image_id": row.image_id,
        "uri": row.uri,
        "fingerprint": row.fingerprint or None,
        "width": row.width if known else None,
        "height": row.height if known else None,
        "status": row.status.value,
        "error": row.error,
        "labels": None if row.labels is None else [_entry_to_record(entry) for entry in row.labels],
        "unmatched": row.unmatched,
    }


def row_from_record(record: Mapping[str, Any]) -> Row:
    """Return the row that `row_to_record` was given."""
    labels, unmatched = record["labels"], record["unmatched"]
    return Row(
        image_id=record["image_id"],
        uri=record["uri"],
        fingerprint=record["fingerprint"] or b"",
        width=record["width"] or 0,
        height=record["height"] or 0,
        status=Status(record["status"]),
        error=record["error"],
        labels=None if labels is None else tuple(_entry_from_record(label) for label in labels),
        unmatched=None if unmatched is None else tuple(unmatched),
    )


def _entry_to_record(entry: LabelEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "decision": entry.decision.value if entry.decision else None,
        "probability": entry.probability,
        "mass": entry.mass,
        "score": entry.score,
        "arms": entry.arms,
        "groups": entry.groups,
        "source": entry.source,
    }


def _entry_from_record(label: Mapping[str, Any]) -> LabelEntry:
    return LabelEntry(
        name=label["name"],
        decision=Decision(label["decision"]) if label["decision"] else None,
        probability=label["probability"],
        mass=label["mass"],
        score=label["score"],
        arms=tuple(label["arms"]),
        groups=tuple(label["groups"]),
        source=label["source"],
    )
