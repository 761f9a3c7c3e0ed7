"""Our own sheet: a line for each decision.

    image,label,decision,who,when,fingerprint
    beach/1.jpg,dog,yes,ann,2026-05-01T12:00:00Z,

`who`, `when` and `fingerprint` may be missing; a line without a decision says nothing. Cells that our exports defused
against spreadsheets are read as they were.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

from tagllm_cli.evaluation.human_labels.base import CheckedImage, HumanLabels, Reader, Statement
from tagllm_cli.evaluation.human_labels.readers.cells import decision_of, time_of
from tagllm_cli.evaluation.human_labels.readers.columns import columns_of, warnings_of
from tagllm_cli.evaluation.truth.base import TruthFile
from tagllm_cli.text import shortened, undefused

_CUT = "Put cells with a delimiter into double quotes; if the file ends here, it may be cut: save it again."


def recognizes(file: TruthFile) -> bool:
    """Return whether this is a sheet with columns for image, label and decision."""
    return file.is_text and columns_of(file, file.sheet.header) is not None


def read(file: TruthFile) -> HumanLabels:
    """Read all decisions. Raises UsageError for a line that is cut or says something else."""
    header = file.sheet.header
    columns = columns_of(file, header)
    assert columns is not None  # it was recognized
    where = {name: number for number, name in reversed(list(enumerate(header)))}
    image, label, decision = (where[name] for name in (columns.image, columns.label, columns.decision))
    who, when, fingerprint = (
        None if name is None else where[name] for name in (columns.who, columns.when, columns.fingerprint)
    )
    statements, undecided = [], 0
    for line, cells in _lines(file):
        if not cells[image].strip():
            raise file.error(f"there is no image in column {columns.image!r}", "Name one.", line=line)
        said = decision_of(cells[decision], file, line)
        if said is None:
            undecided += 1
            continue
        if not cells[label].strip():
            raise file.error(f"there is no label in column {columns.label!r}", "Name one.", line=line)
        statements.append(
            Statement(
                undefused(cells[image]),
                undefused(cells[label].strip()),
                said,
                "" if who is None else undefused(cells[who].strip()),
                None if when is None else time_of(cells[when], file, line),
                "" if fingerprint is None else cells[fingerprint].strip(),
            )
        )
    if not statements:
        raise file.error("it holds no decision", f"Fill in the column {columns.decision!r} with yes, no or unknown.")
    used = [name for name in (columns.image, columns.label, columns.decision, columns.who, columns.when) if name]
    warnings = warnings_of(header)
    if not _ends_whole(file):
        warnings.append(f"{file.path} does not end with a line break: it may be cut")
    notes = [f"lines without a decision, which say nothing: {undecided:,}"] if undecided else []
    checked = list({(each.image, each.who): CheckedImage(each.image, each.who) for each in statements}.values())
    form = f"{file.sheet.name}, a line per decision ({shortened(used, 8)})"
    return HumanLabels(statements, checked, form, is_explicit=True, notes=tuple(notes), warnings=tuple(warnings))


def _lines(file: TruthFile) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells, as they stand: names may begin and end with spaces."""
    sheet = file.sheet
    width = len(sheet.header)
    try:
        with file.open_text() as text:
            reader = csv.reader(text, delimiter=sheet.delimiter, strict=True)
            for cells in reader:
                if reader.line_num <= sheet.lines_above or not any(cells):
                    continue
                if len(cells) > width and not any(cells[width:]):
                    cells = cells[:width]
                if len(cells) != width:
                    message = f"{len(cells)} fields where the header has {width}"
                    raise file.error(message, _CUT, line=reader.line_num)
                yield reader.line_num, cells
    except (UnicodeError, csv.Error) as error:
        raise file.not_text(error) from error


def _ends_whole(file: TruthFile) -> bool:
    with file.path.open("rb") as data:
        data.seek(-min(4, data.seek(0, 2)), 2)
        return data.read().rstrip(b"\0")[-1:] in (b"\n", b"\r")


READER = Reader("sheet of decisions", recognizes, read)
