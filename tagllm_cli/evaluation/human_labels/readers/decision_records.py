"""Our own JSON: an object for each decision, in JSON Lines or in a list.

{"image": "beach/1.jpg", "label": "dog", "decision": "yes", "who": "ann", "when": "2026-05-01T12:00:00Z"}
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tagllm_cli.evaluation.human_labels.base import CheckedImage, HumanLabels, Reader, Statement
from tagllm_cli.evaluation.human_labels.readers.cells import decision_of, time_of
from tagllm_cli.evaluation.human_labels.readers.columns import columns_of, warnings_of
from tagllm_cli.evaluation.truth.base import TruthFile

_SHAPE = 'Each is {"image": "1.jpg", "label": "dog", "decision": "yes"}.'


def recognizes(file: TruthFile) -> bool:
    """Return whether the first object holds a decision."""
    if not file.is_json:
        return False
    first = next(iter(_records(file)), (0, None))[1]
    return isinstance(first, dict) and columns_of(file, list(first)) is not None


def read(file: TruthFile) -> HumanLabels:
    """Read all decisions. Raises UsageError for a record that says something else."""
    statements, undecided = [], 0
    names: dict[str, None] = {}
    for line, record in _records(file):
        columns = columns_of(file, list(record)) if isinstance(record, dict) else None
        if columns is None:
            raise file.error("this record holds no decision", _SHAPE, line=line)
        names |= dict.fromkeys(record)
        image, label = record[columns.image], record[columns.label]
        if not isinstance(image, (str, int)) or not isinstance(label, (str, int)) or image == "":
            raise file.error("this record names no image or no label", _SHAPE, line=line)
        said = decision_of(record[columns.decision], file, line)
        if said is None:
            undecided += 1
            continue
        who, fingerprint = (
            "" if name is None or record[name] is None else str(record[name])
            for name in (columns.who, columns.fingerprint)
        )
        when = None if columns.when is None else time_of(record[columns.when], file, line)
        statements.append(Statement(str(image), str(label), said, who, when, fingerprint))
    if not statements:
        raise file.error("it holds no decision", _SHAPE)
    notes = [f"records without a decision, which say nothing: {undecided:,}"] if undecided else []
    checked = list({(each.image, each.who): CheckedImage(each.image, each.who) for each in statements}.values())
    kind = "JSON Lines" if file.is_json_lines else "JSON"
    form = f"{kind}, a record per decision"
    warnings = tuple(warnings_of(list(names)))
    return HumanLabels(statements, checked, form, is_explicit=True, notes=tuple(notes), warnings=warnings)


def _records(file: TruthFile) -> Iterable[tuple[int, Any]]:
    if file.is_json_lines:
        return file.json_lines()
    document = file.document
    return enumerate(document if isinstance(document, list) else [document], 1)


READER = Reader("records of decisions", recognizes, read)
