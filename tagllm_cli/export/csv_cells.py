"""CSV that Arrow writes: a million lines take a second or two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagllm_cli.text import defused

if TYPE_CHECKING:
    import pyarrow as pa

_FORMULA = "[=+@\t\r-]"  # anywhere: what may need `defused` is looked at one by one


def writer(path: Path, schema: pa.Schema) -> Any:
    """Return a CSV writer (a context manager with `write(table)`): a header, UTF-8, all texts in quotes, null empty."""
    import pyarrow.csv

    return pyarrow.csv.CSVWriter(path, schema, write_options=pyarrow.csv.WriteOptions(quoting_style="needed"))


def defused_cells(texts: pa.Array) -> pa.Array:
    """Return texts that no spreadsheet takes for formulas, each as `text.defused` returns it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.any(pc.match_substring_regex(texts, f"^'*{_FORMULA}")).as_py():
        return texts
    return pa.array([defused(text) for text in texts.to_pylist()], texts.type)
