"""Label lists of Arrow batches as NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.records import Decision
from tagllm_cli.vocabulary.model import Vocabulary

PREDICTED, UNDECIDED, HUMAN = 1, 2, 4

Array = npt.NDArray[Any]

_MOST_ARMS = 64


class EntryReader:
    """Label lists of one batch as arrays: rows, labels, scores, probabilities, flags and arms.

    Scores and arms are 0 where the batch was read without them. `arms` grows by what entries name: the plan of a label
    table does not know the arms of its candidates.
    """

    def __init__(self, vocabulary: Vocabulary, stage: str, arms: list[str]) -> None:
        self._names = texts(vocabulary.names)
        self.arms = arms
        self._is_label_table = stage == "labels"

    def __call__(self, lists: pa.ListArray, first_row: int) -> tuple[Array, ...]:
        entries = pc.list_flatten(lists)
        field = {each.name: pc.struct_field(entries, each.name) for each in entries.type}
        labels = known(pc.index_in(field["name"], self._names), field["name"], "label")
        decisions = field["decision"]
        is_yes = is_text(decisions, Decision.YES.value)  # in a candidate table: a person's
        if not self._is_label_table:
            is_yes |= as_numpy(pc.is_null(decisions))
        flags = (
            (PREDICTED, is_yes),
            (UNDECIDED, is_text(decisions, Decision.UNKNOWN.value)),
            (HUMAN, is_text(field["source"], "human")),
        )
        return (
            as_numpy(pc.list_parent_indices(lists)) + first_row,
            labels,
            filled(field["score"], 0) if "score" in field else np.zeros(len(labels), np.float32),
            filled(field["probability"], np.nan),
            sum((which.astype(np.int8) * flag for flag, which in flags), np.zeros(len(labels), np.int8)),
            self._votes(field["arms"]) if "arms" in field else np.zeros(len(labels), np.uint64),
        )

    def _votes(self, lists: pa.ListArray) -> Array:
        votes = np.zeros(len(lists), np.uint64)
        of_entry, names = as_numpy(pc.list_parent_indices(lists)), pc.list_flatten(lists)
        self.arms += [arm for arm in pc.unique(names).to_pylist() if arm not in self.arms]
        if len(self.arms) > _MOST_ARMS:
            raise ValueError(f"it names more than {_MOST_ARMS} arms")
        for number, arm in enumerate(self.arms):
            votes[of_entry[is_text(names, arm)]] |= np.uint64(1 << number)
        return votes


def texts(values: Sequence[str]) -> pa.StringArray:
    """Return an array of texts. `pa.array` and Arrow's scalars import pandas, which takes a quarter of a second.

    >>> texts(["cat", "Käfer"]).to_pylist()
    ['cat', 'Käfer']
    """
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))


def is_text(values: pa.StringArray, text: str) -> Array:
    """Return which values are `text`, bool; none that is null."""
    return as_numpy(pc.is_in(values, texts([text])))


def filled(values: pa.Array, null: float) -> Array:
    """Return numbers, nulls as `null`."""
    found = as_numpy(values)
    return np.where(as_numpy(values.is_null()), found.dtype.type(null), found) if values.null_count else found


def as_numpy(values: pa.Array) -> Array:
    """Return booleans or numbers, what stands in place of nulls included; `to_numpy` imports pandas."""
    if pa.types.is_boolean(values.type):
        return as_numpy(values.cast(pa.uint8())).view(bool)
    kind = np.dtype(values.type.to_pandas_dtype())
    buffer = values.buffers()[1]
    return np.frombuffer(buffer, kind, len(values), values.offset * kind.itemsize) if buffer else np.empty(0, kind)


def known(places: pa.Int32Array, values: pa.StringArray, what: str) -> Array:
    """Return the `places` at which `values` were found. Raises ValueError, with the first one, where one was not."""
    if places.null_count:
        raise ValueError(f"there is no {what} {values.filter(pc.is_null(places))[0].as_py()!r}")
    return as_numpy(places)
