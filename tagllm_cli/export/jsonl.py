"""JSON Lines, one object per image, for everything that has no format of its own.

Saved as `metadata.jsonl` beside the images it is an `imagefolder` of `datasets`: `file_name` is the path below the
source root (see `Examples.with_file_names`). `unknown` lists undecided labels, which a loss should leave out rather
than take for absent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tagllm_cli.export.base import Examples, ExportSettings, ExportSummary, Format
from tagllm_cli.store.atomic import replacing, starts_with

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table

_is_ours = starts_with(b'{"image_id": ')


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write one file in UTF-8."""
    examples = Examples(table, settings)
    names = [label.name for label in examples.vocabulary]
    with replacing(out, is_ours=_is_ours) as new, new.open("w", encoding="utf-8") as file:
        for example, name in examples.with_file_names():
            row = example.row
            line = {
                "image_id": row.image_id,
                "file_name": name,
                "width": row.width,
                "height": row.height,
                "labels": [names[label] for label in example.labels],
                "scores": example.scores,
                "unknown": [names[label] for label in example.unknown],
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return examples.summary([out])


FORMAT = Format("jsonl", "JSON Lines, an object per image", export, _is_ours, holds_unknown=True)
