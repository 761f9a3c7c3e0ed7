"""Joining columns of two tables by equal values, each value as often as it occurs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tagllm_cli.evaluation.entry_arrays import Array, as_numpy, filled


def ranks(codes: Array) -> Array:
    """Return for each code how many equal ones stand before it, int64."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(codes) else np.empty(0, int)
    found = np.empty(len(codes), np.int64)
    found[order] = np.arange(len(codes)) - np.repeat(starts, np.diff([*starts, len(codes)]))
    return found


def matched(first: pa.ChunkedArray, second: pa.ChunkedArray) -> tuple[Array, Array]:
    """Return the places of equal values of two columns, int64 each: the n-th one with the n-th one; nulls are left out.

    >>> one, two = (pa.chunked_array([each]) for each in (["a", "b", "a"], ["c", "a", "a"]))
    >>> [places.tolist() for places in matched(one, two)]
    [[0, 2], [1, 2]]
    """
    if first.null_count == 0 and first.equals(second):
        return np.arange(len(first)), np.arange(len(first))
    values = pc.unique(first.drop_null())
    places, keys = [], []
    for column in (first, second):
        codes = pc.index_in(column, value_set=values, skip_nulls=True)
        at = np.flatnonzero(np.concatenate([np.empty(0, bool), *(as_numpy(each.is_valid()) for each in codes.chunks)]))
        code = np.concatenate([np.empty(0, np.int64), *(filled(each, 0) for each in codes.chunks)])[at]
        places.append(at)
        keys.append(ranks(code) * max(1, len(values)) + code)
    _, one, two = np.intersect1d(keys[0], keys[1], assume_unique=True, return_indices=True)
    order = np.argsort(places[0][one], kind="stable")
    return places[0][one][order], places[1][two][order]
