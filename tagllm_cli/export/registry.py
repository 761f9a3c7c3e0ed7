"""The export formats by name. To add one: a module with a `FORMAT`, and its name in the two lines below.

Each export has a dataset card: the `README.md` of a folder, `OUT.card.md` beside a file. One that somebody edited or
wrote is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tagllm_cli.errors import UsageError
from tagllm_cli.export import coco, csv_file, hf, jsonl
from tagllm_cli.export.base import ExportSettings, ExportSummary, Format, export_card
from tagllm_cli.store.atomic import check_writable_path

CARD_ENDING = ".card.md"

FORMATS: Mapping[str, Format] = {each.FORMAT.name: each.FORMAT for each in (coco, csv_file, jsonl, hf)}


def export_table(
    path: Path,
    format_: str,
    out: Path,
    settings: ExportSettings = ExportSettings(),  # noqa: B008 (frozen)
) -> ExportSummary:
    """Export the table at `path`, with its dataset card.

    Raises UsageError for an unknown format, an unusable table or an occupied `out`.
    """
    from tagllm_cli.store.dataset_card import put_card
    from tagllm_cli.store.table import open_table

    if format_ not in FORMATS:
        raise UsageError(f"there is no export format {format_!r}", f"Use one of {', '.join(FORMATS)}.")
    check_writable_path(out, may_be_folder=True)
    table = open_table(path)
    summary = FORMATS[format_].export(table, out, settings)
    if summary.card is not None:
        return summary
    card = out.with_name(f"{out.name}{CARD_ENDING}")
    written = put_card(card, export_card(table, summary, settings))
    return replace(summary, card=card, card_kept=not written)
