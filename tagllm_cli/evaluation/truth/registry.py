"""The dialects of ground truth, and reading a file of any. A new dialect is a module and a line in `DIALECTS`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.truth import (
    coco,
    label_studio,
    label_table,
    long_sheet,
    records,
    text_files,
    voc,
    wide_sheet,
)
from tagllm_cli.evaluation.truth.base import Dialect, TableContext, Truth, TruthFile, TruthOptions

# The first that recognizes a file reads it.
DIALECTS: tuple[Dialect, ...] = (
    label_table.DIALECT,
    voc.DIALECT,
    text_files.FOLDER_DIALECT,
    coco.DIALECT,
    label_studio.JSON_DIALECT,
    records.DIALECT,
    text_files.LINES_DIALECT,
    label_studio.CSV_DIALECT,
    long_sheet.DIALECT,
    wide_sheet.DIALECT,
)

_FORMS = (
    "Name a CSV, COCO instances JSON, JSON Lines, a label table, a Label Studio export, or a folder of Pascal VOC XML."
)


def load_truth(
    path: Path,
    options: TruthOptions = TruthOptions(),  # noqa: B008 (frozen)
    table: TableContext | None = None,
) -> Truth:
    """Read human labels; the content decides the dialect, not the file's name.

    `table` is what they are read for: its images and vocabulary settle which column is which and where a cell is cut.
    Raises UsageError for what cannot be used, and for what could only be guessed.
    """
    if not path.exists():
        is_url = ":" in str(path).partition("/")[0]
        hint = "A truth is read from a local disk: copy it here." if is_url else _FORMS
        raise UsageError(f"there is no truth file at {path}", hint)
    file = TruthFile(path, options, table)
    try:
        if not (file.is_folder or file.start or path.stat().st_size > len(file.head)):
            raise UsageError(f"the truth {path} is empty", _FORMS)
        if file.is_folder and (inner := text_files.metadata_file(path)):
            file = replace(file, path=inner)
        dialect = next((each for each in DIALECTS if each.recognizes(file)), None)
        if dialect is None:
            what = "a folder without XML, text or metadata files" if file.is_folder else "in no form that is known"
            raise UsageError(f"{path} is {what}", _FORMS)
        if options.human_only and dialect is not label_table.DIALECT:
            raise UsageError(
                f"--human-only is about a table with decisions of people, and {path} is read as {dialect.name}",
                "Name a label table that decisions were imported into, or leave --human-only out.",
            )
        truth = dialect.read(file)
    except OSError as error:
        raise UsageError(f"cannot read the truth {path}: {error.strerror or error}") from error
    if not truth.labels:
        raise UsageError(f"{path} says nothing about any image", _FORMS)
    if not any(truth.labels.values()):
        truth = replace(truth, warnings=(*truth.warnings, "no image of the truth has a label: nothing can be found"))
    return truth
