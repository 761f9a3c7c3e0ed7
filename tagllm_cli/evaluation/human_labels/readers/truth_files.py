"""Every form of ground truth (`evaluation.truth`) as what people said: labels that are there are yes.

Where a form says that a label is absent (a column per label, Open Images), that is no. What is only not listed says
nothing, unless the import is complete.
"""

from __future__ import annotations

from tagllm_cli.evaluation.human_labels.base import NO, YES, CheckedImage, HumanLabels, Reader, Statement
from tagllm_cli.evaluation.truth import wide_sheet
from tagllm_cli.evaluation.truth.base import TruthFile
from tagllm_cli.evaluation.truth.registry import DIALECTS, load_truth


def recognizes(file: TruthFile) -> bool:
    """Return True: reading it says what is wrong with it."""
    return True


def read(file: TruthFile) -> HumanLabels:
    """Read it as ground truth. Raises UsageError where that cannot be done."""
    truth = load_truth(file.path, file.options, file.table)
    # A column per label is read as the present labels and those not judged: all others are 0 in its cells.
    has_zeros = not file.is_folder and _dialect_of(file) is wide_sheet.DIALECT
    statements: list[Statement] = []
    for image in truth.labels:
        statements += [Statement(image, label, YES) for label in sorted(truth.labels[image])]
        absent: frozenset[str] = frozenset()
        if truth.absent is not None:
            absent = truth.absent.get(image, absent)
        elif has_zeros:
            absent = frozenset(truth.names) - truth.labels[image] - truth.unknown.get(image, frozenset())
        statements += [Statement(image, label, NO) for label in sorted(absent)]
    is_explicit = has_zeros or truth.absent is not None
    return HumanLabels(
        statements,
        [CheckedImage(image) for image in truth.labels],
        truth.dialect,
        names=truth.names if truth.exhaustive else None,
        is_explicit=is_explicit,
        notes=truth.notes,
        warnings=truth.warnings,
    )


def _dialect_of(file: TruthFile) -> object:
    return next((each for each in DIALECTS if each.recognizes(file)), None)


READER = Reader("ground truth", recognizes, read)
