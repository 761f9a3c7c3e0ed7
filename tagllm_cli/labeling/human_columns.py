"""Decisions of people put over many rows at once, as columns: a million rows take seconds.

It is for rows with labels that nobody has decided about yet; `HumanOverlay.row` does the same for any row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.labeling.human_changes import CODES, HUMAN, IN_DOUBT, NOT_LISTED, YES, Changes
from tagllm_cli.records import Decision, Status
from tagllm_cli.store.schema import table_schema

Array = npt.NDArray[Any]

_TEXTS = pa.array([None, "no", "yes", "unknown"])  # by code


def fits(piece: pa.Table) -> Array:
    """Return which rows can be done as columns, bool [rows]."""
    labels = piece["labels"].combine_chunks()
    human = pc.equal(pc.list_flatten(labels).field("source"), HUMAN).to_numpy(zero_copy_only=False)
    by_people = np.bincount(pc.list_parent_indices(labels).to_numpy()[human], minlength=len(piece))
    answered = pc.is_in(piece["status"], value_set=pa.array([Status.OK.value, Status.PARTIAL.value])).to_numpy()
    found: Array = answered & labels.is_valid().to_numpy(zero_copy_only=False) & (by_people == 0)
    return found


def overlaid(
    piece: pa.Table, decisions: Sequence[Mapping[str, Decision]], names: Mapping[str, int], changes: Changes
) -> pa.Table:
    """Return rows that `fits` with what was decided about each; what is not in `names` is left out.

    `names` are the positions of the labels in the vocabulary. Counts what differs into `changes`.
    """
    found = [
        (row * len(names) + names[name], CODES[decision])
        for row, decided in enumerate(decisions)
        for name, decision in decided.items()
        if name in names
    ]
    if not found:
        return piece
    pairs = np.array(sorted(found), np.int64)
    keys, codes = pairs[:, 0], pairs[:, 1].astype(np.int8)
    labels = piece["labels"].combine_chunks()
    entries = pc.list_flatten(labels)
    parents = pc.list_parent_indices(labels).to_numpy().astype(np.int64)
    positions = pc.index_in(entries.field("name"), value_set=pa.array(list(names))).to_numpy(zero_copy_only=False)
    listed = parents * len(names) + positions.astype(np.int64)
    at = np.minimum(np.searchsorted(keys, listed), len(keys) - 1)
    decided = keys[at] == listed
    before = np.full(len(keys), NOT_LISTED, np.int8)
    was = pc.index_in(entries.field("decision"), value_set=_TEXTS).to_numpy(zero_copy_only=False)
    before[at[decided]] = was[decided]
    changes.add_pairs(len(np.unique(keys // len(names))), before, codes)
    changed = _decided(entries, decided, codes[at])
    missing = before == NOT_LISTED
    added = _new(keys[missing] % len(names), codes[missing], list(names), entries.type)
    together = pa.concat_arrays([changed, added])
    order = np.argsort(np.concatenate([listed, keys[missing]]), kind="stable")
    counts = np.bincount(np.concatenate([parents, keys[missing] // len(names)]), minlength=len(piece))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    kind = table_schema().field("labels").type
    column = pa.ListArray.from_arrays(pa.array(offsets), together.take(pa.array(order)), type=kind)
    return piece.set_column(piece.schema.get_field_index("labels"), piece.schema.field("labels"), column)


def _decided(entries: pa.StructArray, decided: Array, codes: Array) -> pa.StructArray:
    """Return entries with the decisions of people where there are some."""
    marks = pa.array(decided)
    answered = pc.or_(entries.field("probability").is_valid(), entries.field("mass").is_valid())
    in_doubt = pc.and_not(marks, pc.or_(answered, pc.greater(pc.list_value_length(entries.field("arms")), 0)))
    new = {
        "mass": pc.if_else(in_doubt, pa.scalar(IN_DOUBT, entries.field("mass").type), entries.field("mass")),
        "decision": pc.if_else(marks, _TEXTS.take(pa.array(codes)), entries.field("decision")),
        "source": pc.if_else(marks, HUMAN, entries.field("source")),
    }
    columns = [new.get(field.name, entries.field(field.name)) for field in entries.type]
    return pa.StructArray.from_arrays(columns, fields=list(entries.type))


def _new(positions: Array, codes: Array, names: Sequence[str], kind: pa.StructType) -> pa.StructArray:
    """Return entries of labels that no model proposed."""
    count = len(positions)
    known = {
        "name": pa.array(names).take(pa.array(positions)),
        "decision": _TEXTS.take(pa.array(codes)),
        "score": pa.array((codes == YES).astype(np.float32)),
        "source": pa.array([HUMAN] * count, pa.string()),
    }
    columns = []
    for field in kind:
        if field.name in known:
            columns.append(known[field.name].cast(field.type))
        elif pa.types.is_list(field.type):
            columns.append(pa.array([[]] * count, field.type))
        else:
            columns.append(pa.nulls(count, field.type))
    return pa.StructArray.from_arrays(columns, fields=list(kind))
