"""The Arrow schema of candidate and label tables."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow


SCHEMA_VERSION = 2


@cache
def table_schema() -> pyarrow.Schema:
    """Return the Arrow schema of candidate and label tables, without metadata."""
    import pyarrow as pa

    label = pa.struct(
        [
            pa.field("name", pa.string(), nullable=False),
            pa.field("decision", pa.string()),
            pa.field("probability", pa.float32()),
            pa.field("mass", pa.float32()),
            pa.field("score", pa.float32(), nullable=False),
            pa.field("arms", pa.list_(pa.string()), nullable=False),
            pa.field("groups", pa.list_(pa.string()), nullable=False),
            pa.field("source", pa.string(), nullable=False),
        ]
    )
    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            pa.field("fingerprint", pa.binary()),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("status", pa.string(), nullable=False),
            pa.field("error", pa.string()),
            pa.field("labels", pa.list_(label)),
            pa.field("unmatched", pa.list_(pa.string())),
        ]
    )
