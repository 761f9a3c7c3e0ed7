"""Sheets with a column per label: 1 or yes, 0 or no; empty, -1 and `uncertain` are not judged (CheXpert)."""

from __future__ import annotations

from tagllm_cli.evaluation.truth.base import Dialect, Truth, TruthFile
from tagllm_cli.evaluation.truth.cells import mark
from tagllm_cli.evaluation.truth.columns import image_column, label_column, no_label_column
from tagllm_cli.text import some

_MINUS = frozenset(["-1", "-1.0"])


def recognizes(file: TruthFile) -> bool:
    """Return whether no column holds label names, so that each may be a label."""
    if not file.is_text:
        return False
    sheet = file.sheet
    sample = sheet.sample()
    return label_column(file, sheet.header, sample, [image_column(file, sheet.header, sample)]) is None


def read(file: TruthFile) -> Truth:
    """Read the sheet; columns that are no labels of the vocabulary and hold other values are left out."""
    sheet, header = file.sheet, file.sheet.header
    image = image_column(file, header, sheet.sample())
    # A column without a name is the index that pandas writes.
    columns = {number: name for number, name in enumerate(header) if name and number != image}
    in_vocabulary = {n for n, name in columns.items() if file.table is not None and file.table.knows(name)}
    if not columns or (file.table is not None and not in_vocabulary):
        raise no_label_column(file, header)
    columns, others = _label_columns(file, image, columns, in_vocabulary)
    present: dict[str, set[str]] = {}
    unknown: dict[str, set[str]] = {}
    conflicts: dict[str, set[str]] = {}
    for _, cells in sheet.lines():
        marks = {name: mark(cells[number]) for number, name in columns.items()}
        here = {name for name, said in marks.items() if said}
        unsaid = {name for name, said in marks.items() if said is None}
        key = cells[image]
        if key in present:
            disputed = (present[key] - here - unsaid) | (here - present[key] - unknown[key])
            if disputed:
                conflicts.setdefault(key, set()).update(disputed)
            here, unsaid = here | present[key], unsaid & unknown[key]
        present[key], unknown[key] = here, unsaid
    for key, disputed in conflicts.items():
        present[key] -= disputed
        unknown[key] |= disputed
    count = sum(map(len, conflicts.values()))
    return Truth(
        {key: frozenset(names) for key, names in present.items()},
        tuple(dict.fromkeys(columns.values())),
        exhaustive=True,
        unknown={key: frozenset(names) for key, names in unknown.items() if names},
        dialect=f"{sheet.name}, a column per label ({header[image]}; {len(columns):,} labels)",
        notes=(f"columns that are no labels: {some(others, 8)}",) if others else (),
        warnings=(f"pairs that one line has and another lacks, and that are not judged: {count:,}",) if count else (),
    )


def _label_columns(
    file: TruthFile, image: int, columns: dict[int, str], in_vocabulary: set[int]
) -> tuple[dict[int, str], list[str]]:
    """Return the columns of labels and the names of all others. Raises UsageError for cells that are no marks."""
    header, labels = file.sheet.header, dict(columns)
    has_zero = has_minus = False
    for line, cells in file.sheet.lines():
        if not cells[image]:
            raise file.error(f"there is no image in column {header[image]!r}", line=line)
        for number in tuple(labels):
            try:
                said = mark(cells[number])
            except KeyError:
                if in_vocabulary and number not in in_vocabulary:
                    del labels[number]
                    continue
                message = f"{cells[number]!r} in column {columns[number]!r} is neither 0 nor 1"
                hint = "Use 0 and 1, and nothing where nobody looked; or name a column of labels with --label-column."
                raise file.error(message, hint, line=line) from None
            if not in_vocabulary or number in in_vocabulary:
                has_zero = has_zero or said is False
                has_minus = has_minus or cells[number] in _MINUS
    if has_minus and not has_zero:
        message = "the columns hold 1 and -1, but never 0: -1 may mean absent or uncertain"
        raise file.error(message, "Write 0 where a label is absent, and nothing where it is uncertain.")
    return labels, [name for number, name in columns.items() if number not in labels]


DIALECT = Dialect("sheet with a column per label", recognizes, read)
