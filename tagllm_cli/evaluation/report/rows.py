"""What the rows of a table say beside their labels: failures by kind, unknown answers, and some rows whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.store.damage import damage_as_table_error
from tagllm_cli.store.table import Table

_ROWS = 8192
_MOST_ANSWERS = 500_000  # different ones in memory; beyond it the rare ones are forgotten


@dataclass(frozen=True, slots=True)
class RowDetails:
    """One chosen row. `fingerprint` is b"" where the image was never read."""

    uri: str
    fingerprint: bytes
    error: str
    unmatched: tuple[str, ...]


@dataclass(slots=True)
class TableRows:
    """What one pass over the rows found.

    `failures` counts rows with an error by its kind, `examples` has the first error of each kind; `unmatched` counts
    images by answer outside the vocabulary; `details` are the chosen rows, by number.
    """

    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    unmatched: Counter[str] = field(default_factory=Counter)
    details: dict[int, RowDetails] = field(default_factory=dict)


def read_rows(table: Table, chosen: Sequence[int]) -> TableRows:
    """Read a table's rows once, without its labels; `chosen` are ascending row numbers."""
    found = TableRows()
    numbers = np.asarray(chosen, np.int64)
    start = 0
    for batch in table.batches(_ROWS, ["uri", "fingerprint", "error", "unmatched"]):
        with damage_as_table_error(table.path):
            _count(batch, found)
            inside = numbers[np.searchsorted(numbers, start) : np.searchsorted(numbers, start + len(batch))]
            for number, row in zip(inside.tolist(), batch.take(pa.array(inside - start)).to_pylist(), strict=True):
                found.details[number] = RowDetails(
                    row["uri"], row["fingerprint"] or b"", row["error"] or "", tuple(row["unmatched"] or ())
                )
        start += len(batch)
    return found


def _count(batch: pa.RecordBatch, found: TableRows) -> None:
    errors = pc.drop_null(batch["error"])
    if len(errors):
        kinds = pc.list_element(pc.split_pattern(errors, ":", max_splits=1), 0)
        for each in pc.value_counts(kinds).to_pylist():
            found.failures[each["values"]] += each["counts"]
            if each["values"] not in found.examples:
                first = pc.index(kinds, each["values"]).as_py()
                found.examples[each["values"]] = errors[first].as_py()
    answers = pc.value_counts(pc.list_flatten(batch["unmatched"]))
    found.unmatched.update({each["values"]: each["counts"] for each in answers.to_pylist()})
    if len(found.unmatched) > _MOST_ANSWERS:
        found.unmatched = Counter(dict(found.unmatched.most_common(_MOST_ANSWERS // 2)))
