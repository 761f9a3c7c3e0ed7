"""CSV with one line per image: `image_id,labels,scores`, lists divided by `|`.

One line per image, because a line per label would lose the images without labels, and a column per label grows with
the vocabulary. fastai reads it with `label_delim="|"`, pandas with `labels.str.get_dummies("|")`, which is one-hot.

A cell that a spreadsheet would take for a formula (`=`, `+`, `-`, `@`, tab or line break first) gets an apostrophe in
front, and so does one that begins like that after apostrophes; `evaluate --truth` takes one off.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from tagllm_cli.errors import UsageError
from tagllm_cli.export.base import Examples, ExportSettings, ExportSummary, Format
from tagllm_cli.store.atomic import replacing, starts_with
from tagllm_cli.text import defused

if TYPE_CHECKING:
    from tagllm_cli.store.table import Table

SEPARATOR = "|"

_HEADER = "image_id,labels,scores\n"
_has_lines_of_ours = starts_with(f'{_HEADER}"'.encode())  # pandas and spreadsheets leave the quotes out


def _is_ours(path: Path) -> bool:
    return _has_lines_of_ours(path) or (
        path.is_file() and path.stat().st_size == len(_HEADER) and path.read_text() == _HEADER
    )


def export(table: Table, out: Path, settings: ExportSettings) -> ExportSummary:
    """Write one CSV file in UTF-8. Raises UsageError for label names that hold the separator."""
    examples = Examples(table, settings)
    names = [label.name for label in examples.vocabulary]
    if divided := [name for name in names if SEPARATOR in name]:
        message = f"the label {divided[0]!r} holds {SEPARATOR!r}, which divides labels in this format"
        raise UsageError(message, "Use --format jsonl.")
    with replacing(out, is_ours=_is_ours) as new, new.open("w", encoding="utf-8", newline="") as file:
        file.write(_HEADER)
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # so that \\r stays in its cell
        for example in examples:
            labels = SEPARATOR.join(names[label] for label in example.labels)
            scores = SEPARATOR.join(map(str, example.scores))
            writer.writerow((defused(example.row.image_id), defused(labels), scores))
    return examples.summary([out])


FORMAT = Format("csv", "one line per image, labels divided by |", export, _is_ours)
