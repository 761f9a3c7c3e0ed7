"""The forms of human labels, and reading a file of any. A new form is a module and a line in `READERS`."""

from __future__ import annotations

import shlex
from pathlib import Path

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.human_labels.base import HumanLabels, Reader
from tagllm_cli.evaluation.human_labels.readers import (
    captions,
    cvat,
    datumaro,
    decision_records,
    decision_sheet,
    embedded_xmp,
    fiftyone,
    label_studio,
    page_answers,
    truth_files,
    xmp,
)
from tagllm_cli.evaluation.truth.base import TableContext, TruthFile, TruthOptions

# The first that recognizes a file reads it; what none does is read as ground truth.
READERS: tuple[Reader, ...] = (
    page_answers.REVIEW,
    page_answers.AUDIT,
    cvat.READER,
    fiftyone.READER,
    datumaro.READER,
    label_studio.READER,
    xmp.READER,
    decision_sheet.READER,
    decision_records.READER,
    captions.READER,
    embedded_xmp.READER,
    truth_files.READER,
)

_FORMS = (
    "Name a CSV or JSON Lines with image, label and decision, an export of Label Studio, CVAT or FiftyOne, COCO JSON, "
    "or a folder of sidecars."
)
_PARQUET = b"PAR1"
_PAGES = ("<!doctype html", "<html")
_SAVE = "Save them on the page (`decisions.jsonl` of a review, `answers.csv` of an audit), and name that file."


def read_human_labels(
    path: Path,
    options: TruthOptions = TruthOptions(),  # noqa: B008 (frozen)
    table: TableContext | None = None,
) -> HumanLabels:
    """Read a file (or folder) of any form; its content decides the form, not its name.

    Raises UsageError, with what to do, for what cannot be used or could only be guessed.
    """
    if not path.exists():
        is_url = ":" in str(path).partition("/")[0]
        raise UsageError(f"there is no file at {path}", "Copy it here first." if is_url else _FORMS)
    file = TruthFile(path, options, table)
    try:
        if not file.is_folder and not path.is_file():
            raise UsageError(f"{path} is neither a file nor a folder", _FORMS)
        if not (file.is_folder or file.start or path.stat().st_size > len(file.head)):
            raise UsageError(f"{path} is empty", _FORMS)
        if file.head.startswith(_PARQUET):
            raise _is_table(path)
        if file.start[:20].lower().startswith(_PAGES):
            raise UsageError(f"{path} is a web page, and people's decisions are not in it", _SAVE)
        reader = next((each for each in READERS if each.recognizes(file)), None)
        if reader is None:
            what = "a folder without files of labels" if file.is_folder else "in no form that is known"
            raise UsageError(f"{path} is {what}", _FORMS)
        if reader is truth_files.READER and (splits := sorted(path.glob("*/metadata.jsonl"))):
            names = " ".join(shlex.quote(str(each.parent)) for each in splits)
            raise UsageError(f"the labels of {path} are in the folders of its splits", f"Name them: {names}")
        found = reader.read(file)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", "Check its permissions.") from error
    except UnicodeError as error:
        raise file.not_text(error) from error
    except UsageError as error:
        if error.hint:
            raise
        hint = "It may be cut: download or save it again." if "is not JSON" in error.message else _FORMS
        raise UsageError(error.message, hint) from error
    if not found.checked and not found.statements:
        raise UsageError(f"{path} says nothing about any image ({found.form})", "Save it when something is labeled.")
    return found


def _is_table(path: Path) -> UsageError:
    return UsageError(
        f"{path} is a Parquet file, and people decide in other files",
        "Name what people corrected; `tagllm merge` takes over their decisions from another table.",
    )
