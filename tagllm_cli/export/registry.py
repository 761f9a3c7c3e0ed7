"""The export formats by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from tagllm_cli.errors import UsageError
from tagllm_cli.export.base import ExportSettings, ExportSummary
from tagllm_cli.store.atomic import check_writable_path
from tagllm_cli.store.table import Table, open_table

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
    settings: ExportSettings = ExportSettings(),  # noqa: B008 (frozen)
) -> ExportSummary:
    """Export the table at `path`. Raises UsageError for an unknown format, an unusable table or an occupied `out`."""
    if format_ not in FORMATS:
        raise UsageError(f"there is no export format {format_!r}", f"Use one of {', '.join(FORMATS)}.")
    check_writable_path(out, may_be_folder=True)
    export: Exporter = importlib.import_module(FORMATS[format_]).export
    return export(open_table(path), out, settings)
