"""The export formats by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tagllm_cli.errors import UsageError

if TYPE_CHECKING:
    from tagllm_cli.export.base import ExportSettings, ExportSummary
    from tagllm_cli.store.table import Table

# Read by `--help`: nothing heavy may be imported above.

FORMATS: Mapping[str, str] = {
    "coco": "tagllm_cli.export.coco",
    "csv": "tagllm_cli.export.csv_file",
    "jsonl": "tagllm_cli.export.jsonl",
    "hf": "tagllm_cli.export.hf",
}


class Exporter(Protocol):
    """What a format's module offers as `export`."""

    def __call__(self, table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
        """Write `table` to `out`. Raises UsageError for what cannot be exported and for an occupied `out`."""
        ...


def export_table(
    path: Path,
    format_: str,
    out: Path,
    settings: ExportSettings | None = None,
) -> ExportSummary:
    """Export the table at `path`. Raises UsageError for an unknown format, an unusable table or an occupied `out`."""
    if format_ not in FORMATS:
        raise UsageError(f"there is no export format {format_!r}", f"Use one of {', '.join(FORMATS)}.")
    from tagllm_cli.export.base import ExportSettings
    from tagllm_cli.store.table import open_table

    export: Exporter = importlib.import_module(FORMATS[format_]).export
    return export(open_table(path), out, settings or ExportSettings())
