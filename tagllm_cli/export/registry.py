"""The export formats by name. To add one: a module with a `FORMAT`, and its name in the two lines below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tagllm_cli.errors import UsageError
from tagllm_cli.export import coco, csv_file, hf, jsonl
from tagllm_cli.export.base import ExportSettings, ExportSummary, Format
from tagllm_cli.store.atomic import check_writable_path

FORMATS: Mapping[str, Format] = {each.FORMAT.name: each.FORMAT for each in (coco, csv_file, jsonl, hf)}


def export_table(
    path: Path,
    format_: str,
    out: Path,
    settings: ExportSettings = ExportSettings(),  # noqa: B008 (frozen)
) -> ExportSummary:
    """Export the table at `path`. Raises UsageError for an unknown format, an unusable table or an occupied `out`."""
    from tagllm_cli.store.table import open_table

    if format_ not in FORMATS:
        raise UsageError(f"there is no export format {format_!r}", f"Use one of {', '.join(FORMATS)}.")
    check_writable_path(out, may_be_folder=True)
    return FORMATS[format_].export(open_table(path), out, settings)
