"""The forms of human labels, and reading a file of any. A new form is a module in `readers/` and a line here."""

from __future__ import annotations

from pathlib import Path

from tagllm_cli.errors import UsageError
from tagllm_cli.evaluation.human_labels.base import HumanLabels, Reader
from tagllm_cli.evaluation.human_labels.readers import cvat, datumaro, fiftyone, label_studio
from tagllm_cli.evaluation.truth.base import TableContext, TruthFile, TruthOptions

# The first that recognizes a file reads it.
READERS: tuple[Reader, ...] = (
    cvat.READER,
    fiftyone.READER,
    datumaro.READER,
    label_studio.READER,
)

_FORMS = "Name what your tool exported: Label Studio JSON, CVAT for images XML, a FiftyOne or Datumaro dataset."


def read_human_labels(
    path: Path,
    options: TruthOptions = TruthOptions(),  # noqa: B008 (frozen)
    table: TableContext | None = None,
) -> HumanLabels:
    """Read what people said; the content decides the form, not the file's name.

    Raises UsageError for what cannot be used, and for a file in which nobody says anything.
    """
    if not path.exists():
        raise UsageError(f"there is no file at {path}", _FORMS)
    file = TruthFile(path, options, table)
    try:
        if not (file.is_folder or file.head):
            raise UsageError(f"{path} is empty", "Export it from the tool again.")
        reader = next((each for each in READERS if each.recognizes(file)), None)
        if reader is None:
            raise UsageError(f"{path} is in no form that is known", _FORMS)
        found = reader.read(file)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    if not found.checked and not found.statements:
        raise UsageError(f"{path} says nothing about any image ({found.form})", "Export it when something is labeled.")
    return found
