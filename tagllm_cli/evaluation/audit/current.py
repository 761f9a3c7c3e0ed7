"""What a table says now of the pairs of an audit, and how many pairs it has in each group.

Pairs that people decided are in no group, and neither are labels that the audit did not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.audit.design import Design, TableIdentity
from tagllm_cli.evaluation.audit.population import answered
from tagllm_cli.evaluation.audit.shares import ABSENT, LISTED, PREDICTED
from tagllm_cli.evaluation.entries import HUMAN, Array, Entries, read_entries
from tagllm_cli.evaluation.entries import PREDICTED as SAID
from tagllm_cli.store.table import open_table
from tagllm_cli.text import shortened

GONE, BY_PEOPLE = -1, -2


@dataclass(frozen=True, slots=True)
class CurrentPairs:
    """The pairs of an audit in a table: `groups` (PREDICTED, LISTED, ABSENT, GONE, BY_PEOPLE) and `labels`, [pairs].

    `labels` point into `names`, the labels that table and audit share; `sizes` [labels, groups] count all pairs of the
    table's answered `images`. `warnings` say how it differs from the table that was audited.
    """

    names: Sequence[str]
    images: int
    groups: Array  # int64
    labels: Array  # int64
    sizes: Array  # int64
    warnings: tuple[str, ...]


def current_pairs(path: Path, design: Design) -> CurrentPairs:
    """Read what a table says of an audit's pairs. Raises UsageError where it has none of them, or another stage."""
    table = open_table(path)
    if table.info.stage != design.table.stage:
        raise UsageError(
            f"{path} is a table of {table.info.stage}, and the audit is of {design.table.stage}",
            "Name the table that was audited, or one of the same stage.",
        )
    everything = read_entries(table)
    whole = answered(everything)
    audited = {stratum.label for stratum in design.strata}
    labels = [label for label, name in enumerate(whole.names) if name in audited]
    entries = whole.restricted(range(len(whole.ids)), labels)
    groups, rows, of_label = _groups(entries, design)
    if (groups == GONE).all():
        what = "image" if (rows < 0).all() else "label" if (of_label < 0).all() else "pair"
        raise UsageError(
            f"{path} has no {what} of the audit, which was drawn from {design.table.name}",
            "Name the table that was audited, or one of the same images and labels.",
        )
    warnings = _differences(whole, audited, design.table, TableIdentity.of(table, whole))
    if unanswered := len(everything.ids) - len(whole.ids):
        warnings.append(f"images without an answer, which the figures leave out: {unanswered:,}")
    return CurrentPairs(entries.names, len(entries.ids), groups, of_label, _sizes(entries), tuple(warnings))


def _differences(whole: Entries, audited: set[str], then: TableIdentity, now: TableIdentity) -> list[str]:
    warnings = []
    if new := [name for name in whole.names if name not in audited]:
        warnings.append(f"labels that the audit did not have, left out: {shortened(new, 8)}")
    if gone := sorted(audited - set(whole.names)):
        warnings.append(f"labels of the audit that the table no longer has, left out: {shortened(gone, 8)}")
    if now.image_digest != then.image_digest:
        warnings.append(
            f"the audit was drawn from {then.images:,} answered images, and the table has {now.images:,}, not all the "
            "same: the figures hold if the others are like those"
        )
    return warnings


def _groups(entries: Entries, design: Design) -> tuple[Array, Array, Array]:
    """Return the group of each pair in the table as it is now (or GONE, BY_PEOPLE), its row and its label."""
    rows = _places([pair.image for pair in design.pairs], entries.ids)
    labels = _places([pair.label for pair in design.pairs], entries.names)
    cells = entries.cells
    order = np.argsort(cells, kind="stable")
    wanted = rows * len(entries.names) + labels
    place = np.minimum(np.searchsorted(cells, wanted, sorter=order), max(0, len(cells) - 1))
    groups = np.full(len(wanted), ABSENT)
    if len(cells):
        entry = order[place]
        flags = entries.flags[entry]
        group = np.where(flags & HUMAN, BY_PEOPLE, np.where(flags & SAID, PREDICTED, LISTED))
        groups = np.where(cells[entry] == wanted, group, ABSENT)
    return np.where((rows < 0) | (labels < 0), GONE, groups), rows, labels


def _places(of: Sequence[str], among: Sequence[str]) -> Array:
    found = pc.index_in(pa.array(of, pa.string()), pa.array(among, pa.string()))
    return np.asarray(pc.fill_null(found, -1).to_numpy(), np.int64)


def _sizes(entries: Entries) -> Array:
    """Return how many pairs each label has in each group, int64 [labels, groups], without those of people."""
    width, human, said = len(entries.names), entries.flags & HUMAN, entries.flags & SAID
    sizes = np.zeros((width, 3), np.int64)
    sizes[:, PREDICTED] = np.bincount(entries.labels[(human == 0) & (said > 0)], minlength=width)
    sizes[:, LISTED] = np.bincount(entries.labels[(human == 0) & (said == 0)], minlength=width)
    sizes[:, ABSENT] = len(entries.ids) - np.bincount(entries.labels, minlength=width)
    return sizes
