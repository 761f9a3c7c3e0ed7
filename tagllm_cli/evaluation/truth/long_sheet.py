"""Sheets with a column of labels: a line per image and label, or a line per image with all of its labels.

A column such as `present` or `Confidence` (Open Images) says whether a label is there. Where one line says that a label
is absent, only the labels that lines name are judged: what nobody looked at is neither present nor absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tagllm_cli.evaluation.truth.base import Collector, Dialect, Truth, TruthFile, united
from tagllm_cli.evaluation.truth.cells import Cut, choose_cut, is_mark, mark
from tagllm_cli.evaluation.truth.coded import Coded
from tagllm_cli.evaluation.truth.columns import LIST_COLUMNS, image_column, label_column, no_label_column, squashed
from tagllm_cli.evaluation.truth.label_sets import sorted_set
from tagllm_cli.text import shortened

PRESENCE_COLUMNS = {"present", "presence", "ispresent", "exists", "visible", "verified", "decision", "answer"}
PRESENCE_COLUMNS |= {"confidence", "score", "probability"}  # of which 0 and 1 only can be read
# Open Images, VOC and COCO say these of boxes: they do not make a label absent.
_ABOUT_BOXES = frozenset(
    f"{prefix}{word}"
    for prefix in ("", "is")
    for word in ("occluded", "truncated", "groupof", "depiction", "inside", "crowd", "iscrowd", "difficult")
)


@dataclass(slots=True)
class _Survey:
    """What the columns hold: distinct label cells, marks, columns of marks, whether images repeat."""

    cells: set[str] = field(default_factory=set)
    says_absent: bool = False
    repeats: bool = False
    marks: dict[int, set[bool | None]] = field(default_factory=dict)


def recognizes(file: TruthFile) -> bool:
    """Return whether a column holds label names."""
    if not file.is_text:
        return False
    sheet = file.sheet
    sample = sheet.sample()
    return label_column(file, sheet.header, sample, [image_column(file, sheet.header, sample)]) is not None


def read(file: TruthFile) -> Truth:
    """Read the sheet. Raises UsageError for cells that cannot be read without a guess."""
    sheet, header = file.sheet, file.sheet.header
    sample = sheet.sample()
    image = image_column(file, header, sample)
    label = label_column(file, header, sample, [image])
    if label is None:
        raise no_label_column(file, header)
    presence = next((n for n, name in enumerate(header) if squashed(name) in PRESENCE_COLUMNS), None)
    presence = None if presence in (image, label) else presence
    survey = _survey(file, image, label, presence)
    several = squashed(header[label]) in LIST_COLUMNS or file.options.label_column is not None
    cut: Cut
    if sheet.is_our_export and file.options.separator is None:
        cut = _cut_at_bars
    else:
        spaces = several and not survey.repeats and presence is None
        cut = choose_cut(file, survey.cells, header[label], several=several, spaces=spaces)
    lists = any(len(cut(cell)) > 1 for cell in survey.cells)
    if presence is None and file.options.label_column is None and not lists:
        _refuse_unread_marks(file, survey)
    found = Collector()
    _collect(found, file, cut, image, label, presence)
    used = [header[number] for number in (image, label, presence) if number is not None]
    columns = sheet.columns
    repeated = len(columns[image].codes) - len(columns[image].cells) if lists else 0
    kind = "a line per image and label" if survey.repeats or not lists else "a line per image"
    return found.truth(
        f"{sheet.name}, {kind} ({', '.join(used)})",
        federated=survey.says_absent,
        notes=[*_notes(header, used, survey), *_repeated(columns[image], columns[label])],
        warnings=united(repeated),
    )


def _repeated(image: Coded, label: Coded) -> list[str]:
    """Say how many lines repeat what another line says: boxes of one label, or a file joined twice."""
    count = len(image.codes) - len(sorted_set(image.codes * len(label.cells) + label.codes))
    return [f"lines that repeat an image and its label, which count once: {count:,}"] if count else []


def _cut_at_bars(cell: str) -> list[str]:
    return [name for name in cell.split("|") if name]


def _collect(found: Collector, file: TruthFile, cut: Cut, image: int, label: int, presence: int | None) -> None:
    images, cells = file.sheet.columns[image], file.sheet.columns[label]
    parts = [cut(cell) for cell in cells.cells]
    names = {name: number for number, name in enumerate(dict.fromkeys(name for part in parts for name in part))}
    counts = np.array([len(part) for part in parts], np.int64)
    starts = np.cumsum(counts) - counts
    flat = np.array([names[name] for part in parts for name in part], np.int64)
    each = counts[cells.codes]  # labels of each line
    within = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
    marks = np.ones(len(each), np.int8)
    if presence is not None:
        said = [mark(cell) for cell in file.sheet.columns[presence].cells]
        marks = np.array([-1 if each is None else int(each) for each in said], np.int8)[
            file.sheet.columns[presence].codes
        ]
    labels = flat[np.repeat(starts[cells.codes], each) + within]
    found.add_many(images.cells, names, np.repeat(images.codes, each), labels, np.repeat(marks, each))


def _survey(file: TruthFile, image: int, label: int, presence: int | None) -> _Survey:
    header, columns = file.sheet.header, file.sheet.columns
    survey = _Survey(set(columns[label].cells), repeats=len(columns[image].cells) < len(columns[image].codes))
    if "" in columns[image].cells or not (presence is None or all(map(is_mark, columns[presence].cells))):
        _refuse_first(file, image, presence)
    survey.says_absent = presence is not None and any(mark(cell) is False for cell in columns[presence].cells)
    for number, name in enumerate(header):
        if number in (image, label, presence) or not name or squashed(name) in _ABOUT_BOXES:
            continue
        if all(map(is_mark, columns[number].cells)):
            survey.marks[number] = set(map(mark, columns[number].cells))
    return survey


def _refuse_first(file: TruthFile, image: int, presence: int | None) -> None:
    """Raise UsageError for the first line without an image, or whose mark says nothing."""
    header = file.sheet.header
    for line, cells in file.sheet.lines():
        if not cells[image]:
            raise file.error(f"there is no image in column {header[image]!r}", line=line)
        if presence is not None and not is_mark(cells[presence]):
            hint = "Write 1 where the label is there, 0 where it is not, or leave this column out."
            message = f"{cells[presence]!r} in column {header[presence]!r} says neither yes nor no"
            raise file.error(message, hint, line=line)


def _refuse_unread_marks(file: TruthFile, survey: _Survey) -> None:
    """Raise UsageError for a column that may say which labels are absent, under a name that does not say so."""
    for number, marks in survey.marks.items():
        if {True, False} <= marks:
            column = file.sheet.header[number]
            raise file.error(
                f"column {column!r} holds yes and no: does it say whether the label is there?",
                "If so, call it `present`; if not, name the column of labels with --label-column.",
            )


def _notes(header: Sequence[str], used: Sequence[str], survey: _Survey) -> list[str]:
    unread = [name for name in header if name and name not in used]
    notes = [f"columns that are not read: {shortened(unread, 8)}"] if unread else []
    if survey.says_absent:
        notes.append("only the labels that a line names are judged, as present or as absent")
    return notes


DIALECT = Dialect("sheet with a column of labels", recognizes, read)
