"""The label entries of a table as the model alone left them, where people decided something since.

What `labeling.human.HumanOverlay.model_row` says of one row, for all rows as arrays.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.compute as pc

from tagllm_cli.evaluation.entries import HUMAN, PREDICTED, UNDECIDED, Array, Entries, read_entries
from tagllm_cli.labeling.human import thresholds_of
from tagllm_cli.records import Status
from tagllm_cli.store.damage import damage_as_table_error
from tagllm_cli.store.table import Table

_ROWS = 8192


def entries_for(table: Table, *, human_only: bool) -> Entries:
    """Return the entries of a table to be measured: with `human_only` (truth: people's decisions), the model's."""
    return read_model_entries(table) if human_only else read_entries(table)


def read_model_entries(table: Table) -> Entries:
    """Read a table with the model's own decisions: none is HUMAN, and what only people listed is left out."""
    entries = read_entries(table)
    human = (entries.flags & HUMAN) > 0
    if not human.any():
        return entries
    listed = ~np.isnan(entries.probabilities) | (entries.arms > 0) | _has_mass(table)
    unanswered = [status in (Status.FAILED, Status.PENDING) for status in entries.statuses]
    kept = (listed | ~human) & ~np.array(unanswered, bool)[entries.rows]
    flags = np.where(human, _decided(entries, table), entries.flags).astype(np.int8)
    parallel = (entries.rows, entries.labels, entries.scores, entries.probabilities, flags, entries.arms)
    rows, labels, scores, probabilities, flags, arms = (each[kept] for each in parallel)
    return replace(
        entries, rows=rows, labels=labels, scores=scores, probabilities=probabilities, flags=flags, arms=arms
    )


def _decided(entries: Entries, table: Table) -> Array:
    """Return the flags that the model's answers give each entry."""
    unknown = np.isnan(entries.probabilities)
    if table.info.stage == "labels":
        limits = thresholds_of(table.info)
        own = np.array([limits.of(name) for name in entries.names], np.float32)
        is_yes = entries.probabilities > own[entries.labels]
        return np.where(unknown, UNDECIDED, np.where(is_yes, PREDICTED, 0))
    votes = np.bitwise_count(entries.arms)
    proposed = np.where(votes >= table.info.plan.get("min_votes", 1), PREDICTED, UNDECIDED)
    return np.where(votes > 0, proposed, np.where(unknown, UNDECIDED, 0))


def _has_mass(table: Table) -> Array:
    """Return which entries of a table, in its order, have a mass: the model was asked about them, bool."""
    found = [np.zeros(0, bool)]
    with damage_as_table_error(table.path):
        for batch in table.batches(_ROWS, ["labels.list.element.mass"]):
            masses = pc.struct_field(pc.list_flatten(batch["labels"]), "mass")
            found.append(np.asarray(masses.is_valid().to_numpy(zero_copy_only=False), bool))
    return np.concatenate(found)
